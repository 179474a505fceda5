"""A2 and A7."""

import protocols.client.dealing
import protocols.client.survivors_signed
from protocols.client.input_masked import InputMasked
from protocols.client.received_shares import return_shares
from protocols.client.survivors_signed import SurvivorsSigned
from protocols.messages import UnmaskingRequest, decode_message
from protocols.parameters import RoundParameters
from protocols.policy import ClientPolicy
from protocols.stages import Stage

ANY = 1 << 20


def test_server_showing_every_client_another_survivor_set_is_refused(refused):
    refused("A2a")


def test_other_sets_open_a_sum_of_two_where_nobody_asks_for_a_quorum(broken, monkeypatch):
    monkeypatch.setattr(SurvivorsSigned, "_verify_quorum", lambda *_: None)
    broken("A2a")


def test_server_swapping_the_set_after_it_was_signed_is_refused(refused):
    refused("A2b")


def test_swapped_set_opens_a_vector_where_the_signed_set_is_not_the_one_used(broken, monkeypatch):
    def without_comparison(state, data, environment):
        request = decode_message(UnmaskingRequest, data, ANY)[1]
        state._verify_quorum(request.signatures, environment)
        return None, return_shares(state._shares, request.survivors)

    monkeypatch.setattr(SurvivorsSigned, "_handle", without_comparison)
    broken("A2b")


def test_server_copying_one_signature_under_all_names_is_refused(refused):
    refused("A2c")


def test_copied_signatures_pass_where_they_are_not_verified(broken, monkeypatch):
    monkeypatch.setattr(protocols.client.survivors_signed, "verify_signature", lambda *_: None)
    broken("A2c")


def test_server_leaving_out_the_consistency_check_is_refused(refused):
    refused("A2d")


def test_without_consistency_check_a_sum_of_two_is_opened(broken, monkeypatch):
    def at_once(state, data, environment):
        request = decode_message(UnmaskingRequest, data, ANY)[1]
        state._check_survivors(request.survivors, environment)
        return None, return_shares(state._shares, request.survivors)

    monkeypatch.setattr(InputMasked, "expects", property(lambda _: Stage.UNMASKING))
    monkeypatch.setattr(InputMasked, "_handle", at_once)
    broken("A2d")


def test_one_client_too_many_vanishing_at_any_stage_ends_the_round_and_reveals_nothing(refused):
    refused("A7a")


def test_shares_of_a_failed_round_give_secrets_away_where_the_split_is_too_weak(broken, monkeypatch):
    split = protocols.client.dealing.split
    monkeypatch.setattr(protocols.client.dealing, "split", lambda s, holders, _, entropy: split(s, holders, 2, entropy))
    broken("A7a")


def test_server_inviting_one_or_two_clients_is_refused(refused):
    refused("A7b")


def test_cohort_of_two_is_accepted_where_nobody_checks_parameters(broken, monkeypatch):
    monkeypatch.setattr(RoundParameters, "__post_init__", lambda _: None)
    monkeypatch.setattr(ClientPolicy, "check", lambda *_: None)
    broken("A7b")


def test_server_declaring_everybody_but_the_victim_dropped_out_is_refused(refused):
    refused("A7c")


def test_set_of_one_opens_its_vector_where_clients_do_not_look_at_the_set(broken, monkeypatch):
    monkeypatch.setattr(InputMasked, "_check_survivors", lambda *_: None)
    broken("A7c")


def test_server_showing_two_halves_of_a_ring_two_sets_is_refused(refused):
    refused("A2e")


def test_both_halves_return_shares_where_neighbours_are_a_quorum(broken, monkeypatch):
    monkeypatch.setattr(RoundParameters, "quorum", lambda parameters, _: parameters.threshold)
    broken("A2e")


def test_server_opening_a_second_sum_by_those_that_it_left_unasked_is_refused(refused):
    refused("A18e")


def test_those_left_unasked_open_a_second_sum_where_neighbours_are_a_quorum(broken, monkeypatch):
    monkeypatch.setattr(RoundParameters, "quorum", lambda parameters, _: parameters.threshold)
    broken("A18e")
