"""The requirements of SPEC.md on the server: replies that break a rule, each dropped by name."""

import dataclasses

import pytest

from protocols import (
    AuthenticationError,
    DecodeError,
    ReconstructionError,
    SessionMismatchError,
    StageOrderError,
)
from protocols.messages import (
    AdvertiseKeysReply,
    ConsistencyCheckReply,
    MaskedInputReply,
    RevealNoncesReply,
    ShareKeysReply,
    UnmaskingReply,
)
from protocols.secret_values import SelfMaskShare
from protocols.simulator import Alter, Interceptor, Recorder
from protocols.stages import Stage
from protocols.statements import advertisement_message
from tests.protocols.hostile_clients import EASY, check_sum, flip, forged


class Replay(Interceptor):
    """Sends every reply twice, and once more in the name of another client."""

    def reply(self, stage, client, frame):
        return (frame, frame)

    def invent(self, stage):
        return ((("site-999"), b"SF"),)


def test_each_client_is_heard_once_at_each_stage(cohort):
    """[M-30] The server MUST take one reply of each client it asked at each stage, and refuse all others; a refused
    reply puts only its sender out of the stage.
    """
    federation = cohort(5)
    result = federation.run(Replay())
    check_sum(federation, result)
    assert not result.dropouts
    second = [r for r in result.rejections if isinstance(r.error, StageOrderError)]
    assert sorted({(r.client, r.stage) for r in second}) == sorted(
        (name, stage.value) for name in federation.names for stage in federation.parameters().stages
    )
    assert {r.client for r in result.rejections if isinstance(r.error, AuthenticationError)} == {"site-999"}


def test_after_a_refused_reply_its_sender_is_not_heard_again(cohort):
    federation = cohort(6, choices=EASY)
    result = federation.run(Alter("ShareKeys", "up", lambda frame: (frame[:-1], frame), "site-001"))
    assert result.dropouts == {"site-001": "ShareKeys"}
    check_sum(federation, result, without=("site-001",))


@pytest.mark.parametrize(
    ("stage", "change", "error"),
    [
        ("AdvertiseKeys", lambda frame: b"", DecodeError),
        ("AdvertiseKeys", lambda frame: frame + b"\0", DecodeError),
        ("AdvertiseKeys", lambda frame: frame[:8] + bytes(32) + frame[40:], SessionMismatchError),
        ("AdvertiseKeys", lambda frame: frame[:4] + b"\x02" + frame[5:], StageOrderError),
        ("AdvertiseKeys", lambda frame: flip(frame, 60), AuthenticationError),
        (
            "AdvertiseKeys",
            forged(
                AdvertiseKeysReply,
                lambda m: AdvertiseKeysReply(dataclasses.replace(m.advertisement, signature=b"")),
            ),
            AuthenticationError,
        ),
        (
            "AdvertiseKeys",
            forged(
                AdvertiseKeysReply,
                lambda m: AdvertiseKeysReply(
                    dataclasses.replace(m.advertisement, mask_public=m.advertisement.channel_public)
                ),
            ),
            AuthenticationError,
        ),
        ("RevealNonces", forged(RevealNoncesReply, lambda m: RevealNoncesReply(bytes(32))), Exception),
        (
            "ShareKeys",
            forged(
                ShareKeysReply,
                lambda m: dataclasses.replace(m, shares={p: s for p, s in m.shares.items() if p != 1}),
            ),
            DecodeError,
        ),
        (
            "ShareKeys",
            forged(ShareKeysReply, lambda m: dataclasses.replace(m, shares={**m.shares, 77: m.shares[1]})),
            DecodeError,
        ),
        (
            "ShareKeys",
            forged(
                ShareKeysReply,
                lambda m: dataclasses.replace(m, shares={**m.shares, 1: dataclasses.replace(m.shares[1], sealed=b"")}),
            ),
            DecodeError,
        ),
        (
            "MaskedInputCollection",
            forged(MaskedInputReply, lambda m: dataclasses.replace(m, ring_bits=20, packed=bytes(500))),
            DecodeError,
        ),
        (
            "MaskedInputCollection",
            forged(MaskedInputReply, lambda m: dataclasses.replace(m, length=199, packed=bytes(473))),
            DecodeError,
        ),
        (
            "MaskedInputCollection",
            forged(MaskedInputReply, lambda m: dataclasses.replace(m, unusable=(2, 77))),
            DecodeError,
        ),
        ("MaskedInputCollection", lambda frame: frame + bytes(1 << 20), DecodeError),
        (
            "ConsistencyCheck",
            forged(ConsistencyCheckReply, lambda m: ConsistencyCheckReply(flip(m.signature))),
            AuthenticationError,
        ),
        (
            "Unmasking",
            forged(UnmaskingReply, lambda m: UnmaskingReply({**m.shares, 77: SelfMaskShare(bytes(36))})),
            DecodeError,
        ),
        ("Unmasking", lambda frame: b"garbage", DecodeError),
    ],
)
def test_a_client_that_breaks_the_rules_is_dropped_by_name(cohort, stage, change, error):
    if stage == "RevealNonces":
        federation = cohort(12, length=4, choices={"neighbours": 8, "threshold": 5, "corrupt": 0})
    else:
        federation = cohort(6, choices=EASY)
    culprit = "site-004"
    result = federation.run(Alter(stage, "up", change, culprit))
    assert result.dropouts == {culprit: stage}
    assert [(r.client, r.stage) for r in result.rejections] == [(culprit, stage)]
    assert isinstance(result.rejections[0].error, error)
    check_sum(federation, result, without=(culprit,) if stage not in ("ConsistencyCheck", "Unmasking") else ())


