"""Calls that compute on the threads of a concurrent.futures.Executor."""

import gc
import multiprocessing
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import children
import numpy as np
import pytest

import attend


@pytest.fixture(autouse=True)
def reset():
    yield
    attend.set_executor(None)


class Counting(ThreadPoolExecutor):
    """Submissions, and how many of them have ended."""

    def __init__(self, workers):
        super().__init__(workers)
        self.submitted = self.ended = 0

    def submit(self, *args, **options):
        self.submitted += 1
        future = super().submit(*args, **options)
        future.add_done_callback(self._end)
        return future

    def _end(self, future):
        assert future.cancelled() or future.result() is None
        self.ended += 1


class AtOnce(Executor):
    """Calls what it is given before it returns, and again, also long after."""

    def __init__(self):
        self.given = []

    def submit(self, function, /, *args, **options):
        self.given.append(function)
        for _ in range(3):
            function(*args, **options)
        self.given[0]()
        return Future()


class Keeping(Executor):
    """Never calls anything."""

    def __init__(self):
        self.given = []

    def submit(self, function, /, *args, **options):
        self.given.append(function)
        return Future()


class Failing(Executor):
    def __init__(self, error, first):
        self.error, self.left = error, first

    def submit(self, function, /, *args, **options):
        if self.left == 0:
            raise self.error
        self.left -= 1
        function()
        return Future()


def bits(x, threads=0):
    return attend.attention(x, x, x, causal="top-left", threads=threads).tobytes()


def test_equal_bits(draw):
    x = draw(4, 300, 64)
    expected = bits(x, 1)
    with Counting(3) as pool:
        attend.set_executor(pool, workers=4)
        assert bits(x, 1) == expected
        assert pool.submitted == 0
        for threads in (0, 2, 3, 7, 500) * 3:
            before = pool.submitted
            assert bits(x, threads) == expected
            assert pool.submitted - before <= 3
        assert pool.submitted > 0
        before = pool.submitted
        attend.set_executor(None)
        assert bits(x, 2) == expected
        assert pool.submitted == before
    assert pool.ended == pool.submitted


@pytest.mark.parametrize("make", [AtOnce, Keeping])
def test_strange_executors(draw, make):
    x = draw(4, 300, 64)
    expected = bits(x, 1)
    executor = make()
    attend.set_executor(executor, workers=1000)
    for threads in (2, 5, 64) * 5:
        assert bits(x, threads) == expected
    assert 0 < len(executor.given) <= (64 if make is Keeping else 1000)
    for function in executor.given:
        function()
    del function
    attend.set_executor(None)
    executor.given.clear()


def test_helpers_that_were_dropped_or_are_of_another_executor_do_not_count(draw):
    x = draw(4, 300, 64)
    expected = bits(x, 1)
    executor, other = Keeping(), Keeping()
    for _ in range(2):
        attend.set_executor(executor, 64)
        for _ in range(10):
            assert bits(x, 64) == expected
        assert len(executor.given) == 64
        attend.set_executor(other, 2)
        assert bits(x, 2) == expected
        executor.given.clear()
    assert len(other.given) == 2


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_from_within_the_pool(draw, workers):
    """Many more calls than workers, all of whom are busy with them."""
    x = draw(4, 300, 64)
    expected = bits(x, 1)
    with ThreadPoolExecutor(workers) as pool:
        attend.set_executor(pool, workers=4)
        futures = [pool.submit(bits, x, threads) for threads in (0, 2, 3, 4) * 10]
        assert all(future.result(timeout=120) == expected for future in futures)


def test_many_threads_while_the_executor_changes(draw):
    x = draw(4, 300, 64)
    expected = bits(x, 1)
    with ThreadPoolExecutor(3) as one, ThreadPoolExecutor(2) as two, ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(bits, x, threads) for threads in (0, 2, 5) * 20]
        while not all(call.done() for call in calls):
            for executor in (one, two, None):
                attend.set_executor(executor, workers=3)
        attend.set_executor(None)
        assert all(call.result() == expected for call in calls)


def test_what_cannot_be_submitted_is_done_all_the_same(draw, monkeypatch):
    x = draw(4, 300, 64)
    expected = bits(x, 1)
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: heard.append(type(unraisable.exc_value)))
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    for executor in (pool, Failing(RuntimeError(), 0), Failing(RuntimeError(), 2)):
        attend.set_executor(executor, workers=4)
        assert bits(x, 4) == expected
        assert heard and set(heard) == {RuntimeError}
        heard.clear()


def test_an_interrupt_is_raised_when_the_call_ends(draw):
    x = draw(4, 300, 64)
    expected = bits(x, 1)
    attend.set_executor(Failing(KeyboardInterrupt(), 1), workers=4)
    out = np.zeros_like(x)
    with pytest.raises(KeyboardInterrupt):
        attend.attention(x, x, x, out=out, causal="top-left", threads=4)
    attend.set_executor(None)
    assert out.tobytes() == expected


def test_what_is_no_executor_changes_nothing(draw):
    x = draw(4, 300, 64)
    executor = Keeping()
    attend.set_executor(executor, 2)
    with pytest.raises(TypeError, match="executor"):
        attend.set_executor(2)
    with pytest.raises(attend.AttendError, match="^workers: "):
        attend.set_executor(Keeping(), -1)
    with pytest.raises(OverflowError, match="workers"):
        attend.set_executor(Keeping(), 2**40)
    bits(x, 2)
    assert executor.given


def test_the_executor_is_kept_until_replaced(draw):
    x = draw(4, 300, 64)
    executor = Keeping()
    alive = weakref.ref(executor)
    attend.set_executor(executor, 4)
    del executor
    bits(x, 4)
    assert len(alive().given) == 3
    attend.set_executor(None)
    gc.collect()
    assert alive() is None


def test_forked_children(draw):
    x = draw(4, 300, 64)
    expected = children.attention_bits(x)
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            assert children.attention_bits(x) == expected

    with ThreadPoolExecutor(2) as pool:
        attend.set_executor(pool, workers=3)
        caller = threading.Thread(target=compute)
        caller.start()
        try:
            for _ in range(3):
                with multiprocessing.get_context("fork").Pool(2) as processes:
                    assert processes.map_async(children.attention_bits, [x] * 4).get(timeout=60) == [expected] * 4
        finally:
            stop.set()
            caller.join()


def test_the_interpreter_ends_with_calls_at_work():
    """Of a daemon thread, on a pool that is shut down before it."""
    program = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np, attend
attend.set_executor(ThreadPoolExecutor(2), 3)
x = np.ones((4, 300, 64), np.float32)
def forever():
    while True:
        attend.attention(x, x, x, threads=3)
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.2)
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60, stderr=subprocess.DEVNULL)
