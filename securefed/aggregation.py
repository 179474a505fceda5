"""The server's side of a round: the download goes out, one run of the protocol, the sum is opened, the sites are told.

With and without secure aggregation the same integers are summed in the same ring, over the same survivors: both give
the same model, bit for bit. Nothing here touches a hospital but through a transport.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.compression.half import run_half_round
from protocols.driver import run_round
from protocols.errors import (
    AggregateError,
    DecodeError,
    InputError,
    IsolationError,
    ReconstructionError,
    TooFewSurvivorsError,
)
from protocols.noise import NoisyCodec
from protocols.parameters import RoundParameters
from protocols.plain import run_plain_round
from protocols.result import Direction, FrameRecord, RoundResult, refusals
from protocols.roster import Ed25519Verifier, SignatureVerifier
from protocols.server.machine import ServerMachine
from protocols.stages import Stage
from protocols.transport import DEFAULT_PATIENCE, Patience, Transport
from securefed.channels import HalfServer
from securefed.compression import ChannelState, ServerChannel
from securefed.config import STAGES
from securefed.errors import RoundAbortedError
from securefed.model_file import vector_digest
from securefed.nodes.control import ControlStage, RefusedBySiteError, decode_reply, encode_request
from securefed.nodes.numbering import protocol_round, training_round
from securefed.run_folder import Arrays, ByteRow
from securefed.sum_terms import SumTerms

Vector = NDArray[np.float32]

_BEFORE_THE_SUM = ("AdvertiseKeys", "ShareKeys", "MaskedInputCollection")
"""Stages at which a site that is lost is not in the sum."""


@dataclass(frozen=True)
class OpenedRound:
    """What the server sees of a round.

    Attributes:
        mean_update: float32 or float64[d], unweighted mean of the survivors' updates.
        mean_score: Mean of their scores.
        mean_clamped: Mean share of coordinates that the hospitals clamped into the public range.
        survivors: Sites in the sum.
        dropouts: {site: stage} of the sites that were lost.
        rejected: {site: class of the error} of what the server did not accept.
        digest: SHA-256 (hex) of the opened integers (int64, little-endian).
        session: Session id (hex); zeros without secure aggregation.
        byte_rows: Every message.
    """

    mean_update: NDArray[np.floating[Any]]
    mean_score: float
    mean_clamped: float
    survivors: tuple[str, ...]
    dropouts: Mapping[str, str]
    rejected: Mapping[str, str]
    digest: str
    session: str
    byte_rows: tuple[ByteRow, ...]


class Simulated(Protocol):
    """What a simulation shows of its sites and a deployment does not."""

    def losses(self, number: int) -> Mapping[str, str]:
        """Return {site: stage} of the sites that a round is going to lose."""
        ...

    def memories(self) -> dict[str, Arrays]:
        """Return what the channel of each site remembers between rounds."""
        ...

    def restore(self, public: Arrays, memories: Mapping[str, Arrays], vector: Vector) -> None:
        """Put the channel of each site at a checkpoint."""
        ...


class Aggregator:
    """Runs the rounds of one federation at the server.

    Args:
        terms: The terms of the sums.
        transport: Reaches the sites.
        simulated: The sites, where they are simulated ones.
        patience: How long a stage waits.
        verifier: Checks signatures.
        attempt: How often the run was taken up again.

    Attributes:
        before_round: Called with (round, digest of the global model) before anything of a round is sent.
        before_opening: Called with (round, how many vectors are in its sum) before that sum is opened; in clear, where
            every vector is seen as it comes, with the fewest that may be in it, before anything is sent.
        opening: Called with (round, who is in its sum) after that, before the sum is opened; never in clear.
        opened_before: Called with (round, digest of the global model) once it has begun: who was in a sum that may have
            been opened over that model before, nobody where none was. Only they are asked under masks: a hospital helps
            to open no other sum over the model.
        refused: Called with (site, code, reason) where a site says after a round why it refused a part in it.
        closing_round: What `open_scores` has opened, None before.
    """

    def __init__(
        self,
        terms: SumTerms,
        transport: Transport,
        simulated: Simulated | None = None,
        *,
        patience: Patience = DEFAULT_PATIENCE,
        verifier: SignatureVerifier | None = None,
        attempt: int = 0,
    ) -> None:
        self._terms = terms
        self._transport = transport
        self._simulated = simulated
        self._patience = patience
        self._verifier = verifier or Ed25519Verifier()
        self._attempt = attempt
        self._updates = terms.channels.server()
        self._scores = terms.scoring_server()
        self.before_round: Callable[[int, str], None] = lambda _number, _digest: None
        self.before_opening: Callable[[int, int], None] = lambda _number, _survivors: None
        self.opening: Callable[[int, Sequence[str]], None] = lambda _number, _survivors: None
        self.opened_before: Callable[[int, str], Collection[str]] = lambda _number, _digest: ()
        self.refused: Callable[[str, str, str], None] = lambda _site, _code, _reason: None
        self.closing_round: OpenedRound | None = None
        self._closing = (0, b"")
        self._unclosed: set[str] = set()

    def open_round(self, number: int, vector: Vector) -> OpenedRound:
        """Run one round and return what it opened.

        Args:
            number: The round, from 1.
            vector: float32[d], the global model, sent to every site.

        Raises:
            RoundAbortedError: Too few sites were left; nothing was revealed.
        """
        self.before_round(number, vector_digest(vector))
        return self._open(self._updates, number, vector)

    def open_scores(self, number: int, vector: Vector) -> float:
        """Have a model scored without training and return the mean over the sites; the update is one zero."""
        self.before_round(number, vector_digest(vector))
        self.closing_round = self._open(self._scores, number, vector)
        return self.closing_round.mean_score

    def close_round(self, number: int, opened: OpenedRound, best: int) -> None:
        """Tell every site that a round was opened, over whom, and which round's model is the best so far.

        A site that cannot be reached finds out from the next download, or from `close_again` once it can.
        """
        self._close(protocol_round(number, self._attempt), opened.survivors, best)

    def close_again(self, reachable: Collection[str]) -> None:
        """Tell those of the sites that did not answer when the last round was closed and that can be reached by now.

        Only they are asked: waiting for a site that is gone would cost `grace` in every round.
        """
        again = self._unclosed & set(reachable)
        if again:
            self._send_closing(sorted(again))

    def channel_state(self) -> ChannelState:
        """Return what the sums need to go on after a restart, beside the global model."""
        return ChannelState(self._updates.state(), self._simulated.memories() if self._simulated else {})

    def restore(self, state: ChannelState, vector: Vector) -> None:
        """Go on from a state, with the global model that belongs to it."""
        if state.public:
            self._updates.restore(state.public, vector, known=self._simulated is not None)
        if self._simulated is not None:
            self._simulated.restore(state.public, state.private, vector)

    def _open(self, channel: ServerChannel | HalfServer, number: int, vector: Vector) -> OpenedRound:
        """One round: the model travels by the channel of the updates, the contributions by the given one."""
        lost = dict(self._simulated.losses(number)) if self._simulated else {}
        parameters = self._terms.parameters(channel.codec, protocol_round(number, self._attempt))
        masked = self._terms.config.secure_aggregation.enabled
        before = frozenset(self.opened_before(number, vector_digest(vector)) if masked else ())
        try:
            result = self._run(channel, parameters, self._updates.payload(vector), lost, before)
        except _NotOpenedError as error:
            self._close(parameters.round, None, 0)
            reached = {site: stage for site, stage in lost.items() if Stage(stage).rank <= Stage(error.stage).rank}
            rows, dropouts = _byte_rows(error.frames, number), {**error.dropouts, **reached}
            diverged = sorted(error.diverged & set(dropouts))
            raise RoundAbortedError(
                number,
                error.stage,
                str(error.__cause__),
                dropouts,
                rows,
                diverged,
                reached,
                before=before,
                isolating=error.isolating,
            ) from error.__cause__
        if channel is not self._updates:
            self._updates.scored(result.survivors)
        opened = channel.open(result)
        return OpenedRound(
            mean_update=opened.mean_update,
            mean_score=opened.mean_score,
            mean_clamped=opened.mean_clamped,
            survivors=result.survivors,
            dropouts=first_lost(lost, result.dropouts),
            rejected={rejection.client: type(rejection.error).__name__ for rejection in result.rejections},
            digest=hashlib.sha256(result.total.integers().astype("<i8", copy=False).data).hexdigest(),
            session=result.session_id.hex(),
            byte_rows=_byte_rows(result.frames, number),
        )

    def _run(
        self,
        channel: ServerChannel | HalfServer,
        parameters: RoundParameters,
        payload: bytes,
        lost: Mapping[str, str],
        before: frozenset[str],
    ) -> RoundResult:
        roster, transport = self._terms.roster, self._transport
        if self._terms.config.secure_aggregation.enabled:
            noisy = channel.codec if isinstance(channel.codec, NoisyCodec) else None
            left_out = set(self._terms.sites) - before if before else ()
            server = ServerMachine(
                parameters, roster, payload, verifier=self._verifier, excess_noise=noisy, left_out=left_out
            )
            number = training_round(parameters.round)

            def before_inputs() -> None:
                if noisy is not None:  # every vector is paid for: none is asked for that no sum can have
                    _require_all(before, server.dropouts)

            def before_unmasking(survivors: tuple[str, ...]) -> None:
                self.before_opening(number, len(survivors))
                self.opening(number, survivors)

            try:
                return run_round(server, transport, self._patience, before_unmasking, before_inputs)
            except (TooFewSurvivorsError, ReconstructionError, AggregateError) as error:
                stage = error.stage if isinstance(error, TooFewSurvivorsError) else "Unmasking"
                raise _NotOpenedError(stage, server.frames, server.dropouts, refusals(server.rejections)) from error
        try:
            _check_survivors(parameters, lost, len(roster))
            self.before_opening(training_round(parameters.round), parameters.min_survivors)
            if isinstance(channel, HalfServer):
                return run_half_round(channel.codec, parameters, roster, payload, transport, self._patience)
            return run_plain_round(parameters, roster, payload, transport, self._patience)
        except TooFewSurvivorsError as error:
            silent = () if error.survivors else self._terms.sites
            dropouts = dict.fromkeys(silent, error.stage)
            raise _NotOpenedError(error.stage, error.frames, dropouts, error.refused) from error

    def _close(self, protocol: int, survivors: Sequence[str] | None, best: int) -> None:
        """Tell every site how a round ended; one that cannot be reached finds out from the next download."""
        message = encode_request(
            ControlStage.CLOSE_ROUND,
            {"round": protocol, "opened": survivors is not None, "survivors": list(survivors or ()), "best": best},
        )
        self._closing, self._unclosed = (protocol, message), set(self._terms.sites)
        self._send_closing(self._terms.sites)

    def _send_closing(self, sites: Sequence[str]) -> None:
        protocol, message = self._closing
        replies, _ = self._transport.exchange(
            ControlStage.CLOSE_ROUND.value,
            dict.fromkeys(sites, message),
            round_id=protocol,
            patience=self._patience,
        )
        for site, reply in replies:
            self._unclosed.discard(site)
            try:
                decode_reply(ControlStage.CLOSE_ROUND, reply)
            except RefusedBySiteError as error:
                self.refused(site, error.code, error.reason)
            except DecodeError as error:
                self.refused(site, "message", str(error))


def _check_survivors(parameters: RoundParameters, lost: Mapping[str, str], members: int) -> None:
    """Give up where the same losses would end a round under masks, so that both paths take part in the same rounds.

    Exact on a complete graph; on a ring a round under masks can also end where one hospital's neighbours are lost.
    """
    left = parameters.clients
    for stage in STAGES:
        left -= sum(lost_at == stage for lost_at in lost.values())
        needed = parameters.min_survivors if stage in _BEFORE_THE_SUM else parameters.threshold
        if stage == Stage.CONSISTENCY_CHECK.value:
            needed = max(needed, parameters.quorum(members))
        if left < needed:
            raise TooFewSurvivorsError(stage, left, needed)


def _require_all(members: Collection[str], dropouts: Mapping[str, str]) -> None:
    """Give up where one of these sites was lost before its vector was asked for."""
    left = len(set(members) - set(dropouts))
    if left < len(members):
        raise TooFewSurvivorsError(Stage.SHARE_KEYS.value, left, len(members))


def first_lost(planned: Mapping[str, str], lost: Mapping[str, str]) -> dict[str, str]:
    """Return {site: stage} of both, the earlier one where they differ: who refuses first is not there to be lost."""
    both = {**lost, **planned}
    earlier = {site: stage for site, stage in lost.items() if Stage(stage).rank < Stage(both[site]).rank}
    return both | earlier


class _NotOpenedError(Exception):
    """A protocol round ended at `stage` without a sum, after `frames` had passed; its cause says why.

    Of the sites that refused, `diverged` holds those that refused their own contribution, as it is not finite, and
    `isolating` those that have helped to open a sum over other sites with the same model.
    """

    def __init__(
        self, stage: str, frames: Sequence[FrameRecord], dropouts: Mapping[str, str], refused: Mapping[str, int]
    ) -> None:
        super().__init__(stage)
        self.stage = stage
        self.frames = frames
        self.dropouts = dropouts
        self.diverged = {site for site, code in refused.items() if code == InputError.code}
        self.isolating = {site for site, code in refused.items() if code == IsolationError.code}


def _byte_rows(frames: Sequence[FrameRecord], number: int) -> tuple[ByteRow, ...]:
    ways = {Direction.UP: "upload", Direction.DOWN: "download"}
    return tuple(
        ByteRow(number, frame.client, ways[frame.direction], frame.stage, frame.kind.value, frame.bytes)
        for frame in frames
    )
