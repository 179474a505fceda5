"""Splits by a hash of the patient."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.data.splits import split_by_hash, split_name

SHARES = (0.6, 0.2, 0.2)


@given(st.text())
def test_a_patient_has_one_split_for_good(patient):
    assert split_by_hash(patient, SHARES) == split_by_hash(patient, SHARES)


def test_known_answers():
    # First 8 bytes of `printf securefed/split/v1/0/p<i> | sha256sum`, over 2**64: 0.70, 0.02, 0.12, 0.21, 0.89, 0.59.
    assert [split_by_hash(f"p{i}", SHARES) for i in range(6)] == ["val", "train", "train", "train", "test", "train"]


def test_shares_are_met():
    # Binomial with n = 20000: 6.5 standard deviations, false alarms below 1e-9.
    n = 20_000
    found = [split_by_hash(str(i), SHARES) for i in range(n)]
    for split, share in zip(("train", "val", "test"), SHARES, strict=True):
        assert abs(found.count(split) - n * share) < 6.5 * math.sqrt(n * share * (1 - share))


def test_another_seed_divides_otherwise():
    assert [split_by_hash(str(i), SHARES, 1) for i in range(50)] != [split_by_hash(str(i), SHARES) for i in range(50)]


@pytest.mark.parametrize(
    ("text", "split"),
    [("train", "train"), (" Valid ", "val"), ("VALIDATION", "val"), ("testing", "test"), ("dev", None)],
)
def test_names(text, split):
    assert split_name(text) == split
