import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import DecodeError, ParameterError, ReproducibleEntropy
from protocols.shamir import PRIME, combine, lagrange_at_zero, split

ENTROPY = ReproducibleEntropy(bytes(32))


def slow_share(secret, coefficients, x):
    """One share by the definition, in Python integers; coefficients[i][limb]."""
    value = int.from_bytes(secret, "little")
    limbs = [value >> (30 * i) & (2**30 - 1) for i in range(9)]
    y = [(limb + sum(c[i] * x ** (p + 1) for p, c in enumerate(coefficients))) % PRIME for i, limb in enumerate(limbs)]
    return b"".join(int(v).to_bytes(4, "little") for v in y)


@given(data=st.data(), secret=st.binary(min_size=32, max_size=32), n=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_any_t_shares_rebuild_the_secret(data, secret, n):
    t = data.draw(st.integers(1, n))
    points = data.draw(st.lists(st.integers(1, 5000), min_size=n, max_size=n, unique=True))
    shares = split([secret, secret[::-1]], points, t, ENTROPY)
    chosen = data.draw(st.permutations(range(n)))[:t]
    for which, expected in enumerate((secret, secret[::-1])):
        assert combine([points[i] for i in chosen], [shares[which][i] for i in chosen]) == expected


def test_shares_are_the_polynomials_values():
    drawn = []

    def entropy(length):
        drawn.append(ENTROPY(length))
        return drawn[-1]

    secret = bytes(range(32))
    shares = split([secret], [1, 7, 100], 3, entropy)[0]
    assert len(drawn) == 1
    raw = (np.frombuffer(drawn[0], dtype="<u4") & PRIME).reshape(2, 9).tolist()
    assert shares == [slow_share(secret, raw, x) for x in (1, 7, 100)]


def test_fewer_than_t_shares_fit_every_secret():
    """For t - 1 shares and any candidate secret there is exactly one polynomial through all: they exclude nothing."""
    secret, other = bytes(range(32)), bytes(32)
    shares = split([secret], [1, 2, 3], 3, ENTROPY)[0]
    known = [np.frombuffer(share, dtype="<u4").astype(object) for share in shares[:2]]
    zero = np.array([int.from_bytes(other, "little") >> (30 * i) & (2**30 - 1) for i in range(9)], dtype=object)
    third = (zero - 3 * known[0] + 3 * known[1]) % PRIME  # f(0) = 3 f(1) - 3 f(2) + f(3)
    forged = b"".join(int(value).to_bytes(4, "little") for value in third)
    assert combine([1, 2, 3], [shares[0], shares[1], forged]) == other


@pytest.mark.parametrize("place", range(9))
def test_limbs_that_no_secret_has_are_no_secret(place):
    """A limb has 30 bits, the last one 16: a bit above them would stand for one of the next limb, and two for one."""
    bits = 30 if place < 8 else 16
    for limb, expected in ((2**bits - 1, ((2**bits - 1) << 30 * place).to_bytes(32, "little")), (2**bits, None)):
        share = b"".join((limb if i == place else 0).to_bytes(4, "little") for i in range(9))
        assert combine([1], [share]) == expected


def test_a_wrong_share_gives_another_secret_or_none():
    secret = bytes(range(32))
    shares = split([secret], [1, 2, 3, 4], 3, ENTROPY)[0]
    wrong = bytes([shares[0][0] ^ 1]) + shares[0][1:]
    assert combine([1, 2, 3], [wrong, shares[1], shares[2]]) != secret
    assert combine([2, 3, 4], shares[1:]) == secret


def test_coefficients_are_drawn_again_where_they_are_the_prime():
    """[M-9] Coefficients MUST be uniform over the field: 31 random bits, drawn again where they are p."""
    asked = []

    def entropy(length):
        asked.append(length)
        return b"\xff" * length if len(asked) == 1 else ENTROPY(length)

    shares = split([bytes(32)], [1, 2], 2, entropy)[0]
    assert asked == [36, 36]
    assert all(element < PRIME for element in np.frombuffer(shares[0], dtype="<u4"))


def test_shares_are_uniform():
    """Top five bits of 90,000 share elements of one secret: chi-square over 32 cells, false alarm below 1e-9."""
    shares = split([b"\x01" * 32] * 100, list(range(1, 101)), 3, ENTROPY)
    elements = np.frombuffer(b"".join(itertools.chain(*shares)), dtype="<u4")
    counts = np.bincount(elements >> 26, minlength=32)
    expected = len(elements) / 32
    assert ((counts - expected) ** 2 / expected).sum() < 120


def test_lagrange_weights_are_the_textbook_ones():
    n = 12
    weights = lagrange_at_zero(tuple(range(1, n + 1)))
    assert weights.tolist() == [(-1) ** (i + 1) * comb(n, i) % PRIME for i in range(1, n + 1)]


@pytest.mark.parametrize("points", [[0, 1], [1, 1], [1, PRIME]])
def test_points_must_be_distinct_and_not_zero(points):
    with pytest.raises(ParameterError):
        split([bytes(32)], points, 2, ENTROPY)
    with pytest.raises(ParameterError):
        lagrange_at_zero(tuple(points))


@pytest.mark.parametrize("threshold", [0, 4])
def test_threshold_must_be_within_the_holders(threshold):
    with pytest.raises(ParameterError):
        split([bytes(32)], [1, 2, 3], threshold, ENTROPY)


@pytest.mark.parametrize("share", [b"", bytes(35), bytes(37), b"\xff" * 36, PRIME.to_bytes(4, "little") + bytes(32)])
def test_malformed_shares_are_refused(share):
    good = split([bytes(32)], [1, 2], 2, ENTROPY)[0]
    with pytest.raises(DecodeError):
        combine([1, 2], [share, good[1]])
