"""A site trains with the bits of the simulation, whatever number of threads its process has."""

import dataclasses

import numpy as np
import pytest
import torch

from clients.method.threads import one_thread_each
from protocols.entropy import system_entropy
from protocols.roster import IdentityKey, Roster
from securefed.config import config_from_mapping
from securefed.hospitals import Hospitals
from securefed.nodes.hospital import SiteHospital
from securefed.sum_terms import SumTerms
from tests.securefed.conftest import bundle

WIDTH = 512
"""As wide as a real encoder's features: products this large are divided among threads, smaller ones are not."""

THREADS = 4


@pytest.fixture
def many_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("many_threads")
def test_the_update_of_a_site_is_that_of_the_simulation_with_any_number_of_threads(tmp_path, monkeypatch):
    wide = bundle(sites=3, train=107, width=WIDTH)  # a last batch of 11 is what gets divided
    config = config_from_mapping({"federation": {"rounds": 2, "device": "cpu"}})
    roster = Roster.of({site.site: IdentityKey.generate(system_entropy) for site in wide.sites})
    vector = SumTerms(config, roster, WIDTH, len(wide.classes)).initial_vector
    federation = config.federation

    with one_thread_each():
        hospitals = Hospitals(wide, config.training, federation.method, federation.seed, "cpu")
        update, score = hospitals.train("site1", vector, 1), hospitals.score("site1", vector)
    own = dataclasses.replace(wide, sites=(wide.sites[1],))
    node = SiteHospital("site1", lambda: own, config, tmp_path)
    assert np.array_equal(node.train(vector, 1), update)
    assert node.score(vector) == score
    assert torch.get_num_threads() == THREADS
    assert node_threads(node, vector, monkeypatch) == {1}


def node_threads(node, vector, monkeypatch):
    """How many threads there are while it trains and scores: not every processor divides these products."""
    seen = set()
    for name in ("train", "score"):
        monkeypatch.setattr(Hospitals, name, lambda *_: seen.add(torch.get_num_threads()))
    node.train(vector, 2)
    node.score(vector)
    return seen
