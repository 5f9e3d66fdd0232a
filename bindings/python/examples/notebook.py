# %% [markdown]
# # Self-attention with attend
#
# The notebook on self-attention of chapter 12 of *Understanding Deep Learning* (S. Prince), cell by cell.

# %%
import numpy as np

import attend

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
# One query at a time. Columns stay columns: `matmul` is NumPy's `@`.

# %%
all_queries = [attend.matmul(omega_q, x, bias=beta_q) for x in all_x]
all_keys = [attend.matmul(omega_k, x, bias=beta_k) for x in all_x]
all_values = [attend.matmul(omega_v, x, bias=beta_v) for x in all_x]

all_x_prime = []
for n in range(N):
    all_km_qn = np.concatenate([attend.matmul(all_queries[n].T, key) for key in all_keys])
    attention = attend.softmax(all_km_qn, axis=0)
    print("Attentions for output ", n)
    print(attention)
    all_x_prime.append(attend.matmul(np.concatenate(all_values, axis=1), attention))

true = np.array([
    [0.94744244, -0.24348429, -0.91310441, -0.44522983],
    [1.64201168, -0.08470004, 4.02764044, 2.18690791],
    [1.61949281, -0.06641533, 3.96863308, 2.15858316],
])
for n in range(N):
    print(f"x_prime_{n}_calculated:", all_x_prime[n].T)
    print(f"x_prime_{n}_true: {true[n : n + 1]}")
    assert (all_x_prime[n].T.round(8) == true[n]).all(), "differs from what the notebook prints"

# %% [markdown]
# The same in one call (equations 12.6 to 12.8). The book's X is D x N with one column per item; NumPy's way is one row per
# item: `X.T`, which copies nothing. The weights stay as they are, and `scale=1` leaves the dot products unscaled.

# %%
X = np.concatenate(all_x, axis=1)
X_prime = attend.self_attention(X.T, omega_q, omega_k, omega_v, beta_q, beta_k, beta_v, scale=1)
print(X_prime)
assert (X_prime.round(8) == true).all(), "differs from what the notebook prints"

# %% [markdown]
# Scaled dot-product self-attention (equation 12.9): 1 / sqrt(D) is the default. (The notebook's own cell drops its division
# by 2 and prints the unscaled result again; these are NumPy's numbers with the division kept.)

# %%
X_prime, attentions = attend.self_attention(X.T, omega_q, omega_k, omega_v, beta_q, beta_k, beta_v,
                                            return_scores="probabilities")
print(X_prime)
print("attention matrix, one row per output:")
print(attentions)
assert (X_prime.round(8) == [
    [0.97411966, -0.23738409, -0.72333202, -0.34413007],
    [1.59622051, -0.09516106, 3.70194096, 2.01339538],
    [1.32638014, 0.13062402, 3.02371664, 1.6902419],
]).all()

# %% [markdown]
# Multi-head self-attention: two heads of two dimensions and an output projection. The weights of all heads are one array
# each, and the heads of `omega_c`, which lie side by side, are a view of it.

# %%
H, DH = 2, 2
np.random.seed(0)
heads = [[np.random.normal(size=(DH, size)) for size in (D, D, D, 1, 1, 1)] for h in range(H)]
omega_c = np.random.normal(size=(D, H * DH))
parameters = [np.stack(of_all_heads) for of_all_heads in zip(*heads, strict=True)]
X_prime = attend.self_attention(X.T, *parameters, w_o=omega_c.reshape(D, H, DH).swapaxes(0, 1))
print(X_prime)
assert (X_prime.round(8) == [
    [0.69254502, 4.12696219, -2.4760237, 0.36644307],
    [-0.51365881, 2.17076585, -2.15123694, 0.10333887],
    [0.34075488, 0.41278529, -0.558509, 1.11736864],
]).all()
