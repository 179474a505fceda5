"""Clients written from SPEC.md alone take part in rounds with the real ones: the specification suffices."""

import ast
from pathlib import Path

import numpy as np
import pytest

from protocols import FixedPointCodec, ServerMachine, Stage
from protocols.driver import run_round
from protocols.simulator import DEFAULT_PAYLOAD, SimulatedFederation
from protocols.transport import InProcessTransport
from tests.protocols.independent_client.client import IndependentClient

STAGES = ["AdvertiseKeys", "ShareKeys", "MaskedInputCollection", "ConsistencyCheck", "Unmasking"]


def mixed(clients, independent, codec=None):
    """A federation in which the clients at some positions are the second implementation."""
    federation = SimulatedFederation(clients, codec or FixedPointCodec([37], [0.5], 16))
    members = {name: federation.roster.key(i) for i, name in enumerate(federation.roster.names)}
    for position in independent:
        name = federation.names[position]
        federation.machines[name] = IndependentClient(
            name,
            federation.identities[name].seed.expose(),
            members,
            lambda number, name=name: federation.expected([name], number).tolist(),
        )
    return federation


def total_of(federation, drops=None, number=1):
    transport = InProcessTransport(
        federation.machines, {(name, number): stage for name, stage in (drops or {}).items()}
    )
    server = ServerMachine(federation.parameters(number), federation.roster, DEFAULT_PAYLOAD)
    return run_round(server, transport)


def test_it_imports_nothing_of_this_project():
    tree = ast.parse(Path(__file__).with_name("client.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} == {"hashlib", "hmac", "itertools", "os", "struct", "cryptography"}


@pytest.mark.parametrize("independent", [(0,), (2, 4), (0, 1, 2, 3, 4)])
def test_round_with_second_clients_gives_the_exact_sum(independent):
    federation = mixed(5, independent)
    result = total_of(federation)
    assert result.survivors == tuple(federation.names)
    assert not result.rejections
    assert not result.complaints
    assert np.array_equal(result.total.integers(), federation.expected(federation.names))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lost", [1, 2], ids=["a second client is lost", "a real client is lost"])
def test_round_survives_a_loss_at_every_stage(stage, lost):
    federation = mixed(5, (1, 3))
    name = federation.names[lost]
    result = total_of(federation, {name: stage})
    late = Stage(stage).rank > Stage.MASKED_INPUT_COLLECTION.rank
    survivors = [other for other in federation.names if late or other != name]
    assert result.survivors == tuple(survivors)
    assert np.array_equal(result.total.integers(), federation.expected(survivors))


@pytest.mark.parametrize(("value_bits", "counters"), [(2, ()), (12, ()), (16, ()), (22, ()), (16, (2**32 - 1,))])
def test_second_clients_agree_on_every_lane_width(value_bits, counters):
    federation = mixed(5, (0, 4), FixedPointCodec([11, 8], [0.5, 3.0], value_bits, max_counters=counters))
    assert np.array_equal(total_of(federation).total.integers(), federation.expected(federation.names))


def test_second_clients_take_part_in_one_round_after_the_other():
    federation = mixed(4, (3,))
    for number in (1, 2, 7):
        result = total_of(federation, number=number)
        assert np.array_equal(result.total.integers(), federation.expected(federation.names, number))
