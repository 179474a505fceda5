"""A1. Each attack once against the build, once against the build without the one defence that stops it."""

from protocols.client.machine import ClientMachine
from protocols.participation import Participation


def never_forgets(machine, state, data):
    """A client that keeps its state after it has answered."""
    _, reply = state._handle(data, machine._environment)
    return machine._frame(state, reply)


def test_server_asking_for_both_shares_of_one_client_is_refused(refused):
    refused("A1a")


def test_both_shares_open_the_vector_of_a_client_that_answers_twice(broken, monkeypatch):
    monkeypatch.setattr(ClientMachine, "_advance", lambda machine, state, data: _only_unmasking(machine, state, data))
    monkeypatch.setattr(Participation, "check", lambda *_: None)
    broken("A1a")


_advance = ClientMachine._advance


def _only_unmasking(machine, state, data):
    return (never_forgets if state.expects == "Unmasking" else _advance)(machine, state, data)


def test_server_splitting_the_holders_between_both_kinds_is_refused(refused):
    refused("A1b")


def test_split_holders_open_the_vector_where_two_quorums_need_not_share_an_honest_holder(broken, monkeypatch):
    monkeypatch.setattr("protocols.parameters.least_threshold", lambda *_: 3)
    broken("A1b")
