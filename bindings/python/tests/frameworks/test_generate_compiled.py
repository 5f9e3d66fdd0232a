"""generate with a static cache whose steps torch.compile compiles, into C++ by PyTorch's inductor too."""

import attend.transformers
import pytest
import torch
import transformers as hf
from test_transformers import CAUSAL, count_of, padded, pair
from torch._dynamo.backends.registry import lookup_backend


@pytest.fixture(autouse=True)
def nothing_compiled_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


@pytest.mark.parametrize("name, backend", [("llama", "inductor"), ("gemma2", "aot_eager"), ("gpt-oss", "aot_eager")])
@torch.no_grad()
def test_static_cache(name, backend):
    eager, ours = pair(CAUSAL[name])
    given = padded("left", (9, 4))
    options = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": "static", "eos_token_id": None}
    expected = eager.generate(**given, **options, disable_compile=True)
    graphs = []

    def recording(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return lookup_backend(backend)(graph, inputs)

    compiled = hf.CompileConfig(fullgraph=True, backend=recording, mode=None)
    compiled._compile_all_devices = True  # by itself generate compiles on GPUs alone
    got, counted = count_of(lambda: ours.generate(**given, **options, compile_config=compiled))
    assert torch.equal(got, expected)
    assert counted.attention == 2  # both layers of the prefill, which is not compiled
    for targets in graphs:
        assert targets.count("attend.attention.default") == 2
        assert not [target for target in targets if "scaled_dot_product" in target]
    # One for all steps, of which attend takes no number; caches of sliding windows count theirs: a second graph once that varies.
    assert 1 <= len(graphs) <= (1 if name == "llama" else 2)