def test_small_order_keys_are_refused_by_name(cohort):
    federation = cohort(6, choices=EASY)
    identity, session = federation.identities["site-004"], federation.server().session_id

    def weaken(message):
        entry = dataclasses.replace(message.advertisement, mask_public=b"\x01" + bytes(31))
        statement = advertisement_message(session, 4, entry)
        return AdvertiseKeysReply(dataclasses.replace(entry, signature=identity.sign(statement)))

    result = federation.run(Alter("AdvertiseKeys", "up", forged(AdvertiseKeysReply, weaken), "site-004"))
    assert result.dropouts == {"site-004": "AdvertiseKeys"}
    assert result.rejections[0].error.what == "public key"


@pytest.mark.parametrize(("holders", "named"), [(2, False), (3, True)])
def test_a_dealer_whose_shares_open_nowhere_is_named_before_anything_is_returned(cohort, holders, named):
    federation, recorder = cohort(6, choices=EASY), Recorder()

    def spoil(message):
        shares = dict(message.shares)
        for holder in range(holders):
            shares[holder] = dataclasses.replace(shares[holder], sealed=bytes(100))
        return dataclasses.replace(message, shares=shares)

    alter = Alter("ShareKeys", "up", forged(ShareKeysReply, spoil), "site-005")
    if not named:
        result = federation.run(alter, recorder)
        check_sum(federation, result)
        assert result.complaints == dict.fromkeys(federation.names[:holders], ("site-005",))
        return
    with pytest.raises(ReconstructionError) as caught:
        federation.run(alter, recorder)
    assert caught.value.owner == "site-005"
    assert {stage for stage, *_ in recorder.transcript} == {"AdvertiseKeys", "ShareKeys", "MaskedInputCollection"}


def test_keys_of_another_client_are_refused(cohort):
    federation, recorder = cohort(6, choices=EASY), Recorder()
    federation.run_until(Stage.SHARE_KEYS, recorder, server=federation.server())
    stolen = recorder.find("AdvertiseKeys", "site-001", "up")
    result = federation.run(Alter("AdvertiseKeys", "up", lambda frame: stolen, "site-004"), number=2)
    assert result.dropouts == {"site-004": "AdvertiseKeys"}


class LateVector(Interceptor):
    """Holds one client's masked vector back until a later stage."""

    def __init__(self, client, until):
        self._client, self._until, self._held = client, until, b""

    def reply(self, stage, client, frame):
        if stage == "MaskedInputCollection" and client == self._client:
            self._held = frame
            return ()
        return (frame,)

    def invent(self, stage):
        return ((self._client, self._held),) if stage == self._until else ()


@pytest.mark.parametrize("until", ["ConsistencyCheck", "Unmasking"])
def test_a_late_vector_is_worth_nothing(cohort, until):
    """[M-31] A vector that comes after MaskedInputCollection has ended MUST NOT enter the sum."""
    federation = cohort(6, choices=EASY)
    result = federation.run(LateVector("site-002", until))
    check_sum(federation, result, without=("site-002",))
    assert result.dropouts == {"site-002": "MaskedInputCollection"}
    assert [(r.client, r.stage, type(r.error)) for r in result.rejections] == [("site-002", until, AuthenticationError)]
