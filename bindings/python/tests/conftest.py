import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=[np.float32, np.float64], ids=["f32", "f64"])
def dtype(request):
    return request.param


@pytest.fixture
def draw(dtype):
    """Fresh random arrays: draw(shape). ATTEND_TEST_SEED repeats those of a run that failed."""
    seed = int(os.environ.get("ATTEND_TEST_SEED") or np.random.SeedSequence().entropy)
    print(f"ATTEND_TEST_SEED={seed}")  # shown when the test fails
    random = np.random.default_rng(seed)
    return lambda *shape: random.normal(size=shape).astype(dtype)
