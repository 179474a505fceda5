"""Processor threads of training: one for each hospital, as many hospitals at a time as there are cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def usable_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let torch use one thread for each operation, in this thread and in those that start meanwhile.

    The products of a step are too small to divide; dividing hospitals among the cores is what pays. It also makes
    results independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
