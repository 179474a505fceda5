"""A11 to A14. The statistical attacks have false-alarm rates of at most 1e-9 each on random keys; with the fixed keys
that are used here they always end the same way."""

import numpy as np
import pytest

import protocols.attacks.keystreams
import protocols.client.shares_dealt
import protocols.codec
import protocols.key_agreement
import protocols.parameters
from protocols.attacks.keystreams import FALSE_ALARM, chi_square_limit
from protocols.client.shares_dealt import SharesDealt
from protocols.codec import FixedPointCodec
from protocols.keystream import Keystream
from protocols.pads import Pad


def test_training_handing_over_bad_contributions_is_refused_by_name(refused):
    refused("A11a")


def test_bad_contributions_are_encoded_where_updates_are_not_checked(broken, monkeypatch):
    monkeypatch.setattr(protocols.codec, "check_update", lambda *_: None)
    broken("A11a")


def test_bad_contributions_are_encoded_where_weights_are_not_checked(broken, monkeypatch):
    monkeypatch.setattr(FixedPointCodec, "_extra_coordinates", lambda *_: [1])
    broken("A11a")


def test_training_handing_over_a_vector_of_another_round_is_refused(refused):
    refused("A11b")


def test_vector_of_another_round_is_sent_where_it_is_not_checked(broken, monkeypatch):
    monkeypatch.setattr(SharesDealt, "_check_vector", lambda *_: None)
    broken("A11b")


def test_sum_of_largest_values_does_not_wrap_around(harmless):
    harmless("A12a")


def test_sum_wraps_around_where_the_ring_is_as_wide_as_one_value(broken, monkeypatch):
    monkeypatch.setattr(protocols.parameters, "required_ring_bits", lambda _, largest, tail=0: largest.bit_length())
    broken("A12a")


def test_server_inviting_one_client_more_than_the_ring_holds_is_refused(refused):
    refused("A12b")


def test_round_that_can_wrap_around_is_accepted_without_the_proof(broken, monkeypatch):
    monkeypatch.setattr(protocols.parameters, "required_ring_bits", lambda *_: 1)
    broken("A12b")


def test_searching_folded_seeds_finds_nothing(harmless):
    harmless("A13a")


@pytest.mark.parametrize("fold", [16, 128])
def test_folded_seeds_are_found(broken, monkeypatch, fold):
    def folding(pad, length):
        seed, folded = pad._key.expose(), 0
        for start in range(0, 32, fold // 8):
            folded ^= int.from_bytes(seed[start : start + fold // 8], "big")
        key = folded.to_bytes(fold // 8, "big") + bytes(32 - fold // 8)
        return Keystream(key, length)

    monkeypatch.setattr(Pad, "open", folding)
    broken("A13a")


def test_comparing_all_seeds_of_several_sessions_finds_no_repetition(harmless):
    harmless("A13b")


def test_seeds_that_do_not_depend_on_the_session_are_found(broken, monkeypatch):
    derive = protocols.key_agreement._derive
    monkeypatch.setattr(protocols.key_agreement, "_derive", lambda *_: derive(b"fixed", b"", b""))
    broken("A13b")


def test_looking_for_patterns_in_masked_vectors_finds_nothing(harmless):
    harmless("A14")


def test_masks_that_leave_out_the_top_value_or_are_too_small_are_found(broken, monkeypatch):
    mask = protocols.client.shares_dealt.mask

    def off_by_one(encoded, pads, ring_bits):
        masked = mask(encoded, pads, ring_bits)
        np.remainder(masked.lanes, (1 << ring_bits) - 1, out=masked.lanes)
        return masked

    monkeypatch.setattr(protocols.client.shares_dealt, "mask", off_by_one)
    broken("A14")


def test_masks_of_half_the_range_are_found(broken, monkeypatch):
    mask = protocols.client.shares_dealt.mask

    def half(encoded, pads, ring_bits):
        masked = mask(encoded, pads, ring_bits)
        if ring_bits > 4:
            np.right_shift(masked.lanes, 1, out=masked.lanes)
        return masked

    monkeypatch.setattr(protocols.client.shares_dealt, "mask", half)
    broken("A14")


def test_the_stated_limits_of_chi_square_hold_for_uniform_values():
    """The false-alarm bound of Laurent and Massart, checked where it can be: at one in a hundred."""
    rng = np.random.default_rng(5)
    draws = rng.chisquare(255, size=20_000)
    assert (draws > chi_square_limit(256, 0.01)).mean() <= 0.01
    assert chi_square_limit(256, FALSE_ALARM) > draws.max()
