"""Waiting for a round: accepts AdvertiseKeys of a round it has not yet taken part in, and makes the round's keys."""

from protocols.client.keys_advertised import KeysAdvertised, RoundSecrets
from protocols.client.session import ClientSession, Environment
from protocols.commitments import commit_to_nonce
from protocols.errors import PolicyError, SessionMismatchError
from protocols.key_agreement import public_key
from protocols.messages import AdvertiseKeysReply, AdvertiseKeysRequest, Advertisement
from protocols.parameters import RoundParameters
from protocols.secret_values import ChannelKey, GraphNonce, MaskKey, SelfMaskSeed
from protocols.session import payload_digest, session_id
from protocols.statements import advertisement_message
from protocols.wire import Header


def accept_round(
    request: AdvertiseKeysRequest, header: Header, environment: Environment
) -> tuple[KeysAdvertised, AdvertiseKeysReply]:
    """Check a round against this client's policy and advertise fresh keys for it.

    Args:
        request: Parameters and model.
        header: The request's header.
        environment: The client's own.

    Raises:
        DecodeError, ParameterError: The parameters are malformed or cannot be meant.
        PolicyError: The round offers less than this client insists on, or does not include it.
        SessionMismatchError: The server's session id is not that of what arrived here.
    """
    parameters = RoundParameters.decode(request.parameters)
    environment.policy.check(parameters, environment.roster)
    place = environment.roster.index(environment.name)
    if place not in parameters.cohort:
        raise PolicyError("cohort", "without this client", "its own place in it")
    model_digest = (environment.digest or payload_digest)(request.payload)
    own_session = session_id(parameters, model_digest)
    if own_session != header.session_id or parameters.round != header.round:
        raise SessionMismatchError("the server")
    session = ClientSession(parameters, own_session, parameters.cohort.index(place), model_digest)
    secrets = RoundSecrets(
        ChannelKey(environment.entropy(32)),
        MaskKey(environment.entropy(32)),
        SelfMaskSeed(environment.entropy(32)),
        None if parameters.is_complete else GraphNonce(environment.entropy(32)),
    )
    advertisement = _advertise(session, secrets, environment)
    return KeysAdvertised(session, request.payload, secrets, advertisement), AdvertiseKeysReply(advertisement)


def _advertise(session: ClientSession, secrets: RoundSecrets, environment: Environment) -> Advertisement:
    commitment = b""
    if secrets.nonce is not None:
        commitment = commit_to_nonce(secrets.nonce, session.session_id, session.position)
    unsigned = Advertisement(public_key(secrets.channel_key), public_key(secrets.mask_key), commitment, b"")
    if not session.is_active:
        return unsigned
    message = advertisement_message(session.session_id, session.position, unsigned)
    return Advertisement(unsigned.channel_public, unsigned.mask_public, commitment, environment.identity.sign(message))
