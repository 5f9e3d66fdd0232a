"""Writes inputs.txt: what the notebook draws from NumPy's generator, for languages that do not have it.

A line "name rows columns", then one line per row. The digits name the doubles exactly; x_prime is what the notebook
prints, transposed as in the book: one column per item.
"""

import pathlib

import numpy as np

N, D = 3, 4


def main() -> None:
    np.random.seed(3)
    x = np.concatenate([np.random.normal(size=(D, 1)) for _ in range(N)], axis=1)
    np.random.seed(0)
    matrices = {"x": x}
    for name in ("omega_q", "omega_k", "omega_v"):
        matrices[name] = np.random.normal(size=(D, D))
    for name in ("beta_q", "beta_k", "beta_v"):
        matrices[name] = np.random.normal(size=(D, 1))
    matrices["x_prime"] = np.array([
        [0.94744244, -0.24348429, -0.91310441, -0.44522983],
        [1.64201168, -0.08470004, 4.02764044, 2.18690791],
        [1.61949281, -0.06641533, 3.96863308, 2.15858316],
    ]).T
    lines = []
    for name, matrix in matrices.items():
        lines.append(f"{name} {matrix.shape[0]} {matrix.shape[1]}")
        lines += [" ".join(repr(float(value)) for value in row) for row in matrix]
    (pathlib.Path(__file__).parent / "inputs.txt").write_text("\n".join(lines) + "\n")


main()
