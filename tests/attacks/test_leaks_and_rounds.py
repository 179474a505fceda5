"""A16 to A19."""

from collections import Counter

import numpy as np

import protocols.client.shares_dealt
from protocols.attacks import Outcome
from protocols.attacks.scene import Scene
from protocols.client import received_shares
from protocols.client.machine import ClientMachine
from protocols.client.survivors_signed import SurvivorsSigned
from protocols.errors import IsolationError
from protocols.messages import NoisyUnmaskingReply, UnmaskingRequest, decode_message
from protocols.messages.limits import request_limit
from protocols.noise import NoisyCodec
from protocols.participation import Participation, isolated
from protocols.policy import ClientPolicy
from protocols.secret_values import ChannelKey, MaskKey, PairwiseSeed, SealingKey, Secret, SelfMaskSeed
from protocols.server.noise_removal import NoiseRemoval
from protocols.stages import Stage


def test_server_comparing_rounds_with_other_numbers_of_examples_sees_no_difference(harmless):
    harmless("A16")


def test_numbers_of_examples_show_where_the_weight_is_not_masked(broken, monkeypatch):
    mask = protocols.client.shares_dealt.mask

    def all_but_the_weight(encoded, pads, ring_bits):
        masked = mask(encoded, pads, ring_bits)
        masked.lanes[-2:] = encoded.lanes(ring_bits)[-2:]
        return masked

    monkeypatch.setattr(protocols.client.shares_dealt, "mask", all_but_the_weight)
    broken("A16")


def test_numbers_of_examples_show_where_a_reply_carries_them(broken, monkeypatch):
    reply = protocols.client.shares_dealt.MaskedInputReply

    def telling(unusable, ring_bits, length, packed):
        weight = int(telling.encoded[-2])
        return reply((*unusable, weight), ring_bits, length, packed)

    mask = protocols.client.shares_dealt.mask

    def listening(encoded, pads, ring_bits):
        telling.encoded = encoded.lanes(ring_bits).tolist()
        return mask(encoded, pads, ring_bits)

    monkeypatch.setattr(protocols.client.shares_dealt, "mask", listening)
    monkeypatch.setattr(protocols.client.shares_dealt, "MaskedInputReply", telling)
    monkeypatch.setattr("protocols.server.input_collection.CollectingInputs.absorb", _anything_goes)
    broken("A16")


def _anything_goes(state, position, data):
    from protocols.masking import MaskedVector
    from protocols.messages import MaskedInputReply, decode_message

    reply = decode_message(MaskedInputReply, data, 1 << 20)[1]
    state._sum.add(MaskedVector.decode(reply.packed, reply.length, reply.ring_bits))
    state._survivors.add(position)
    return reply


def test_reading_memory_after_a_round_finds_no_secret(harmless):
    harmless("A17a")


def test_secrets_are_found_in_memory_where_they_are_not_erased(broken, monkeypatch):
    monkeypatch.setattr(Secret, "erase", lambda _: None)
    broken("A17a")


def test_secrets_of_a_refused_round_are_found_where_failures_do_not_erase(broken, monkeypatch):
    monkeypatch.setattr(ClientMachine, "abandon", lambda _: None)
    broken("A17a")


def test_searching_frames_logs_errors_and_pickles_finds_no_secret(harmless):
    harmless("A17b")


def test_secrets_are_found_where_representations_show_them(broken, monkeypatch):
    monkeypatch.setattr(Secret, "__repr__", lambda secret: secret._bytes.hex())
    broken("A17b")


def test_secrets_are_found_where_they_can_be_pickled(broken, monkeypatch):
    monkeypatch.setattr(ClientMachine, "__reduce__", lambda machine: (bytes, (machine.dump(),)))
    broken("A17b")


def test_server_subtracting_sums_over_the_same_model_is_refused(refused):
    refused("A18a")


def test_difference_of_two_sums_opens_a_vector_where_clients_do_not_keep_count(broken, monkeypatch):
    monkeypatch.setattr(Participation, "check", lambda *_: None)
    monkeypatch.setattr(Participation, "add", lambda *_: None)
    broken("A18a")


