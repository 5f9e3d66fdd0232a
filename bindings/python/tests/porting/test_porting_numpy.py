import numpy as np
from packages import attend, need, same

[special] = need("scipy.special")

x = np.random.default_rng(1).standard_normal((3, 4, 5))


def test_axes():
    for axis in (0, 1, -1):
        same(f"scipy softmax axis={axis}", special.softmax(x, axis=axis), attend.softmax(x, axis=axis), 1e-15)
    same("scipy log_softmax", special.log_softmax(x, axis=-1), attend.softmax(x, log=True), 2e-15)
    same("scipy logsumexp", special.logsumexp(x, axis=-1), attend.softmax(x, return_lse=True)[1], 2e-15)


def test_no_axis():
    """SciPy's default is all axes at once, attend's the last one."""
    same("scipy softmax without axis", special.softmax(x), attend.softmax(x.reshape(-1)).reshape(x.shape), 1e-15)


def test_nothing_visible():
    hidden = np.full(4, -np.inf)
    with np.errstate(invalid="ignore"):
        gave = special.softmax(hidden)
    print(f"\nscipy softmax of -inf alone: {gave}, logsumexp {special.logsumexp(hidden)}", end="")
    assert np.isnan(gave).all() and special.logsumexp(hidden) == -np.inf
    ours, lse = attend.softmax(hidden, bias=hidden, return_lse=True)
    assert not ours.any() and lse == -np.inf
