"""What the rows of docs/porting.md have in common. Every row prints what the package gave: pytest -s shows it."""

import numpy as np
import pytest

import attend

B, H, HKV, NQ, NK, D = 2, 4, 2, 3, 5, 8


def need(*modules):
    """Skips the file, by name, where a package is not there."""
    return [pytest.importorskip(module, reason=f"{module} is not installed") for module in modules]


def operands(hkv=H, nq=NQ, nk=NK, seed=1):
    """q [B, H, nq, D], k and v [B, hkv, nk, D]."""
    random = np.random.default_rng(seed)
    return tuple(random.standard_normal((B, h, n, D), dtype=np.float32) for h, n in ((H, nq), (hkv, nk), (hkv, nk)))


def visible():
    """[B, 1, NQ, NK], some True; query 1 of batch 0 sees nothing, all others see key 0."""
    mask = np.random.default_rng(2).random((B, 1, NQ, NK)) < 0.6
    mask[..., 0] = True
    mask[0, 0, 1] = False
    return mask


def items_first(x):
    """[B, H, N, D] <-> [B, N, H, D], a view."""
    return np.swapaxes(np.asarray(x), 1, 2)


def attention_of_items(q, k, v, **options):
    """attend on arrays [B, N, H, D]."""
    return items_first(attend.attention(*map(items_first, (q, k, v)), **options))


def same(row, theirs, ours, tolerance=2e-6):
    theirs, ours = np.asarray(theirs), np.asarray(ours)
    assert theirs.shape == ours.shape, row
    difference = np.abs(theirs - ours).max()
    print(f"\n{row}: as attend, to {difference:.1g}", end="")
    assert difference <= tolerance, row


def differ(row, theirs, ours):
    difference = np.abs(np.asarray(theirs) - np.asarray(ours)).max()
    print(f"\n{row}: not as attend, by {difference:.1g}", end="")
    assert difference > 0.01, row


def hidden_row(row, theirs, values, expected):
    """What a query without a visible key gave: "0", "NaN" or "mean", that of all values [NK, D], hidden ones too."""
    theirs, mean = np.asarray(theirs), np.asarray(values).mean(axis=0)
    gave = ("NaN" if np.isnan(theirs).all() else "0" if not theirs.any() else
            "mean" if np.allclose(theirs, mean, atol=1e-6) else str(theirs))
    print(f"\n{row}: {gave}", end="")
    assert gave == expected, row


def hidden_nan(row, attention, expected):
    """Whether NaN in the values of a key that nobody sees reaches the result. attention(q, k, v, mask) [B, H, N, D]."""
    q, k, v = operands()
    v[:, :, NK - 1] = np.nan
    mask = np.ones((1, 1, NQ, NK), bool)
    mask[..., NK - 1] = False
    assert not np.isnan(attend.attention(q, k, v, mask=mask)).any()
    gave = bool(np.isnan(np.asarray(attention(q, k, v, mask))).any())
    print(f"\n{row}: {gave}", end="")
    assert gave == expected, row
