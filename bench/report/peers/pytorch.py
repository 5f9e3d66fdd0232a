"""PyTorch 2's scaled_dot_product_attention."""

from .problem import Peer, fallback


def load():
    try:
        import torch
    except ImportError:
        return []
    attention = getattr(torch.nn.functional, "scaled_dot_product_attention", None)
    if attention is None:
        return []
    torch.set_float32_matmul_precision("highest")  # no bf16 in products of f32
    torch.set_grad_enabled(False)

    def prepare(problem, threads):
        torch.set_num_threads(threads)
        operands = [torch.from_numpy(x[None]) for x in (problem.q, problem.k, problem.v)]
        options = {"is_causal": problem.shape.causal}
        if problem.shape.heads != problem.shape.kv_heads:
            options["enable_gqa"] = True

        if problem.shape.backward:
            with torch.enable_grad():
                operands = [x.requires_grad_() for x in operands]
                out = attention(*operands, **options)
            d_out = torch.from_numpy(problem.d_out[None])
            return (lambda: torch.autograd.grad(out, operands, d_out, retain_graph=True)), lambda d: d[0][0].numpy()

        def call():
            return attention(*operands, **options)

        return call, lambda out: out[0].numpy()

    kernels = torch.backends.cpu.get_cpu_capability()  # "DEFAULT" where it knows no vectors of this CPU
    left_out = fallback(kernels) if kernels in ("DEFAULT", "NO AVX") else ""
    return [Peer("pytorch", torch.__version__, prepare, kernels=kernels, left_out=left_out)]
