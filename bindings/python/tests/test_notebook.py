import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attend

EXAMPLES = Path(__file__).parents[1] / "examples"
INPUTS = EXAMPLES.parents[1] / "notebook" / "inputs.txt"


def test_ipynb():
    """The stored notebook is what the script gives when it is run as one now, outputs included."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    now = runpy.run_path(str(EXAMPLES / "make_ipynb.py"))["executed"]()
    stored = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert [texts(cell) for cell in now.cells] == [texts(cell) for cell in stored.cells]
    assert any("1.64201168 -0.08470004  4.02764044  2.18690791" in texts(cell)[1] for cell in stored.cells)


def texts(cell):
    return cell.source, "".join(output.text for output in cell.get("outputs", []))


def test_inputs_of_the_other_languages():
    """inputs.txt is what NumPy's generator gives, and leads to the notebook's numbers in float32 too."""
    lines = INPUTS.read_text().splitlines()
    m = {}
    while lines:
        name, rows, _ = lines.pop(0).split()
        m[name] = np.array([[float(word) for word in lines.pop(0).split()] for _ in range(int(rows))])
    np.random.seed(3)
    assert (m["x"][:, 0] == np.random.normal(size=4)).all()
    for dtype, bound in ((np.float64, 5.1e-9), (np.float32, 2e-5)):
        weights = [m[name].astype(dtype) for name in ("omega_q", "omega_k", "omega_v", "beta_q", "beta_k", "beta_v")]
        out = attend.self_attention(m["x"].astype(dtype).T, *weights, scale=1)
        assert np.abs(out.T - m["x_prime"]).max() < bound


def test_import_leaves_torch_alone():
    code = "import sys, attend; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(os.environ.get("ATTEND_WHEEL") != "--wheel", reason="built against an installed library")
def test_the_library_is_the_wheel_s():
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libattend" in line}
    assert [Path(path).parent for path in loaded] == [Path(attend.__file__).parent]
