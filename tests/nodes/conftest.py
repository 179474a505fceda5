"""A deployment in memory: a server node and five site nodes, each with its own folder, over a wire that can fail."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deployed import Deployment


@pytest.fixture
def deployment(tmp_path):
    """Make deployments, each in a folder of its own."""

    def make(name="run", **sections):
        return Deployment(tmp_path, name, **sections)

    return make
