"""A5 and A6."""

import pytest

import protocols.client.dealing
import protocols.client.waiting
import protocols.key_agreement
import protocols.server.machine
import protocols.session
from protocols.parameters import RoundParameters
from protocols.policy import ClientPolicy


def without_checks(monkeypatch):
    monkeypatch.setattr(RoundParameters, "__post_init__", lambda _: None)
    monkeypatch.setattr(ClientPolicy, "check", lambda *_: None)


def test_server_lowering_the_threshold_to_one_is_refused(refused):
    refused("A5a")


def test_one_share_opens_a_vector_where_nobody_checks_the_threshold(broken, monkeypatch):
    without_checks(monkeypatch)
    broken("A5a")


def test_server_offering_less_protection_is_refused(refused):
    refused("A5b")


@pytest.mark.parametrize("check", ["policy", "parameters"])
def test_weak_rounds_are_accepted_where_either_check_is_missing(broken, monkeypatch, check):
    if check == "policy":
        monkeypatch.setattr(ClientPolicy, "check", lambda *_: None)
    else:
        monkeypatch.setattr(RoundParameters, "__post_init__", lambda _: None)
    broken("A5b")


def test_server_inviting_the_victim_among_colluders_is_refused(refused):
    refused("A5c")


def test_cohort_of_colluders_is_accepted_where_the_floors_do_not_follow_the_roster(broken, monkeypatch):
    monkeypatch.setattr(ClientPolicy, "check", lambda *_: None)
    broken("A5c")


def test_server_giving_one_client_another_model_is_refused(refused):
    refused("A6a")


def test_model_of_one_client_goes_unnoticed_where_sessions_do_not_hash_it(broken, monkeypatch):
    for module in (protocols.session, protocols.client.waiting, protocols.server.machine):
        if hasattr(module, "payload_digest"):
            monkeypatch.setattr(module, "payload_digest", lambda _: bytes(32))
    monkeypatch.setattr("protocols.attacks.inconsistent_models.payload_digest", lambda _: bytes(32))
    broken("A6a")


def test_server_hiding_another_model_under_the_session_id_of_the_others_is_refused(refused):
    refused("A6b")


def test_hidden_model_is_accepted_by_a_client_that_believes_the_server(broken, monkeypatch):
    original = protocols.client.waiting.session_id

    class Agreeable(bytes):
        def __ne__(self, other):
            return False

    monkeypatch.setattr(protocols.client.waiting, "session_id", lambda *arguments: Agreeable(original(*arguments)))
    broken("A6b")


def test_pads_of_two_models_do_not_cancel(harmless):
    harmless("A6c")


def test_pads_of_two_models_cancel_where_keys_do_not_depend_on_the_session(broken, monkeypatch):
    derive = protocols.key_agreement._derive
    monkeypatch.setattr(protocols.key_agreement, "_derive", lambda material, *_: derive(material, b"", b""))
    broken("A6c")
