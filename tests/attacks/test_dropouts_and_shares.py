"""A8, A9, A10 and A15."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import protocols.client.dealing
import protocols.server.reconstruction
from protocols.client.shares_dealt import SharesDealt
from protocols.secret_values import MaskKeyShare, SelfMaskShare
from protocols.server.unmasking import Unmasking


def test_client_vanishing_at_any_stage_leaves_the_exact_sum_of_the_others(harmless):
    harmless("A8a")


def test_sum_is_wrong_where_the_pads_of_dropouts_stay(broken, monkeypatch):
    needed = lambda _, survivors, owner: owner in survivors.positions  # noqa: E731
    monkeypatch.setattr(protocols.server.reconstruction, "_is_needed", needed)
    broken("A8a")


def test_vector_that_comes_after_its_client_was_declared_dead_stays_unreadable(harmless):
    harmless("A8b")


def test_late_vector_is_readable_where_there_is_no_self_mask(broken, monkeypatch):
    pads = SharesDealt._pads
    monkeypatch.setattr(
        SharesDealt, "_pads", lambda state, *others: pads(state, *others)[1 if state.session.position == 0 else 0 :]
    )
    broken("A8b")


@pytest.mark.parametrize("attack", ["A9a", "A9b", "A9c"])
def test_holder_returning_tampered_copied_or_cut_shares_is_named_and_the_sum_is_exact(harmless, attack):
    harmless(attack)


@pytest.mark.parametrize("attack", ["A9a", "A9b"])
def test_tampered_shares_spoil_the_sum_or_go_unnamed_where_they_are_not_checked(broken, monkeypatch, attack):
    monkeypatch.setattr(Unmasking, "_is_right", lambda *_: True)
    broken(attack)


def test_doubled_shares_go_unnamed_where_replies_are_not_read_strictly(broken, monkeypatch):
    parse = protocols.messages.UnmaskingReply.parse.__func__

    def lenient(kind, reader):
        data = bytes(reader.view(len(reader._data) - reader._offset))
        usable = (len(data) - 2) // 39
        if int.from_bytes(data[:2], "little") == usable and len(data) == 2 + 39 * usable:
            entries = {data[2 + 39 * i : 4 + 39 * i]: data[2 + 39 * i : 41 + 39 * i] for i in range(usable)}
            data = len(entries).to_bytes(2, "little") + b"".join(entries[key] for key in sorted(entries))
            return parse(kind, protocols.wire.Reader(data))
        return kind({})

    monkeypatch.setattr(protocols.messages.UnmaskingReply, "parse", classmethod(lenient))
    broken("A9c")


def test_dealer_of_one_wrong_share_does_not_spoil_the_sum(harmless):
    harmless("A9d")


def test_wrongly_dealt_share_spoils_the_sum_where_rebuilt_seeds_are_not_verified(broken, monkeypatch):
    combine = protocols.server.reconstruction.combine
    monkeypatch.setattr(protocols.server.reconstruction, "combine", lambda *held: combine(*held) or bytes(32))
    monkeypatch.setattr(protocols.server.reconstruction, "commit_to_seed", lambda *_: _Anything())
    broken("A9d")


class _Anything:
    def __eq__(self, other):
        return True


def test_dealer_of_shares_that_do_not_open_is_named(refused):
    refused("A9e")


def test_dealer_of_shares_that_do_not_open_goes_unnamed_where_reports_are_not_counted(broken, monkeypatch):
    monkeypatch.setattr("protocols.server.input_collection.CollectingInputs._require_usable_shares", lambda _: None)
    broken("A9e")


def test_server_tampering_with_ciphertexts_is_noticed_by_their_holder(refused):
    refused("A10")


def test_tampered_ciphertexts_are_taken_where_they_are_not_authenticated(broken, monkeypatch):
    def without_tag(state, dealer, dealt):
        key, nonce, ciphertext = state._incoming[dealer].expose(), dealt.sealed[:12], dealt.sealed[12:-16]
        counter = nonce + (2).to_bytes(4, "big")
        plain = Cipher(algorithms.AES256(key), modes.CTR(counter)).decryptor().update(ciphertext)
        return SelfMaskShare(plain[:36]), MaskKeyShare(plain[36:])

    monkeypatch.setattr(SharesDealt, "_open", without_tag)
    broken("A10")


def test_one_colluder_fewer_than_the_threshold_has_nothing(harmless):
    harmless("A15")


def test_fewer_colluders_suffice_where_the_split_is_too_weak(broken, monkeypatch):
    split = protocols.client.dealing.split
    monkeypatch.setattr(
        protocols.client.dealing, "split", lambda s, holders, t, entropy: split(s, holders, t - 1, entropy)
    )
    broken("A15")
