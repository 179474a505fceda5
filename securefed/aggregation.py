"""From contributions to an opened sum: the codec, one round of the protocol, and what the server sees afterwards.

With and without secure aggregation the same integers are summed in the same ring, over the same survivors: both give
the same model, bit for bit.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.method.layout import initial_vector, vector_layout
from protocols.client.machine import ClientMachine
from protocols.client.session import Contribute, RoundContext
from protocols.codec import Codec
from protocols.compression.half import HalfClient, run_half_round
from protocols.compression.scheme import SchemeKind, parse_scheme
from protocols.driver import run_round
from protocols.errors import AggregateError, ReconstructionError, SpentError, TooFewSurvivorsError
from protocols.parameters import (
    MIN_HONEST_SURVIVORS,
    RoundParameters,
    default_corrupt,
)
from protocols.participation import Participation
from protocols.plain import PlainClient, run_plain_round
from protocols.plan import COMPLETE_UP_TO, plan
from protocols.policy import ClientPolicy
from protocols.result import Direction, FrameRecord, RoundResult
from protocols.roster import IdentityKey, RememberingVerifier, Roster
from protocols.server.machine import ServerMachine
from protocols.stages import Stage, ThreatModel
from protocols.transport import InProcessTransport
from protocols.vectors import EncodedVector
from securefed.channels import HalfChannel, fixed_point, make_channel
from securefed.compression import Channel, ChannelState, Contribution
from securefed.compression_choice import Choice, choose, upload_bytes
from securefed.config import STAGES, RunConfig, config_digest
from securefed.dropouts import dropouts_of_round
from securefed.errors import RoundAbortedError
from securefed.model_file import vector_digest
from securefed.run_folder import ByteRow

Vector = NDArray[np.float32]

_BEFORE_THE_SUM = ("AdvertiseKeys", "ShareKeys", "MaskedInputCollection")
"""Stages at which a site that is lost is not in the sum."""


@dataclass(frozen=True)
class OpenedRound:
    """What the server sees of a round.

    Attributes:
        mean_update: float64[d], unweighted mean of the survivors' updates.
        mean_score: Mean of their scores.
        mean_clamped: Mean share of coordinates that the hospitals clamped into the public range.
        survivors: Sites in the sum.
        dropouts: {site: stage} of the sites that were lost.
        rejected: {site: class of the error} of what the server did not accept.
        digest: SHA-256 (hex) of the opened integers (int64, little-endian).
        session: Session id (hex); zeros without secure aggregation.
        byte_rows: Every message.
    """

    mean_update: NDArray[np.float64]
    mean_score: float
    mean_clamped: float
    survivors: tuple[str, ...]
    dropouts: Mapping[str, str]
    rejected: Mapping[str, str]
    digest: str
    session: str
    byte_rows: tuple[ByteRow, ...]


class Aggregator:
    """Runs the rounds of one federation: one client machine a site, one server machine a round.

    Args:
        config: The run's configuration.
        identities: {site: its long-term key}, in the order of the data set.
        embed_dim: Width D of the features.
        num_classes: Number C of classes.

    Attributes:
        initial_vector: float32[d], the shared parameters before the first round.
        before_round: Called with (round, digest of the global model) before anything of a round is sent.
        closing_round: What `open_scores` has opened, None before.
        compression: The scheme in use and, where `auto` chose it, why.
    """

    def __init__(
        self, config: RunConfig, identities: Mapping[str, IdentityKey], embed_dim: int, num_classes: int
    ) -> None:
        self._config = config
        self._sites = tuple(identities)
        self._digest = bytes.fromhex(config_digest(config))
        settings, method = config.training, config.federation.method
        self.initial_vector = initial_vector(embed_dim, settings, config.federation.seed, method, num_classes)
        self.before_round: Callable[[int, str], None] = lambda _number, _digest: None
        self.closing_round: OpenedRound | None = None
        shapes = [shape for _, shape in vector_layout(embed_dim, settings, method, num_classes)]
        self._identities = dict(identities)
        self._roster = Roster.of(self._identities)
        self._verifier = RememberingVerifier()
        self._participation = {site: Participation(MIN_HONEST_SURVIVORS) for site in self._sites}
        self._machines: dict[str, ClientMachine] = {}
        self._contribute: Contribute = _nothing_to_contribute
        self._choices = self._plan()
        self.compression = self._choose_compression(shapes)
        self._updates = self._channel(self.compression.scheme, shapes)
        self._scores = fixed_point([1], 1.0, config.secure_aggregation.value_bits, config.federation.seed)
        self._bearable = self._losses_that_a_round_survives()

    def open_round(self, number: int, vector: Vector, contribute: Callable[[str, Vector], Contribution]) -> OpenedRound:
        """Run one round and return what it opened.

        Args:
            number: The round, from 1.
            vector: float32[d], the global model, sent to every site.
            contribute: Trains at a site from the vector that it received.

        Raises:
            RoundAbortedError: Too few sites were left; nothing was revealed.
        """
        self.before_round(number, vector_digest(vector))
        return self._open(self._updates, number, vector, contribute)

    def open_scores(self, number: int, vector: Vector, score: Callable[[str, Vector], float]) -> float:
        """Score a model without training and return the mean over the sites; the update that is summed is one zero."""
        self.before_round(number, vector_digest(vector))
        nothing = np.zeros(1, np.float32)
        self.closing_round = self._open(
            self._scores, number, vector, lambda site, received: Contribution(nothing, score(site, received))
        )
        return self.closing_round.mean_score

    def channel_state(self) -> ChannelState:
        """Return what the sums need to go on after a restart, beside the global model."""
        return self._updates.state()

    def restore(self, state: ChannelState, vector: Vector) -> None:
        """Go on from a state, with the global model that belongs to it."""
        self._updates.restore(state, vector)

    def describe(self) -> dict[str, Any]:
        """Return the public parameters of the sums, for the event log."""
        parameters = self._parameters(self._updates.codec, 1)
        secure = self._config.secure_aggregation
        described: dict[str, Any] = {
            "secure_aggregation": secure.enabled,
            "clients": parameters.clients,
            "dimension": self.initial_vector.size,
            "ring_bits": parameters.ring_bits,
            "value_bits": self._value_bits,
            "values": {"compression": self.compression.scheme, "vector_length": parameters.vector_length},
        }
        if secure.enabled:
            described |= {
                "threat_model": secure.threat_model,
                "threshold": parameters.threshold,
                "corrupt": parameters.corrupt,
            }
        return described

    def summary(self, dropouts: Mapping[str, int]) -> dict[str, Any]:
        """Return the block `secure_aggregation` of summary.json; `dropouts` counts lost sites by stage."""
        parameters = self._parameters(self._updates.codec, 1)
        secure = self._config.secure_aggregation
        return {
            "enabled": secure.enabled,
            "threat_model": secure.threat_model if secure.enabled else None,
            "threshold": parameters.threshold if secure.enabled else None,
            "corrupt": parameters.corrupt if secure.enabled else None,
            "clients": parameters.clients,
            "ring_bits": parameters.ring_bits,
            "value_bits": self._value_bits,
            "compression": self.compression.scheme,
            "dropouts": {stage: dropouts.get(stage, 0) for stage in STAGES},
        }

    @property
    def _value_bits(self) -> int:
        """Bits of a coordinate as it is encoded."""
        return parse_scheme(self.compression.scheme).value_bits or self._config.secure_aggregation.value_bits

    def _choose_compression(self, shapes: Sequence[tuple[int, ...]]) -> Choice:
        secure = self._config.secure_aggregation
        if parse_scheme(secure.compression).kind is not SchemeKind.AUTO:
            return Choice(secure.compression)
        return choose(secure.upload_budget, lambda scheme: self._upload_bytes(self._channel(scheme, shapes).codec))

    def _upload_bytes(self, codec: Codec) -> int:
        return upload_bytes(self._parameters(codec, 1), in_clear=not self._config.secure_aggregation.enabled)

    def _channel(self, scheme: str, shapes: Sequence[tuple[int, ...]]) -> Channel | HalfChannel:
        secure, seed = self._config.secure_aggregation, self._config.federation.seed
        return make_channel(scheme, secure, shapes, self._sites, self.initial_vector, seed)

    def _parameters(self, codec: Codec, number: int) -> RoundParameters:
        return RoundParameters.choose(
            round=number,
            roster=self._roster,
            codec=codec,
            config_digest=self._digest,
            **self._choices,
        )

    def _plan(self) -> dict[str, Any]:
        """The graph and the threshold: complete up to 100 hospitals, above that the least safe ring."""
        secure, n = self._config.secure_aggregation, len(self._sites)
        corrupt = default_corrupt(n) if secure.corrupt < 0 else secure.corrupt
        model = ThreatModel(secure.threat_model)
        if n <= COMPLETE_UP_TO:
            return {"threat_model": model, "corrupt": corrupt, "threshold": secure.threshold or None}
        return plan(n, corrupt / n, secure.losses, threat_model=model).choices

    def _losses_that_a_round_survives(self) -> int:
        parameters = self._parameters(self._updates.codec, 1)
        if parameters.is_complete:
            return parameters.clients - max(parameters.threshold, parameters.min_survivors)
        return parameters.clients - parameters.min_survivors

    def _open(
        self,
        channel: Channel | HalfChannel,
        number: int,
        vector: Vector,
        contribute: Callable[[str, Vector], Contribution],
    ) -> OpenedRound:
        """One round: the model travels by the channel of the updates, the contributions by the given one."""
        seed = self._config.federation.seed
        lost = dropouts_of_round(self._config.simulation, self._sites, number, seed, self._bearable)

        def give(context: RoundContext) -> Contribution:
            return contribute(context.client, self._updates.receive(context.client, context.payload))

        payload = self._updates.payload(vector)
        try:
            if isinstance(channel, HalfChannel):
                result = self._run_half(channel, number, payload, give, lost)
            else:
                encode = partial(_encode, channel, give)
                result = self._run(self._parameters(channel.codec, number), payload, encode, lost)
        except _NotOpenedError as error:
            channel.withdraw()
            rows = _byte_rows(error.frames, number)
            raise RoundAbortedError(number, error.stage, str(error.__cause__), dict(lost), rows) from error.__cause__
        if channel is not self._updates:
            self._updates.scored(result.survivors)
        opened = channel.open(result)
        return OpenedRound(
            mean_update=opened.mean_update,
            mean_score=opened.mean_score,
            mean_clamped=opened.mean_clamped,
            survivors=result.survivors,
            dropouts=dict(lost),
            rejected={rejection.client: type(rejection.error).__name__ for rejection in result.rejections},
            digest=hashlib.sha256(result.total.integers().astype("<i8").tobytes()).hexdigest(),
            session=result.session_id.hex(),
            byte_rows=_byte_rows(result.frames, number),
        )

    def _run(
        self, parameters: RoundParameters, payload: bytes, encode: Contribute, lost: Mapping[str, str]
    ) -> RoundResult:
        if not self._config.secure_aggregation.enabled:
            return self._run_plain(parameters, payload, encode, lost)
        self._contribute = encode
        clients = self._clients(parameters)
        drops = {(site, parameters.round): stage for site, stage in lost.items()}
        server = ServerMachine(parameters, self._roster, payload, verifier=self._verifier)
        try:
            return run_round(server, InProcessTransport(clients, drops))
        except (TooFewSurvivorsError, ReconstructionError, AggregateError) as error:
            stage = error.stage if isinstance(error, TooFewSurvivorsError) else "Unmasking"
            raise _NotOpenedError(stage, server.frames) from error

    def _clients(self, parameters: RoundParameters) -> dict[str, ClientMachine]:
        """One machine a site, for the whole run; which encoding a site takes part in, its channel decides."""
        if not self._machines:
            policy = ClientPolicy(
                config_digest=self._digest,
                min_corrupt=parameters.corrupt,
                threat_models=frozenset({parameters.threat_model}),
            )
            self._machines = {
                site: ClientMachine(
                    identity,
                    self._roster,
                    policy,
                    self._contribute_now,
                    verifier=self._verifier,
                    participation=self._participation[site],
                )
                for site, identity in self._identities.items()
            }
        return self._machines

    def _contribute_now(self, context: RoundContext) -> EncodedVector:
        """The machines outlive a round; what they contribute belongs to the round in progress."""
        return self._contribute(context)

    def _run_plain(
        self, parameters: RoundParameters, payload: bytes, encode: Contribute, lost: Mapping[str, str]
    ) -> RoundResult:
        """The same sum in clear: who is lost after its vector has arrived is in it, here as there."""
        clients = {site: PlainClient(site, encode) for site in self._sites}
        return self._in_clear(
            parameters,
            lost,
            lambda drops: run_plain_round(parameters, self._roster, payload, InProcessTransport(clients, drops)),
        )

    def _run_half(
        self,
        channel: HalfChannel,
        number: int,
        payload: bytes,
        give: Callable[[RoundContext], Contribution],
        lost: Mapping[str, str],
    ) -> RoundResult:
        """A round of the published compression, in clear."""
        codec, parameters = channel.codec, self._parameters(channel.codec, number)
        clients = {
            site: HalfClient(site, codec, lambda context: channel.compress(give(context))) for site in self._sites
        }
        return self._in_clear(
            parameters,
            lost,
            lambda drops: run_half_round(codec, parameters, self._roster, payload, InProcessTransport(clients, drops)),
        )

    def _in_clear(
        self,
        parameters: RoundParameters,
        lost: Mapping[str, str],
        run: Callable[[dict[tuple[str, int], str]], RoundResult],
    ) -> RoundResult:
        drops = {
            (site, parameters.round): Stage.PLAIN_INPUT_COLLECTION.value
            for site, stage in lost.items()
            if stage in _BEFORE_THE_SUM
        }
        try:
            self._check_survivors(parameters, lost)
            return run(drops)
        except TooFewSurvivorsError as error:
            raise _NotOpenedError(error.stage, ()) from error

    def _check_survivors(self, parameters: RoundParameters, lost: Mapping[str, str]) -> None:
        """Give up where the same losses would end a round under masks, so that both paths take part in the same rounds.

        Exact on a complete graph; on a ring a round under masks can also end where one hospital's neighbours are lost.
        """
        left = len(self._sites)
        for stage in STAGES:
            left -= sum(lost_at == stage for lost_at in lost.values())
            needed = parameters.min_survivors if stage in _BEFORE_THE_SUM else parameters.threshold
            if left < needed:
                raise TooFewSurvivorsError(stage, left, needed)


def _encode(channel: Channel, give: Callable[[RoundContext], Contribution], context: RoundContext) -> EncodedVector:
    """What a client machine calls: train from the download, encode for the round that it takes part in."""
    return channel.encode(context.client, context.round, context.parameters.encoding_digest, give(context))


def _nothing_to_contribute(context: RoundContext) -> EncodedVector:
    raise SpentError(f"contribution to round {context.round}")


class _NotOpenedError(Exception):
    """A protocol round ended at `stage` without a sum, after `frames` had passed; its cause says why."""

    def __init__(self, stage: str, frames: Sequence[FrameRecord]) -> None:
        super().__init__(stage)
        self.stage = stage
        self.frames = frames


def _byte_rows(frames: Sequence[FrameRecord], number: int) -> tuple[ByteRow, ...]:
    ways = {Direction.UP: "upload", Direction.DOWN: "download"}
    return tuple(
        ByteRow(number, frame.client, ways[frame.direction], frame.stage, frame.kind.value, frame.bytes)
        for frame in frames
    )
