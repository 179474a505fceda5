"""SharesDealt: shares are on their way. The next request brings the others' shares; the client trains and masks."""

from collections.abc import Iterable, Mapping
from typing import Self

from protocols.client.input_masked import InputMasked
from protocols.client.noise_shares import OwnNoise, open_noise
from protocols.client.received_shares import ShareOf
from protocols.client.session import ClientSession, Environment, RoundContext
from protocols.client.state import State
from protocols.commitments import commit_to_share
from protocols.errors import NoiseError, OutOfRangeError, ShapeError, SurvivorSetError, TooFewSurvivorsError
from protocols.key_agreement import AgreementKey, Endpoint, pairwise_seed, self_mask_key
from protocols.masking import mask
from protocols.messages import (
    DealtNoise,
    DealtShares,
    MaskedInputReply,
    MaskedInputRequest,
    Message,
    NoisyMaskedInputRequest,
    decode_message,
)
from protocols.messages.limits import request_limit
from protocols.pads import Pad
from protocols.sealing import open_shares
from protocols.secret_values import (
    MaskKey,
    MaskKeyShare,
    NoiseShare,
    SealingKey,
    Secret,
    SelfMaskSeed,
    SelfMaskShare,
)
from protocols.session import SessionKeys
from protocols.stages import Stage
from protocols.vectors import EncodedVector, MaskedVector, NoisyVector
from protocols.wire import Reader, u8, u16, u32


