"""A3 and A4."""

import protocols.client.dealing
from protocols.attacks.adversary import Loot
from protocols.client.machine import ClientMachine
from protocols.client.session import ClientSession
from protocols.client.shares_dealt import SharesDealt
from protocols.errors import AuthenticationError
from protocols.key_agreement import AgreementKey
from protocols.wire import Reader


def without_signatures(monkeypatch):
    monkeypatch.setattr(protocols.client.dealing, "verify_signature", lambda *_: None)


def test_server_substituting_its_own_keys_is_refused(refused):
    refused("A3a")


def test_substituted_keys_open_a_vector_where_signatures_are_not_verified(broken, monkeypatch):
    without_signatures(monkeypatch)
    broken("A3a")


def test_colluder_signing_for_every_place_is_refused(refused):
    refused("A3b")


def test_one_identity_in_every_place_opens_a_vector_where_any_member_may_sign(broken, monkeypatch):
    monkeypatch.setattr(ClientSession, "identity_key", lambda session, position, roster: roster.key(4))
    broken("A3b")


def test_server_showing_points_of_small_order_is_refused(refused):
    refused("A3c")


def test_points_of_small_order_open_a_vector_where_a_zero_secret_is_used(broken, monkeypatch):
    exchange = AgreementKey.exchange

    def zero_is_fine(own, peer):
        try:
            return exchange(own, peer)
        except AuthenticationError:
            return bytes(32)

    monkeypatch.setattr(AgreementKey, "exchange", zero_is_fine)
    monkeypatch.setattr(protocols.client.dealing, "is_small_order", lambda _: False)
    broken("A3c")


def test_server_reflecting_a_clients_own_keys_is_refused(refused):
    refused("A3d")


def test_reflected_keys_are_used_where_keys_may_occur_twice(broken, monkeypatch):
    monkeypatch.setattr(protocols.client.dealing, "_verify_advertisements", lambda *_: None)
    broken("A3d")


def test_server_replaying_keys_of_an_earlier_round_is_refused(refused):
    refused("A4a")


def test_replayed_keys_are_used_where_signatures_are_not_verified(broken, monkeypatch):
    without_signatures(monkeypatch)
    broken("A4a")


def forget_rounds(monkeypatch):
    begin = ClientMachine._begin

    def forgetful(machine, data):
        machine._last_round, machine._begun = -1, ()
        return begin(machine, data)

    monkeypatch.setattr(ClientMachine, "_begin", forgetful)


def test_server_replaying_a_finished_round_is_refused(refused):
    refused("A4b")


def test_round_is_played_twice_by_a_client_that_forgets_its_rounds(broken, monkeypatch):
    forget_rounds(monkeypatch)
    broken("A4b")


def test_server_asking_for_a_second_masked_vector_is_refused(refused):
    refused("A4c")


def test_two_masked_vectors_open_one_where_pads_are_used_twice(broken, monkeypatch):
    advance = ClientMachine._advance

    def masks_again(machine, state, data):
        if not isinstance(state, SharesDealt):
            return advance(machine, state, data)
        fields = b"".join(bytes(part) for part in state._fields())
        _, reply = state._handle(data, machine._environment)
        frame = machine._frame(state, reply)
        machine._state = SharesDealt.read(state.session, Reader(fields))
        return frame

    monkeypatch.setattr(ClientMachine, "_advance", masks_again)
    broken("A4c")


def test_server_sending_stages_out_of_order_is_refused(refused):
    refused("A4d")


def test_frames_out_of_order_are_answered_by_a_client_that_repeats_its_replies(broken, monkeypatch):
    handle = ClientMachine.handle
    replies = {}

    def repeats_itself(machine, stage, data):
        if (machine.name, data) not in replies:
            replies[machine.name, data] = handle(machine, stage, data)
        return replies[machine.name, data]

    monkeypatch.setattr(ClientMachine, "handle", repeats_itself)
    broken("A4d")


def test_server_sending_requests_of_an_earlier_round_is_refused(refused):
    refused("A4e")


def test_requests_of_an_earlier_round_are_answered_where_rounds_and_sessions_are_not_checked(broken, monkeypatch):
    monkeypatch.setattr(ClientMachine, "_check_order", lambda *_: None)
    forget_rounds(monkeypatch)
    broken("A4e")


def test_loot_of_nothing_opens_nothing():
    assert Loot().seed_of(0, 3) is None
    assert Loot().mask_key_of(0, 3, bytes(32)) is None


def test_server_showing_keys_that_fell_in_earlier_runs_gains_nothing(harmless):
    harmless("A4f")


def test_keys_of_earlier_runs_open_a_vector_where_there_is_no_self_mask(broken, monkeypatch):
    pads, masked = SharesDealt._pads, []

    def without_self_mask_in_the_last_run(state, *others):
        masked.append(state.session.position)
        return pads(state, *others)[1 if masked.count(0) == 5 else 0 :]

    monkeypatch.setattr(SharesDealt, "_pads", without_self_mask_in_the_last_run)
    broken("A4f")
