#!/usr/bin/env python3
"""Minimax coefficients for exp.hpp (needs mpmath). Prints them with the largest relative error of the rounded polynomial.

exp2 on [-1/2, 1/2]:        2^f = 1 + f q(f), so that exp2(0) is exactly 1
exp on [-ln2/2, ln2/2]:     e^f = 1 + f + f^2 q(f), which keeps the rounding of the last steps below half an ulp

Remez exchange on the relative error; then the coefficients are rounded to the type, lowest degree first, the higher ones
fitted again after each rounding so that they take up part of its error.
"""
import struct
import sys

from mpmath import mp, mpf

mp.prec = 120


def rounded(x, bits):
    code = "<f" if bits == 24 else "<d"
    return mpf(struct.unpack(code, struct.pack(code, float(x)))[0])


def remez(target, weight, degree, limit, fixed):
    """Polynomial of `degree` with fixed[i] given for some i, minimising |weight * (p - target)| on [-limit, limit]."""
    free = [i for i in range(degree + 1) if i not in fixed]
    n = len(free) + 1
    xs = [-limit * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    xs = [x if abs(x) > limit / 1000 else limit / 100 for x in xs]  # the weight is 0 at 0
    grid = [limit * (mpf(i) / 1000 - 1) for i in range(2001) if i != 1000]
    values = [target(x) for x in grid]
    weights = [weight(x) for x in grid]
    if not free:
        p = fixed
        return p, max(abs((sum(p[i] * x**i for i in p) - t) * w) for x, t, w in zip(grid, values, weights))
    for _ in range(12):
        a = mp.matrix(n, n)
        b = mp.matrix(n, 1)
        for r, x in enumerate(xs):
            for c, i in enumerate(free):
                a[r, c] = x**i
            a[r, n - 1] = (-1) ** r / weight(x)
            b[r] = target(x) - sum(v * x**i for i, v in fixed.items())
        solution = mp.lu_solve(a, b)
        p = {**fixed, **{i: solution[c] for c, i in enumerate(free)}}
        errors = [(sum(p[i] * x**i for i in p) - t) * w for x, t, w in zip(grid, values, weights)]
        peaks, best = [], 0
        for i in range(1, len(grid)):
            if errors[i] * errors[best] < 0:
                peaks.append(best)
                best = i
            elif abs(errors[i]) > abs(errors[best]):
                best = i
        peaks.append(best)
        while len(peaks) > n:
            peaks.remove(min((peaks[0], peaks[-1]), key=lambda i: abs(errors[i])))
        if len(peaks) < n:
            break
        xs = [grid[i] for i in peaks]
    return p, max(abs(e) for e in errors)


def fit(name, target, weight, degree, limit, bits):
    fixed = {}
    for i in range(degree + 1):
        p, _ = remez(target, weight, degree, limit, fixed)
        fixed[i] = rounded(p[i], bits)
    grid = [limit * (mpf(i) / 2000 - 1) for i in range(4001) if i != 2000]
    error = max(abs((sum(fixed[i] * x**i for i in fixed) - target(x)) * weight(x)) for x in grid)
    print("%s: relative error %s = %s ulp" % (name, mp.nstr(error, 3), mp.nstr(error * mpf(2) ** (bits - 1), 3)))
    for i in range(degree, -1, -1):
        print("    %s," % (float(fixed[i]).hex()))


def main():
    half, half_ln2 = mpf(1) / 2, mp.log(2) / 2 * mpf("1.0001")
    exp2_q, exp2_w = (lambda f: (mpf(2) ** f - 1) / f), (lambda f: abs(f) / mpf(2) ** f)
    exp_q, exp_w = (lambda f: (mp.exp(f) - 1 - f) / f**2), (lambda f: f**2 / mp.exp(f))
    for degree in (5, 6):
        fit("exp2 f32 degree %d" % degree, exp2_q, exp2_w, degree - 1, half, 24)
    for degree in (5, 6):
        fit("exp f32 degree %d" % degree, exp_q, exp_w, degree - 2, half_ln2, 24)
    for degree in (10, 11):
        fit("exp2 f64 degree %d" % degree, exp2_q, exp2_w, degree - 1, half, 53)
    for degree in (11, 12):
        fit("exp f64 degree %d" % degree, exp_q, exp_w, degree - 2, half_ln2, 53)


if __name__ == "__main__":
    sys.exit(main())