def test_server_changing_one_bit_of_the_model_is_reported_by_every_client(play):
    report = play("A18b")
    assert report.outcome is Outcome.REPORTED, report.evidence


def test_nobody_reports_the_difference_where_clients_do_not_keep_count(broken, monkeypatch):
    monkeypatch.setattr(Participation, "add", lambda *_: None)
    broken("A18b")


def test_server_losing_a_client_at_any_stage_finds_as_much_noise_as_agreed(harmless):
    harmless("A19a")


def test_noise_is_too_small_where_clients_return_shares_of_all_components(broken, monkeypatch):
    """Whatever was lost, the component that must stay leaves as well."""

    def all_of_them(held, survivors, parameters):
        return {owner: shares for owner, shares in held.items() if owner in survivors.positions}

    def greedy(removal, session, dealings, survivors):
        begin(removal, session, dealings, survivors)
        removal.components = range(1, session.parameters.excess + 1)
        removal._shares = {(owner, k): {} for owner in removal._owners for k in removal.components}

    begin = NoiseRemoval.__init__
    monkeypatch.setattr(received_shares, "return_noise", all_of_them)
    monkeypatch.setattr(
        received_shares, "NoisyUnmaskingReply", lambda plain, _, noise: NoisyUnmaskingReply(plain, 1, noise)
    )
    monkeypatch.setattr(NoiseRemoval, "__init__", greedy)
    broken("A19a")


def test_noise_is_too_small_where_clients_forget_to_add_it(broken, monkeypatch):
    monkeypatch.setattr(NoisyCodec, "component", lambda codec, component, seed: np.zeros(codec.vector_length, np.int64))
    broken("A19a")


def test_server_counting_a_lost_client_as_a_survivor_removes_nothing_more(refused):
    refused("A19b")


def test_a_larger_set_removes_more_where_clients_do_not_compare_it_with_the_signed_one(broken, monkeypatch):
    def trusting(state, data, environment):
        limit = request_limit(Stage.UNMASKING, state.session.parameters)
        survivors = decode_message(UnmaskingRequest, data, limit)[1].survivors
        return None, received_shares.return_all(state._shares, state._noise, survivors, state.session.parameters)

    monkeypatch.setattr(SurvivorsSigned, "_handle", trusting)
    broken("A19b")


def test_every_secret_that_clients_make_in_a_round_is_erased_by_its_end(monkeypatch):
    """Not only those that are alive between stages. What the server was given to open the sum is no secret any more."""
    made = []
    initialise = Secret.__init__

    def counted(secret, data):
        initialise(secret, data)
        made.append(secret)

    scene = Scene(6)
    monkeypatch.setattr(Secret, "__init__", counted)
    scene.play()
    left = Counter(type(secret).__name__ for secret in made if not secret.is_erased)
    assert {type(secret) for secret in made} >= {MaskKey, ChannelKey, SelfMaskSeed, SealingKey, PairwiseSeed}
    assert left <= Counter({"SelfMaskShare": 6 * 6})


def test_server_opening_overlapping_sums_over_one_model_is_refused(refused):
    refused("A18c")


def test_overlapping_sums_open_a_vector_where_only_pairs_and_single_clients_are_compared(broken, monkeypatch):
    def lenient(record, model, survivors):
        row, earlier = frozenset(survivors), record._rows.get(model, [])
        near = [other for other in earlier if 0 < len(row ^ other) < 3]
        if near or isolated([*earlier, row]):
            raise IsolationError((), 3)

    monkeypatch.setattr(Participation, "check", lenient)
    broken("A18c")


def test_server_opening_sums_over_one_model_by_quorums_that_share_no_honest_client_is_refused(refused):
    refused("A18d")


def test_two_quorums_open_a_sum_of_two_where_thresholds_follow_from_the_cohort_alone(broken, monkeypatch):
    monkeypatch.setattr(ClientPolicy, "_least_threshold", lambda *_: 3)
    broken("A18d")
