# %% [markdown]
# # Self-attention with attend
#
# The notebook on self-attention of chapter 12 of *Understanding Deep Learning* (S. Prince): what each of its cells computes, in
# NumPy, and beside it attend's call, which must give the same.

# %%
import numpy as np

import attend


def same(book, ours):
    """Within rounding; the digits that the notebook prints are compared where it prints them."""
    assert np.shape(book) == np.shape(ours) and np.allclose(book, ours, rtol=1e-12, atol=1e-15)


# %% [markdown]
# The inputs: N items of D features, one column each.

# %%
# Set seed so we get the same random numbers
np.random.seed(3)
# Number of inputs
N = 3
# Number of dimensions of each input
D = 4
all_x = [np.random.normal(size=(D, 1)) for n in range(N)]
print(all_x)

# %% [markdown]
# The weights and biases for the queries, keys and values (equations 12.2 and 12.4).

# %%
np.random.seed(0)
omega_q = np.random.normal(size=(D, D))
omega_k = np.random.normal(size=(D, D))
omega_v = np.random.normal(size=(D, D))
beta_q = np.random.normal(size=(D, 1))
beta_k = np.random.normal(size=(D, 1))
beta_v = np.random.normal(size=(D, 1))

# %% [markdown]
# ## Queries, keys and values
#
# The book:

# %%
all_queries = [omega_q @ x + beta_q for x in all_x]
all_keys = [omega_k @ x + beta_k for x in all_x]
all_values = [omega_v @ x + beta_v for x in all_x]

# %% [markdown]
# attend: columns stay columns, `matmul` is NumPy's `@` and adds the bias.

# %%
same(all_queries, [attend.matmul(omega_q, x, bias=beta_q) for x in all_x])
same(all_keys, [attend.matmul(omega_k, x, bias=beta_k) for x in all_x])
same(all_values, [attend.matmul(omega_v, x, bias=beta_v) for x in all_x])

# %% [markdown]
# ## Softmax (equation 12.5)
#
# The book:

# %%


def softmax(items_in):
    return np.exp(items_in) / np.sum(np.exp(items_in))


print(softmax([1.0, 2.0, 4.0]))

# %% [markdown]
# attend: along one axis, and without overflow, which the formula as it stands does not survive.

# %%
print(attend.softmax(np.array([1.0, 2.0, 4.0])))
print(attend.softmax(np.array([1.0, 2.0, 1000.0])))
same(softmax([1.0, 2.0, 4.0]), attend.softmax(np.array([1.0, 2.0, 4.0])))

# %% [markdown]
# ## Self-attention, one query at a time (equation 12.3)
#
# The book:

# %%
all_x_prime = []
for n in range(N):
    all_km_qn = [all_queries[n].T @ key for key in all_keys]
    attention = softmax(all_km_qn)
    print("Attentions for output ", n)
    print(attention)
    all_x_prime.append(sum(value * weight for value, weight in zip(all_values, attention, strict=True)))

true = np.array([
    [0.94744244, -0.24348429, -0.91310441, -0.44522983],
    [1.64201168, -0.08470004, 4.02764044, 2.18690791],
    [1.61949281, -0.06641533, 3.96863308, 2.15858316],
])
for n in range(N):
    print(f"x_prime_{n}_calculated:", all_x_prime[n].T)
    print(f"x_prime_{n}_true: {true[n : n + 1]}")

# %% [markdown]
# attend, the same three steps: dot products, softmax, the weighted sum, which is the values times the weights.

# %%
for n in range(N):
    all_km_qn = np.concatenate([attend.matmul(all_queries[n].T, key) for key in all_keys])
    attention = attend.softmax(all_km_qn, axis=0)
    x_prime = attend.matmul(np.concatenate(all_values, axis=1), attention)
    print(x_prime.T)
    same(all_x_prime[n], x_prime)
    assert (x_prime.T.round(8) == true[n]).all(), "differs from what the notebook prints"

# %% [markdown]
# ## In matrix form (equations 12.6 to 12.8)
#
# The book, a softmax that works on each column:

# %%


def softmax_cols(data_in):
    exp_values = np.exp(data_in)
    return exp_values / np.sum(exp_values, axis=0)


X = np.concatenate(all_x, axis=1)
scores = (beta_k + omega_k @ X).T @ (beta_q + omega_q @ X)
print(softmax_cols(scores))

