"""A20 and A21."""

import protocols.client.dealing
from protocols.graph import RingGraph
from protocols.policy import ClientPolicy
from protocols.server.machine import ServerMachine
from protocols.server.share_collection import CollectingShares


def test_server_showing_colluders_as_neighbours_is_refused(refused):
    refused("A20a")


def test_colluders_get_all_shares_where_the_ring_is_not_checked(broken, monkeypatch):
    monkeypatch.setattr(RingGraph, "neighbours", lambda graph, position: [p for p in graph.order if p != position])
    broken("A20a")


def test_colluder_choosing_its_nonce_last_is_refused(refused):
    refused("A20b")


def test_late_nonce_orders_the_ring_where_commitments_are_not_checked(broken, monkeypatch):
    monkeypatch.setattr(protocols.client.dealing, "verify_nonces", lambda *_: None)
    broken("A20b")


def test_server_changing_the_commitments_after_the_victims_nonce_is_refused(refused):
    refused("A20c")


def test_changed_commitments_order_the_ring_where_they_are_not_checked(broken, monkeypatch):
    monkeypatch.setattr(protocols.client.dealing, "verify_nonces", lambda *_: None)
    broken("A20c")


def test_server_leaving_out_a_nonce_so_that_the_order_suits_it_is_refused(refused):
    refused("A20d")


def test_withheld_nonces_order_the_ring_where_the_choice_is_not_counted(broken, monkeypatch):
    monkeypatch.setattr(ClientPolicy, "check_ring", lambda *_, **__: None)
    broken("A20d")


def test_client_uploading_malformed_frames_is_dropped_by_name(refused):
    refused("A21a")


def test_malformed_upload_spoils_the_sum_where_shape_and_ring_are_not_checked(broken, monkeypatch):
    monkeypatch.setattr("protocols.server.input_collection.CollectingInputs.absorb", _trusting)
    broken("A21a")


def _trusting(state, position, data):
    state._survivors.add(position)
    return type("Nothing", (), {"parts": lambda _: {}})()


def test_client_uploading_twice_counts_once(refused):
    refused("A21b")


def test_second_upload_spoils_the_sum_where_clients_may_answer_again(broken, monkeypatch):
    absorb = ServerMachine._absorb_one

    def again(machine, state, name, data):
        machine._answered.discard(machine._positions[name])
        absorb(machine, state, name, data)

    monkeypatch.setattr(ServerMachine, "_absorb_one", again)
    broken("A21b")


def test_client_sending_shares_of_and_for_strangers_is_dropped_by_name(refused):
    refused("A21c")


def test_shares_of_strangers_go_unnoticed_where_holders_are_not_checked(broken, monkeypatch):
    class Anybody:
        def __ne__(self, other):
            return False

    monkeypatch.setattr(CollectingShares, "_holders_of", lambda *_: Anybody())
    for module in ("share_collection", "machine"):
        monkeypatch.setattr(f"protocols.server.{module}.reply_limit", lambda *_: 1 << 20)
    broken("A21c")


def test_client_advertising_small_order_keys_is_dropped_by_name(refused):
    refused("A21d")


def test_small_order_keys_end_the_round_of_all_where_the_server_lets_them_pass(broken, monkeypatch):
    monkeypatch.setattr("protocols.server.key_collection.is_small_order", lambda _: False)
    broken("A21d")


def test_client_advertising_anothers_keys_is_dropped_by_name(refused):
    refused("A21e")


def test_anothers_keys_end_the_round_of_all_where_the_server_does_not_compare(broken, monkeypatch):
    from protocols.server.key_collection import CollectingKeys

    absorb = CollectingKeys.absorb

    def forgetful(state, position, data):
        state._seen = set()
        return absorb(state, position, data)

    monkeypatch.setattr(CollectingKeys, "absorb", forgetful)
    broken("A21e")


def test_client_sending_a_worthless_signature_is_dropped_by_name(refused):
    refused("A21f")


def test_worthless_signature_ends_the_round_where_the_server_does_not_verify(broken, monkeypatch):
    monkeypatch.setattr("protocols.server.consistency_check.verify_signature", lambda *_: None)
    broken("A21f")
