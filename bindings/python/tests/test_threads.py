import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import children
import numpy as np
import pytest

import attend


def test_concurrent_calls(draw):
    x = [draw(4, 70, 16) for _ in range(8)]
    alone = [attend.attention(a, a, a, causal="top-left") for a in x]

    def many(a, expected):
        for threads in (1, 2, 0) * 10:
            assert (attend.attention(a, a, a, causal="top-left", threads=threads) == expected).all()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(many, x, alone))


def test_the_gil_is_released():
    """While one long call runs, this thread goes on."""
    x = np.ones((1, 8192, 64), np.float32)
    duration = []

    def long_call():
        start = time.perf_counter()
        attend.attention(x, x, x, threads=1)
        duration.append(time.perf_counter() - start)

    worker = threading.Thread(target=long_call)
    longest, last = 0.0, time.perf_counter()
    worker.start()
    while worker.is_alive():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    assert duration[0] > 0.02, "too short to tell"
    assert longest < duration[0] / 2


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes(draw, method):
    """After the parent has used its threads, children compute the same bits, several at once."""
    x = draw(4, 300, 64)
    expected = children.attention_bits(x)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(children.attention_bits, [x] * 4).get(timeout=60) == [expected] * 4
    assert children.attention_bits(x) == expected


def test_forks_inside_calls(draw):
    """As multiprocessing does it in a program with threads: pools of children while threads of the parent compute."""
    x = draw(4, 300, 64)
    expected = children.attention_bits(x)
    rounds = 100 if os.environ.get("ATTEND_TEST_LONG") else 3
    stop = threading.Event()

    def compute():
        calls = 0
        while not stop.is_set():
            assert children.attention_bits(x) == expected
            calls += 1
        return calls

    with ThreadPoolExecutor(2) as threads:
        busy = [threads.submit(compute) for _ in range(2)]
        try:
            for _ in range(rounds):
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    assert pool.map_async(children.attention_bits, [x] * 4).get(timeout=60) == [expected] * 4
        finally:
            stop.set()
        assert all(thread.result() > 0 for thread in busy)
