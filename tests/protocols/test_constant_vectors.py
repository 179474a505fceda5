"""Sums that hold a constant vector are compared with no others (SPEC.md, M-24 in detail)."""

import numpy as np
import pytest

from protocols import ThreatModel, TooFewSurvivorsError
from protocols.client.machine import ClientMachine
from protocols.messages import ConsistencyCheckRequest
from protocols.simulator import rewrite
from protocols.stages import Stage
from tests.protocols.hostile_server import refuses, survivor_frames

SMALL = {"corrupt": 0, "threshold": 5, "min_survivors": 5}


class Restarted:
    """A client that is written down and read again before each stage."""

    def __init__(self, federation, name):
        self._federation, self._name = federation, name

    def answer(self, stage, data):
        federation, name = self._federation, self._name
        federation.real[name] = ClientMachine.load(
            federation.real[name].dump(),
            federation.identities[name],
            federation.roster,
            federation.policy,
            federation.contributed,
            federation.entropy[name],
        )
        return federation.real[name].answer(stage, data)


def with_constant_vectors(federation, last):
    """Clients that send a constant vector up to a round, and their own ones after it."""
    codec = federation.codec

    def contribute(context):
        if context.round > last:
            return federation.contribute(context)
        counters = [0] * len(codec.max_counters)
        zeros = np.zeros(codec.num_values, np.float32)
        return codec.encode(zeros, np.random.default_rng(context.round), counters=counters, constant=True)

    federation.contributed = contribute
    federation.machines = {name: federation.machine(name, contribute=contribute) for name in federation.names}
    return federation


def sum_without(federation, position, number):
    drops = {} if position is None else {federation.names[position]: "MaskedInputCollection"}
    return len(federation.run(number=number, drops=drops).survivors)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("threat_model", ThreatModel)
def test_rounds_that_leave_the_model_as_it_is_do_not_bind_later_ones(cohort, threat_model, restarted):
    """The first sum of other vectors over the same model does."""
    federation = with_constant_vectors(cohort(8, choices=SMALL, threat_model=threat_model), last=2)
    if restarted:
        federation.real = federation.machines
        federation.machines = {name: Restarted(federation, name) for name in federation.names}
    assert sum_without(federation, 0, 1) == 7
    assert sum_without(federation, 1, 2) == 7
    assert sum_without(federation, 2, 3) == 7
    for position, number in ((None, 4), (0, 5)):
        with pytest.raises(TooFewSurvivorsError):
            sum_without(federation, position, number)
    assert sum_without(federation, 2, 6) == 7


def test_a_set_below_the_floor_is_refused_all_the_same(cohort):
    federation = with_constant_vectors(cohort(6, choices={**SMALL, "threshold": 4, "min_survivors": 4}), last=1)
    requests = federation.run_until(Stage.CONSISTENCY_CHECK, server=federation.server())
    frame = rewrite(requests["site-000"], ConsistencyCheckRequest, survivor_frames(federation, {0, 1}, 6))
    refuses(federation.machines["site-000"], Stage.CONSISTENCY_CHECK, frame, TooFewSurvivorsError)