# %% [markdown]
# attend:

# %%
print(attend.softmax(scores, axis=0))
same(softmax_cols(scores), attend.softmax(scores, axis=0))

# %% [markdown]
# The book, the whole mechanism:

# %%


def self_attention(X, omega_v, omega_q, omega_k, beta_v, beta_q, beta_k):
    queries, keys, values = beta_q + omega_q @ X, beta_k + omega_k @ X, beta_v + omega_v @ X
    return (values @ softmax_cols(keys.T @ queries)).T


print(self_attention(X, omega_v, omega_q, omega_k, beta_v, beta_q, beta_k))

# %% [markdown]
# attend, one call. The book's X is D x N with one column per item; NumPy's way is one row per item: `X.T`, which copies
# nothing. The weights stay as they are, and `scale=1` leaves the dot products unscaled.

# %%
X_prime = attend.self_attention(X.T, omega_q, omega_k, omega_v, beta_q, beta_k, beta_v, scale=1)
print(X_prime)
same(self_attention(X, omega_v, omega_q, omega_k, beta_v, beta_q, beta_k), X_prime)
assert (X_prime.round(8) == true).all(), "differs from what the notebook prints"

# %% [markdown]
# ## Scaled dot-product self-attention (equation 12.9)
#
# The book, with the division that the notebook's own cell computes and then drops, so that it prints the unscaled result again:

# %%


def scaled_dot_product_self_attention(X, omega_v, omega_q, omega_k, beta_v, beta_q, beta_k):
    queries, keys, values = beta_q + omega_q @ X, beta_k + omega_k @ X, beta_v + omega_v @ X
    attention = softmax_cols(keys.T @ queries / np.sqrt(D))
    return (values @ attention).T, attention


scaled, attentions = scaled_dot_product_self_attention(X, omega_v, omega_q, omega_k, beta_v, beta_q, beta_k)
print(scaled)
print("attention matrix, one column per output:")
print(attentions)

# %% [markdown]
# attend: 1 / sqrt(D) is the default, and the attention matrix, which otherwise never exists, is there for the asking.

# %%
X_prime, probabilities = attend.self_attention(X.T, omega_q, omega_k, omega_v, beta_q, beta_k, beta_v,
                                               return_scores="probabilities")
print(X_prime)
print("attention matrix, one row per output:")
print(probabilities)
same(scaled, X_prime)
same(attentions.T, probabilities)
assert (X_prime.round(8) == [
    [0.97411966, -0.23738409, -0.72333202, -0.34413007],
    [1.59622051, -0.09516106, 3.70194096, 2.01339538],
    [1.32638014, 0.13062402, 3.02371664, 1.6902419],
]).all()

# %% [markdown]
# ## Multi-head self-attention
#
# The book's next step: two heads of two dimensions, each with its own parameters, side by side, and an output projection.

# %%
H, DH = 2, 2
np.random.seed(0)
heads = [[np.random.normal(size=(DH, size)) for size in (D, D, D, 1, 1, 1)] for h in range(H)]
omega_c = np.random.normal(size=(D, H * DH))
outputs = []
for omega_qh, omega_kh, omega_vh, beta_qh, beta_kh, beta_vh in heads:
    queries, keys, values = beta_qh + omega_qh @ X, beta_kh + omega_kh @ X, beta_vh + omega_vh @ X
    outputs.append(values @ softmax_cols(keys.T @ queries / np.sqrt(DH)))
multi_head = (omega_c @ np.concatenate(outputs)).T
print(multi_head)

# %% [markdown]
# attend: the weights of all heads are one array each, and the heads of `omega_c`, which lie side by side, are a view of it.

# %%
parameters = [np.stack(of_all_heads) for of_all_heads in zip(*heads, strict=True)]
X_prime = attend.self_attention(X.T, *parameters, w_o=omega_c.reshape(D, H, DH).swapaxes(0, 1))
print(X_prime)
same(multi_head, X_prime)
assert (X_prime.round(8) == [
    [0.69254502, 4.12696219, -2.4760237, 0.36644307],
    [-0.51365881, 2.17076585, -2.15123694, 0.10333887],
    [0.34075488, 0.41278529, -0.558509, 1.11736864],
]).all()
