"""Threads that use one heap, as the C library tells it."""

import subprocess
import sys

import pytest

_ALLOCATES = """
import ctypes, sys, threading
from cromford.heap import share_one_heap
if sys.argv[1] == "one" and not share_one_heap():
    sys.exit("another C library")
libc = ctypes.CDLL(None)
held = threading.Barrier(4)
def allocate():
    libc.malloc(1_000)
    held.wait()
threads = [threading.Thread(target=allocate) for _ in range(3)]
for thread in threads:
    thread.start()
held.wait()
for thread in threads:
    thread.join()
libc.malloc_stats()
"""


@pytest.mark.parametrize(("heaps", "is_one"), [("one", True), ("many", False)])
def test_threads_use_the_first_heap_where_they_are_told_to(heaps: str, *, is_one: bool) -> None:
    run = [sys.executable, "-c", _ALLOCATES, heaps]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    if "another C library" in done.stderr or "malloc_stats" in done.stderr:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    assert ("Arena 1:" not in done.stderr) == is_one
