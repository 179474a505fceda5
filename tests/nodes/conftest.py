"""A deployment in memory: a server node and five site nodes, each with its own folder, over a wire that can fail."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deployed import Deployment


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    """Drawing takes longer than these small runs."""
    monkeypatch.setattr("securefed.outcome.draw_plots", lambda *_: None)


@pytest.fixture
def no_replay(monkeypatch):
    """Without the replay of a step: tests/clients/privacy tests it, and takes most of the time of small runs."""
    monkeypatch.setattr("clients.privacy.PrivateHospital._replay_a_step", lambda self: None)


@pytest.fixture
def deployment(tmp_path):
    """Make deployments, each in a folder of its own."""

    def make(name="run", **sections):
        return Deployment(tmp_path, name, **sections)

    return make