class SharesDealt(State):
    """Both secrets are shared; the vector is not masked yet. Holds the round's one-time pads.

    Args:
        session: The round.
        payload: The global model as it was received.
        secrets: Mask key, its public key, self-mask seed, and this client's share of its own seed (complete graph).
        keys_digest: 32 bytes.
        mask_publics: {peer: its public mask key}.
        incoming: {peer: key that opens what it dealt to this client}.
        noise: This client's own excess noise.
    """

    TAG = 3

    def __init__(
        self,
        session: ClientSession,
        payload: bytes | memoryview,
        secrets: tuple[MaskKey, bytes, SelfMaskSeed, SelfMaskShare | None],
        keys_digest: bytes,
        mask_publics: Mapping[int, bytes],
        incoming: Mapping[int, SealingKey],
        noise: OwnNoise,
    ) -> None:
        super().__init__(session)
        self._payload = payload
        self._mask_key, self._mask_public, self._seed, self._own_share = secrets
        self._keys = SessionKeys(session.session_id, keys_digest)
        self._mask_publics = mask_publics
        self._incoming = incoming
        self._noise = noise
        self._opened: list[Secret] = []
        """Shares of others, from when they are opened until the next state has them."""

    @property
    def expects(self) -> Stage:
        """MaskedInputCollection."""
        return Stage.MASKED_INPUT_COLLECTION

    def _handle(self, data: bytes, environment: Environment) -> tuple[State | None, Message]:
        parameters = self.session.parameters
        dealt, dealt_noise = self._read(data)
        self._check_dealers(dealt)
        received = {dealer: self._open(dealer, shares) for dealer, shares in dealt.items()}
        noise = {dealer: self._open_noise(dealer, dealt_noise.get(dealer)) for dealer in dealt}
        context = RoundContext(parameters.round, self._payload, parameters, environment.name, self._noise.seeds)
        encoded = environment.contribute(context)
        self._check_vector(encoded)
        masked = self._mask(encoded, sorted(dealt), environment)
        usable: dict[int, ShareOf] = {}
        usable_noise: dict[int, tuple[NoiseShare, ...]] = {}
        for dealer, shares in received.items():
            theirs = noise[dealer]
            if shares is not None and theirs is not None:
                usable[dealer], usable_noise[dealer] = shares, theirs
                continue
            for secret in (*(shares or ()), *(theirs or ())):
                secret.erase()
        unusable = tuple(dealer for dealer in dealt if dealer not in usable)
        if self._own_share is not None:
            usable[self.session.position] = (self._own_share, None)
            usable_noise[self.session.position] = self._noise.shares
        held = usable_noise if parameters.excess else {}
        session = self.session.apart() if encoded.constant else self.session
        following = InputMasked(session, self._keys.keys_digest, frozenset(dealt), usable, held)
        for secret in (self._mask_key, self._seed, *self._incoming.values(), *self._noise.seeds):
            secret.erase()
        self._own_share, self._noise, self._opened = None, OwnNoise(), []
        return following, MaskedInputReply(unusable, parameters.ring_bits, parameters.vector_length, masked.encode())

    def _read(self, data: bytes) -> tuple[Mapping[int, DealtShares], Mapping[int, DealtNoise]]:
        limit = request_limit(Stage.MASKED_INPUT_COLLECTION, self.session.parameters)
        if not self.session.parameters.excess:
            return decode_message(MaskedInputRequest, data, limit)[1].shares, {}
        request = decode_message(NoisyMaskedInputRequest, data, limit)[1]
        if request.noise.keys() != request.plain.shares.keys():
            raise SurvivorSetError("the server passes on noise shares of other clients than it passes on shares of")
        return request.plain.shares, request.noise

    def _open_noise(self, dealer: int, dealt: DealtNoise | None) -> tuple[NoiseShare, ...] | None:
        """A dealer's shares of its noise seeds; without excess noise there are none, and that is right."""
        excess, here = self.session.parameters.excess, self.session
        if not excess:
            return ()
        shares = open_noise(self._incoming[dealer], dealt, here.session_id, dealer, here.position, excess)
        self._opened += shares or ()
        return shares

    def _check_dealers(self, dealt: Mapping[int, DealtShares]) -> None:
        parameters = self.session.parameters
        if not self._mask_publics.keys() >= dealt.keys():
            raise SurvivorSetError("the server passes on shares of a client whose keys it did not show")
        if not all(shares.sealed for shares in dealt.values()):
            raise SurvivorSetError("the server passes on shares that are not sealed")
        present = len(dealt) + (1 if parameters.is_complete else 0)
        least = max(parameters.threshold, parameters.min_survivors if parameters.is_complete else 0)
        if present < least:
            raise TooFewSurvivorsError(self.expects.value, present, least)

    def _open(self, dealer: int, dealt: DealtShares) -> tuple[SelfMaskShare, MaskKeyShare] | None:
        """A dealer's shares, or None where they do not open or do not fit what it committed to."""
        me, identifier = self.session.position, self.session.session_id
        shares = open_shares(self._incoming[dealer], dealt.sealed, identifier, dealer, me)
        if shares is None:
            return None
        self._opened += shares
        bindings = tuple(commit_to_share(share, identifier, dealer, me) for share in shares)
        if bindings == (dealt.self_mask_commitment, dealt.mask_key_commitment):
            return shares
        for share in shares:
            share.erase()
        return None

    def _check_vector(self, encoded: EncodedVector) -> None:
        parameters = self.session.parameters
        if len(encoded) != parameters.vector_length:
            raise ShapeError((parameters.vector_length,), (len(encoded),))
        if encoded.max_coordinate > parameters.max_coordinate:
            raise OutOfRangeError(len(encoded), 0)
        if isinstance(encoded, NoisyVector) is not parameters.is_noisy:
            raise NoiseError(needed=parameters.is_noisy)

    def _mask(self, encoded: EncodedVector, peers: Iterable[int], environment: Environment) -> MaskedVector:
        """Return the vector under its pads; the pads' keys are erased whatever happens."""
        pads = self._pads(peers, environment)
        try:
            return mask(encoded, pads, self.session.parameters.ring_bits)
        finally:
            _erase(pads)

    def _pads(self, peers: Iterable[int], environment: Environment) -> list[Pad]:
        here = Endpoint(self.session.position, self._mask_public, environment.name)
        agreement = AgreementKey(self._mask_key)
        pads = [Pad(self_mask_key(self._seed, self._keys, here.position), negative=False)]
        try:
            for peer in peers:
                there = Endpoint(peer, self._mask_publics[peer], self.session.name(peer, environment.roster))
                seed = pairwise_seed(agreement, here, there, self._keys)
                pads.append(Pad(seed, negative=here.position > peer))
        except BaseException:
            _erase(pads)
            raise
        return pads

    def _secrets(self) -> Iterable[Secret]:
        own = () if self._own_share is None else (self._own_share,)
        return (self._mask_key, self._seed, *self._incoming.values(), *own, *self._noise.secrets(), *self._opened)

    def _fields(self) -> Iterable[bytes | memoryview]:
        own = b"" if self._own_share is None else self._own_share.expose()
        yield self._mask_key.expose() + self._mask_public + self._seed.expose() + self._keys.keys_digest
        yield u8(len(own)) + own + u32(len(self._payload))
        yield self._payload
        yield u16(len(self._mask_publics))
        for peer, public in self._mask_publics.items():
            yield u16(peer) + public + self._incoming[peer].expose()
        yield self._noise.fields()

    @classmethod
    def read(cls, session: ClientSession, reader: Reader) -> Self:
        """Rebuild the state from a dump."""
        mask_key, mask_public, seed = MaskKey(reader.view(32)), reader.take(32), SelfMaskSeed(reader.view(32))
        keys_digest = reader.take(32)
        own_share = SelfMaskShare(reader.view(SelfMaskShare.length)) if reader.u8() else None
        payload = reader.view(reader.u32())
        publics: dict[int, bytes] = {}
        incoming: dict[int, SealingKey] = {}
        for _ in range(reader.count(66)):
            peer = reader.u16()
            publics[peer], incoming[peer] = reader.take(32), SealingKey(reader.view(32))
        noise = OwnNoise.read(reader)
        return cls(session, payload, (mask_key, mask_public, seed, own_share), keys_digest, publics, incoming, noise)


def _erase(pads: Iterable[Pad]) -> None:
    for pad in pads:
        pad.erase()
