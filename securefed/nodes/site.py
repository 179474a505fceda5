"""A site node: all that runs at one hospital during the rounds. Bytes in, bytes out; it calls nobody.

A request of a stage of the protocol goes to the site's client machine, which calls back for the contribution: the
site's half of the channel follows the model, the hospital scores it and trains on it, the update is encoded.
"""

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.client.machine import ClientMachine
from protocols.client.session import RoundContext
from protocols.compression.half import HalfClient
from protocols.entropy import Entropy, system_entropy
from protocols.errors import ProtocolError
from protocols.messages import PlainInputRequest, Refusal, decode_message, encode_message
from protocols.messages.limits import FIRST_REQUEST_LIMIT
from protocols.parameters import RoundParameters
from protocols.plain import NO_SESSION, PlainClient
from protocols.policy import ClientPolicy
from protocols.roster import IdentityKey, SignatureVerifier
from protocols.transport import Handler
from protocols.vectors import EncodedVector
from securefed.channels import HalfSite
from securefed.compression import Contribution, Fate, Followed, SiteChannel
from securefed.nodes import closing
from securefed.nodes.closing import CloseRound
from securefed.nodes.numbering import training_round
from securefed.sum_terms import SumTerms

Vector = NDArray[np.float32]

ACKNOWLEDGED: Final = b"{}"


class Trainer(Protocol):
    """What a site node asks of its hospital."""

    def train(self, received: Vector, number: int) -> Vector:
        """Train round `number` from the global vector float32[d] and return the update float32[d]."""
        ...

    def score(self, received: Vector) -> float:
        """Return the accuracy in [0, 1] of the site's ensemble with the global vector on its validation images."""
        ...


class SiteNode:
    """One hospital's end of a federation.

    Args:
        identity: The site's signing key; its name is the one that the roster gives this key.
        terms: The terms of the sums, as this site derives them.
        trainer: The hospital.
        policy: What the client insists on; that of the terms unless given.
        entropy: Cryptographic source.
        verifier: Checks signatures; sites of one process may share one that remembers.
        followed: Downloads that sites of one process have followed.
    """

    def __init__(
        self,
        identity: IdentityKey,
        terms: SumTerms,
        trainer: Trainer,
        policy: ClientPolicy | None = None,
        *,
        entropy: Entropy = system_entropy,
        verifier: SignatureVerifier | None = None,
        followed: Followed | None = None,
    ) -> None:
        self.name = terms.roster.name_of(identity.public)
        self._terms = terms
        self._trainer = trainer
        self._scores_models = terms.config.federation.select == "best-val"
        self.channel: SiteChannel | HalfSite = terms.channels.site(self.name, followed or Followed())
        self._scoring = terms.scoring_site(self.name)
        self._client: Handler
        if terms.config.secure_aggregation.enabled:
            self._client = ClientMachine(
                identity, terms.roster, policy or terms.policy(), self._contribute, entropy, verifier=verifier
            )
        else:
            self._client = ClientInClear(self.name, self._contribute, self._contribute_half, self.channel)

    def answer(self, stage: str, data: bytes) -> bytes:
        """Answer one request; what a `ProtocolError` refuses is answered with a refusal frame."""
        if stage != closing.STAGE:
            return self._client.answer(stage, data)
        try:
            self._close(CloseRound.decode(data))
        except ProtocolError as error:
            return encode_message(Refusal.of(error, {}), 0, NO_SESSION)
        return ACKNOWLEDGED

    def _close(self, message: CloseRound) -> None:
        if not message.opened:
            self.channel.close(Fate.WITHDRAWN)
        else:
            self.channel.close(Fate.DELIVERED if self.name in message.survivors else Fate.LOST)

    def _contribute(self, context: RoundContext) -> EncodedVector:
        """What the client machine calls: follow the model, score, train, encode for the round that is being run."""
        number, digest = training_round(context.round), context.parameters.encoding_digest
        received = self.channel.receive(context.payload)
        if digest == self._terms.scoring_codec.digest:
            contribution = Contribution(np.zeros(1, np.float32), self._trainer.score(received))
            return self._scoring.encode(number, digest, contribution)
        assert not isinstance(self.channel, HalfSite)  # noqa: S101 (rounds of that kind come to _contribute_half)
        return self.channel.encode(number, digest, self._train(received, number))

    def _contribute_half(self, context: RoundContext) -> bytes:
        """The same for the published compression, in clear."""
        assert isinstance(self.channel, HalfSite)  # noqa: S101 (the caller has looked)
        received = self.channel.receive(context.payload)
        return self.channel.compress(self._train(received, training_round(context.round)))

    def _train(self, received: Vector, number: int) -> Contribution:
        score = self._trainer.score(received) if self._scores_models else 0.0
        return Contribution(self._trainer.train(received, number), score)


class ClientInClear:
    """The client of rounds without secure aggregation: the parameters say which of the two kinds a round is.

    Args:
        name: The site.
        contribute: Trains and encodes as integers.
        compress: Trains and encodes as float16.
        channel: The site's half of the channel.
    """

    def __init__(
        self,
        name: str,
        contribute: Callable[[RoundContext], EncodedVector],
        compress: Callable[[RoundContext], bytes],
        channel: SiteChannel | HalfSite,
    ) -> None:
        self._plain = PlainClient(name, contribute)
        self._half = HalfClient(name, channel.codec, compress) if isinstance(channel, HalfSite) else None

    def answer(self, stage: str, data: bytes) -> bytes:
        """Return the contribution, or a refusal."""
        if self._half is not None and self._is_half(data):
            return self._half.answer(stage, data)
        return self._plain.answer(stage, data)

    def _is_half(self, data: bytes) -> bool:
        assert self._half is not None  # noqa: S101 (the caller has looked)
        try:
            _, request = decode_message(PlainInputRequest, data, FIRST_REQUEST_LIMIT)
            return RoundParameters.decode(request.parameters).encoding_digest == self._half.codec.digest
        except ProtocolError:
            return False  # the plain client says what is wrong with it
