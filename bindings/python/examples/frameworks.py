"""Times attention of models against PyTorch's: medians of calls that take turns, and how often as fast attend is.

    python frameworks.py THREADS [functions,gradients,encoder,prefill,decode]
"""

import copy
import os
import statistics
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import attend.transformers
import torch
import torch.nn.functional as F
import transformers as hf
from attend.torch import scaled_dot_product_attention

# MiniLM's size, and how many tokens it makes of the 20 sentences in tests/frameworks/test_minilm.py.
MINILM = hf.BertConfig(vocab_size=3000, hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=12)
TOKENS = [4, 15, 22, 11, 21, 4, 23, 18, 30, 9, 23, 14, 28, 5, 23, 13, 76, 4, 19, 16]
LLAMA = hf.LlamaConfig(vocab_size=512, hidden_size=1024, intermediate_size=2816, num_hidden_layers=4, num_attention_heads=16,
                       num_key_value_heads=4, max_position_embeddings=8192)
SMALL = {"vocab_size": 512, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8,
         "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 4096}
PREFILL = {  # the framework's own attention, and types
    "llama": (LLAMA, "sdpa", (torch.float32, torch.bfloat16)),
    "gemma2": (hf.Gemma2Config(**SMALL, sliding_window=1024, attn_logit_softcapping=50.0, query_pre_attn_scalar=64), "eager",
               (torch.float32,)),
    "gpt-oss": (hf.GptOssConfig(**SMALL, sliding_window=128, num_local_experts=2, num_experts_per_tok=1), "eager", (torch.float32,)),
}


def compare(title, calls, repeats):
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begin) * 1e3)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    first = next(iter(medians.values()))
    print(f"{title}: " + ", ".join(f"{name} {taken:.2f} ms ({first / taken:.2f}x)" for name, taken in medians.items()), flush=True)


def functions():
    for dtype in (torch.float32, torch.bfloat16):
        for title, queries, keys, causal, repeats in [("prefill", 2048, 2048, True, 5), ("decode", 1, 4096, False, 41)]:
            q = torch.randn(1, queries, 8, 64).to(dtype).transpose(1, 2)
            k = torch.randn(1, 8, keys, 64).to(dtype)
            compare(f"{title} of {keys} keys, 8 heads of 64, {dtype}", {
                name: lambda f=f, q=q, k=k, causal=causal: f(q, k, k, is_causal=causal)
                for name, f in [("sdpa", F.scaled_dot_product_attention), ("attend", scaled_dot_product_attention)]}, repeats)


def forward_and_backward(f, q, k, v, d_out, causal):
    with torch.inference_mode(False), torch.enable_grad():
        torch.autograd.grad(f(q, k, v, is_causal=causal), (q, k, v), d_out)


def gradients():
    for shape, repeats in [((1, 12, 1024, 64), 7), ((1, 8, 4096, 128), 3)]:
        with torch.inference_mode(False):
            q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
            d_out = torch.randn(shape)
        for causal in (False, True):
            compare(f"forward and backward, {shape}, {'causal' if causal else 'dense'}", {
                name: lambda f=f, causal=causal, a=(q, k, v, d_out): forward_and_backward(f, *a, causal)
                for name, f in [("sdpa", F.scaled_dot_product_attention), ("attend", scaled_dot_product_attention)]}, repeats)


def same(config, dtype, *implementations):
    models = {}
    for name in implementations:
        torch.manual_seed(0)
        # A configuration that models share would have the last one's implementation in all of them.
        models[name] = hf.AutoModel.from_config(copy.deepcopy(config), attn_implementation=name).to(dtype).eval()
    return models


def encoder():
    longest = max(TOKENS)
    mask = (torch.arange(longest) < torch.tensor(TOKENS)[:, None]).long()
    ids = torch.randint(1, 3000, mask.shape)
    for dtype in (torch.float32, torch.bfloat16):
        models = same(MINILM, dtype, "sdpa", "attend")
        calls = {name: lambda model=model: model(ids, attention_mask=mask) for name, model in models.items()}
        calls["attend, packed"] = lambda model=models["attend"]: attend.transformers.encode_packed(model, ids, mask)
        compare(f"encoder of MiniLM's size, 20 sentences of 4 to {longest} tokens, {dtype}", calls, 9)


def prefill():
    ids = torch.randint(1, 500, (1, 2048))
    for name, (config, theirs, dtypes) in PREFILL.items():
        for dtype in dtypes:
            compare(f"{name}, 4 layers, 2048 tokens, {dtype}", {
                which: lambda model=model: model(ids, use_cache=False)
                for which, model in same(config, dtype, theirs, "attend").items()}, 3)


def step(model, ids, cache):
    model(ids, cache=cache, use_cache=True)
    cache.crop(-1)


def decode():
    length, ids = 4096, torch.randint(1, 500, (1, 1))
    for dtype in (torch.float32, torch.bfloat16):
        calls = {}
        for name, model in same(LLAMA, dtype, "sdpa", "attend").items():
            cache = hf.DynamicCache(config=model.config)
            for layer in range(LLAMA.num_hidden_layers):
                cache.update(*(torch.randn(1, LLAMA.num_key_value_heads, length, LLAMA.head_dim).to(dtype) for _ in range(2)), layer)
            calls[name] = lambda model=model, cache=cache: step(model, ids, cache)
        compare(f"llama, 4 layers, one token after {length}, {dtype}", calls, 21)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    attend.transformers.register()
    with torch.inference_mode():
        for part in (sys.argv[2] if len(sys.argv) > 2 else "functions,gradients,encoder,prefill,decode").split(","):
            {"functions": functions, "gradients": gradients, "encoder": encoder, "prefill": prefill, "decode": decode}[part]()
