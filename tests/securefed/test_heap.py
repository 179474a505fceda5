import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from securefed import heap
from securefed.heap import Trimming


@pytest.fixture
def trims(monkeypatch):
    made = []
    monkeypatch.setattr(heap, "return_free_memory", lambda: made.append(True))
    return made


@pytest.mark.parametrize(("hospitals", "counted", "expected"), [(9, 7, 1), (9, 8, 2), (9, 24, 6), (5, 3, 0)])
def test_memory_goes_back_after_every_few_of_many_hospitals(trims, hospitals, counted, expected):
    trimming = Trimming(hospitals, every=4)
    for _ in range(counted):
        trimming.one_more()
    assert len(trims) == expected


def test_few_hospitals_leave_the_heap_alone(trims):
    trimming = Trimming(4, every=4)
    for _ in range(40):
        trimming.one_more()
    assert not trims


def test_hospitals_of_several_threads_are_counted_together(trims):
    trimming = Trimming(100, every=5)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: trimming.one_more(), range(1000)))
    assert len(trims) == 200


@pytest.mark.skipif(
    sys.platform != "linux", reason="the C library of Linux keeps free memory, and its size is in /proc"
)
def test_holes_in_the_heap_go_back_to_the_system():
    code = """
from pathlib import Path
from securefed.heap import return_free_memory
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1])
parts = [bytearray(60_000) for _ in range(4000)]
del parts[:-1]
before = resident()
return_free_memory()
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) * resource.getpagesize() > 100e6
