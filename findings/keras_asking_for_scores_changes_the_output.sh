#!/bin/sh
# Keras' MultiHeadAttention: asking for the attention scores changes the output of a query that sees no key.
#
# Seen with keras 3.15.1 on its backends NumPy, and JAX 0.10.2. attention_mask hides all keys of one query, as it does for every padded
# row of a batch. layer(...) gives that row the mean of all values, those of hidden and padded keys included; the same layer on the
# same inputs with return_attention_scores=True gives 0 (the bias of the output projection, where it has one) and scores of 0.
# The first goes through ops.dot_product_attention, which writes a large negative number, the second through the Softmax layer,
# which sets the weights of hidden keys to 0 afterwards. Rows that see a key agree. Whoever plots the scores looks at another
# computation than the model's.
# In attend: 0 with and without scores.
#
# Exit status 0: still so. Needs python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 keras==3.15.1 jax==0.10.2
for backend in numpy jax; do
  KERAS_BACKEND=$backend JAX_PLATFORMS=cpu KERAS_HOME=$folder "$folder/venv/bin/python" -W ignore - <<'PY'
import keras
import numpy as np

array = keras.ops.convert_to_numpy
random = np.random.default_rng(1)
x, y = (random.standard_normal((1, items, 16)).astype(np.float32) for items in (2, 3))
mask = np.array([[[True, True, False], [False, False, False]]])  # query 1 sees no key

layer = keras.layers.MultiHeadAttention(num_heads=2, key_dim=8, use_bias=False)
alone = array(layer(x, y, attention_mask=mask))
beside, scores = map(array, layer(x, y, attention_mask=mask, return_attention_scores=True))
of_mean = array(layer(x, y.mean(axis=1, keepdims=True)))  # one key, the mean of all three: projections are linear

print(f"{keras.backend.backend()}: row that sees keys differs by {np.abs(alone[0, 0] - beside[0, 0]).max():.1g}; "
      f"row that sees none: largest {np.abs(alone[0, 1]).max():.3f} alone, {np.abs(beside[0, 1]).max():.3f} with scores")
assert np.allclose(alone[0, 0], beside[0, 0], atol=1e-6)
assert np.allclose(alone[0, 1], of_mean[0, 1], atol=1e-6) and np.abs(alone[0, 1]).max() > 0.01
assert not beside[0, 1].any() and not scores[0, :, 1].any()
PY
done
