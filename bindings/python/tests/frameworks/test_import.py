"""What an import of attend.torch costs beside that of PyTorch."""

import subprocess
import sys


def test_brings_no_more_of_pytorch():
    """PyTorch's compiler, which some of its modules import, takes longer than all the rest of it."""
    code = "import sys, torch; before = set(sys.modules); import attend.torch; print(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = run.stdout.split()
    assert "attend.torch" in brought
    assert not [name for name in brought if name.split(".")[0] == "torch"]
