"""What parties agree on before noise can be removed: parameters with one encoding, components with one expansion."""

import numpy as np
import pytest

from protocols import (
    DecodeError,
    ParameterError,
    RoundParameters,
)
from protocols.noise.sampler import draw
from protocols.noise.tables import noise_table
from protocols.secret_values import NoiseSeed
from protocols.server.machine import ServerMachine
from tests.protocols.noise.federation import excess_federation

CLIENTS, MIN_SURVIVORS = 7, 4


def test_parameters_without_noise_or_of_another_number_of_losses_are_refused():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    for changes in ({"excess": 2}, {"excess": 4}, {"noise_tail": 0}, {"excess": 256}):
        with pytest.raises(ParameterError):
            federation.parameters(**changes)
    with pytest.raises(ParameterError):
        federation.parameters(neighbours=4, threshold=4)
    with pytest.raises(ParameterError, match="codec"):
        ServerMachine(federation.parameters(), federation.roster, b"")
    with pytest.raises(ParameterError, match="secure aggregation"):
        federation.run_plain()


def test_an_excess_of_nothing_has_one_encoding():
    parameters = excess_federation(CLIENTS, MIN_SURVIVORS).parameters()
    with pytest.raises(DecodeError):
        RoundParameters.decode(parameters.encode()[:-1] + b"\0")
    with pytest.raises(DecodeError):
        RoundParameters.decode(parameters.encode() + b"\0")


def test_the_server_expands_what_the_client_added():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    plan, seed = federation.codec.plan, bytes(range(32))
    table = noise_table(plan.request.kind, plan.component_variance(2))
    assert np.array_equal(federation.codec.component(2, NoiseSeed(seed)), draw(table, NoiseSeed(seed), 64))
