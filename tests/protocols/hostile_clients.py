"""What clients that break the rules send to a server, and whether its sum is still the right one."""

import numpy as np

from protocols.simulator import rewrite

EASY = {"corrupt": 0, "threshold": 4, "min_survivors": 4}


def check_sum(federation, result, without=()):
    survivors = [name for name in federation.names if name not in without]
    assert list(result.survivors) == survivors
    assert np.array_equal(result.total.integers(), federation.expected(survivors))


def forged(kind, change):
    return lambda frame: rewrite(frame, kind, change)


def flip(data, place=0):
    data = bytes(data)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
