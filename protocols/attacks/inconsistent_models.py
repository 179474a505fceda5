"""A6: one client gets another model (Pasquini et al. 2022), so that its update shows in the sum."""

import numpy as np

from protocols.attacks.records import Attack, Finding, Outcome, broken, harmless, refused
from protocols.attacks.scene import Scene, read
from protocols.errors import ProtocolError
from protocols.key_agreement import AgreementKey, Endpoint, pairwise_seed, public_key
from protocols.masking import mask
from protocols.messages import AdvertiseKeysReply, AdvertiseKeysRequest, encode_message
from protocols.pads import Pad
from protocols.parameters import RoundParameters
from protocols.secret_values import MaskKey
from protocols.session import SessionKeys, payload_digest, session_id
from protocols.stages import Stage
from protocols.vectors import EncodedVector

OTHER_MODEL = b"a model that was made for one client"


def another_model_for_one_client() -> Finding:
    """Give the victim another model under a session id that fits it, and pass its keys to the others."""
    scene = Scene(5)
    victim = scene.names[0]

    def request(name: str, frame: bytes) -> bytes:
        if name != victim:
            return frame
        parameters = read(AdvertiseKeysRequest, frame).parameters
        other = session_id(RoundParameters.decode(parameters), payload_digest(OTHER_MODEL))
        return encode_message(AdvertiseKeysRequest(parameters, OTHER_MODEL), scene.parameters.round, other)

    def reply(name: str, frame: bytes) -> tuple[bytes]:
        if name != victim:
            return (frame,)
        advertisement = read(AdvertiseKeysReply, frame)
        return (encode_message(advertisement, scene.parameters.round, scene.server.session_id),)

    try:
        scene.step(Stage.ADVERTISE_KEYS, request=request, replies=reply)
        scene.play()
    except ProtocolError as error:
        return refused(error, "another model for one client")
    result = scene.server.result
    if result is not None and victim in result.survivors:
        return broken(f"the sum was opened although {victim} trained on another model")
    return refused(scene.server.rejections[0].error, f"{victim} with another model, dropped from the round")


def a_session_id_that_hides_it() -> Finding:
    """Give the victim another model under the session id of the others."""
    scene = Scene(5)
    parameters = scene.parameters
    frame = encode_message(AdvertiseKeysRequest(parameters.encode(), OTHER_MODEL), 1, scene.server.session_id)
    try:
        scene.send(scene.names[0], Stage.ADVERTISE_KEYS, frame)
    except ProtocolError as error:
        return refused(error, "another model under the others' session id")
    return broken("a client took the session id from the server instead of computing it")


def pads_of_two_models() -> Finding:
    """Let two clients mask under sessions that differ in the model only, and add the two vectors."""
    scene = Scene(5)
    sessions = [
        SessionKeys(session_id(scene.parameters, payload_digest(model)), bytes(32)) for model in (b"one", b"two")
    ]
    private = [MaskKey(bytes([i]) * 32) for i in (1, 2)]
    ends = [Endpoint(i, public_key(key), str(i)) for i, key in enumerate(private)]
    vectors = [np.full(64, i, dtype=np.uint32) for i in (3, 4)]
    total = np.zeros(64, dtype=np.int64)
    for me, (key, session, vector) in enumerate(zip(private, sessions, vectors, strict=True)):
        seed = pairwise_seed(AgreementKey(key), ends[me], ends[1 - me], session)
        total += mask(EncodedVector(vector, 8), [Pad(seed, negative=me == 1)], 20).lanes.astype(np.int64)
    if np.array_equal(total % (1 << 20), sum(vectors)):
        return broken("pads of two different models cancelled")
    return harmless("the pads of two models do not cancel: the sum is unusable")


ATTACKS = (
    Attack(
        "A6a",
        "Another model for one client",
        "the server sends one client another model, with a fitting session id, and passes its keys to the others",
        Outcome.REFUSED,
        another_model_for_one_client,
    ),
    Attack(
        "A6b",
        "Another model for one client",
        "the server sends one client another model under the session id of the others",
        Outcome.REFUSED,
        a_session_id_that_hides_it,
    ),
    Attack(
        "A6c",
        "Another model for one client",
        "two clients mask under different models, the server adds their vectors",
        Outcome.HARMLESS,
        pads_of_two_models,
    ),
)
