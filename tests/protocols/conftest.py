from collections.abc import Callable

import pytest

from protocols import FixedPointCodec
from protocols.simulator import SimulatedFederation


@pytest.fixture
def cohort() -> Callable[..., SimulatedFederation]:
    def make(clients: int = 5, length: int = 200, **changes) -> SimulatedFederation:
        codec = changes.pop("codec", FixedPointCodec([length], [0.5], 16))
        return SimulatedFederation(clients, codec, **changes)

    return make
