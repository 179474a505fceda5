"""The page on capacity counts the vector that hospitals send by default, bytes exactly."""

import importlib
import json
from pathlib import Path

import pytest

from protocols.entropy import system_entropy
from protocols.roster import IdentityKey, Roster
from securefed.config import config_from_mapping
from securefed.sum_terms import SumTerms

ROOT = Path(__file__).parents[2]


@pytest.fixture
def capacity(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("capacity")


def test_the_vector_is_the_one_that_a_federation_of_that_width_sends(capacity):
    roster = Roster.of({f"h{number}": IdentityKey.generate(system_entropy) for number in range(5)})
    terms = SumTerms(config_from_mapping({}), roster, 512, 7)
    assert terms.example.vector_length == capacity.DIMENSION
    assert terms.initial_vector.nbytes == capacity.PAYLOAD


def test_the_published_bytes_are_those_of_that_vector(capacity):
    published = json.loads((ROOT / "docs/results/capacity.json").read_text(encoding="utf-8"))
    assert published["dimension"] == capacity.DIMENSION
    assert f"({capacity.DIMENSION:,} coordinates with counters)" in (ROOT / "docs/capacity.md").read_text("utf-8")
    for row in published["rows"][:5]:
        computed = capacity.row(row["clients"], published["unit seconds"])
        assert computed == row
