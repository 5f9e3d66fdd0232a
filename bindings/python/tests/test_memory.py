"""Nothing is kept after a call, whether it succeeded or not. (Errors are caught plainly: pytest.raises keeps tracebacks, and
with them what their frames refer to.)"""

import gc
import subprocess
import sys
import weakref

import numpy as np
from test_arrays import OnlyDlpack

import attend


def rejected(*operands, **options):
    try:
        attend.attention(*operands, **options)
    except ValueError:
        return True
    return False


def test_memory_is_let_go_of(draw):
    x = draw(6, 4)
    wrapped = OnlyDlpack(x)
    alive, references = weakref.ref(x), sys.getrefcount(x)
    attend.attention(x, x, wrapped)
    assert rejected(x, wrapped, x[:, :3], out=x)
    assert sys.getrefcount(x) == references
    del x, wrapped
    gc.collect()
    assert alive() is None


def resident_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def test_a_thousand_calls_do_not_grow(draw):
    x, w = draw(64, 64), draw(64, 64)
    pool, table = draw(4, 1, 16, 64), np.arange(4, dtype=np.int32)[None]

    def calls():
        attend.matmul(x, w)
        attend.softmax(OnlyDlpack(x), return_lse=True)
        attend.self_attention(x, w, w, w, return_scores="masked")
        attend.merge(*attend.attention(x, x, x, return_lse=True), *attend.attention(x, w, w, return_lse=True))
        attend.attention(x, w, w, query_offset=[3], kv_lengths=[60])
        attend.attention_backward(x, w, w, OnlyDlpack(x), x, bias=x, d_bias=True, d_v=False, query_offset=[3])
        attend.attention(x, w, w, query_starts=[0, 3, 64], key_starts=[0, 60, 64])
        attend.attention(x, pool, pool, query_starts=[0, 64], pages=table, kv_lengths=[60])
        attend.kv_append(x, None, pool, None, pages=table, cos=w[:, :32], sin=w[:, 32:], offsets=[0])
        attend.rotary(x, w[:, :32], w[:, 32:], positions=np.zeros(64, int))
        assert rejected(x, pool, pool, pages=table, kv_lengths=[65])
        assert rejected(OnlyDlpack(x), x[:, :3], x, bias=x)

    for _ in range(200):
        calls()
    gc.collect()
    resident, blocks = resident_bytes(), sys.getallocatedblocks()
    for _ in range(1000):
        calls()
    gc.collect()
    # One lost array of 16 KiB in each round would be 16 MiB, one lost Python object 1000 blocks.
    assert sys.getallocatedblocks() - blocks < 100
    assert resident_bytes() - resident < 1 << 20


def test_out_of_memory():
    """Where the workspace (Q and K of 512 MiB each) is more than the system gives. In a process of its own: the limit stays."""
    code = """
import resource, numpy as np, attend
x, w, v = np.zeros((1 << 17, 1), "f4"), np.zeros((1024, 1), "f4"), np.zeros((1, 1), "f4")
attend.self_attention(x[:2], w, w, v)
size = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize:"))
resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20),) * 2)
try:
    attend.self_attention(x, w, w, v, window=(0, 0))
except MemoryError:
    print("MemoryError")
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "MemoryError\n"
