"""Where attacks are played: a federation of real machines, and a server that may send them anything.

The clients run with the policy that hospitals have by default. The honest server machine is used as long as the
attacker behaves like it; from then on frames are made by hand.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Codec, FixedPointCodec
from protocols.entropy import Entropy
from protocols.errors import ProtocolError
from protocols.messages import Message, decode_message, encode_message
from protocols.messages.frames import M
from protocols.parameters import RoundParameters
from protocols.policy import ClientPolicy
from protocols.server.session import ExcessNoise
from protocols.simulator import DEFAULT_CONFIG, SimulatedFederation
from protocols.stages import Stage, ThreatModel

LENGTH = 61
"""Coordinates of the vectors that are played with."""

ANY_SIZE = 1 << 31


def _unchanged(name: str, frame: bytes) -> bytes:
    del name
    return frame


def _one(name: str, frame: bytes) -> Iterable[bytes]:
    del name
    return (frame,)


class Tap:
    """A source of randomness that keeps what it gave: a colluding client hands its draws to the server.

    Args:
        source: Where the bytes come from.
    """

    def __init__(self, source: Entropy) -> None:
        self._source = source
        self.draws: list[bytes] = []

    def __call__(self, length: int, /) -> bytes:
        """Return fresh bytes and keep them."""
        drawn = self._source(length)
        self.draws.append(drawn)
        return drawn


class Scene:
    """One federation and the transcript of what passed between it and the server.

    Args:
        clients: n.
        threat_model: Against whom the rounds protect.
        codec: How updates are encoded.
        weights: {name: weight} for a weighted codec.
        policy: The clients' floors; the default of the installed build, with the configuration pinned.
        choices: Further parameters of the rounds.
        seed: Makes identities, entropy and updates.
        excess_noise: The codec, where its excess noise is removed.
    """

    def __init__(
        self,
        clients: int,
        threat_model: ThreatModel = ThreatModel.ACTIVE,
        *,
        codec: Codec | None = None,
        weights: Mapping[str, int] | None = None,
        policy: ClientPolicy | None = None,
        choices: Mapping[str, Any] | None = None,
        seed: bytes = b"attack",
        excess_noise: ExcessNoise | None = None,
    ) -> None:
        codec = codec or FixedPointCodec([LENGTH], [0.5], 16)
        self.federation = SimulatedFederation(
            clients,
            codec,
            threat_model,
            policy or default_policy(codec, threat_model),
            weights,
            choices or {},
            seed,
            excess_noise,
        )
        self.names = self.federation.names
        self.taps = {name: Tap(source) for name, source in self.federation.entropy.items()}
        self.federation.entropy = dict(self.taps)
        self.federation.machines = {name: self.federation.machine(name) for name in self.names}
        self.server = self.federation.server()
        self.transcript: dict[tuple[Stage, str], tuple[bytes, bytes]] = {}
        """{(stage, client): (request, reply)} of all that was played."""
        self.pending: Mapping[str, bytes] = {}
        """The honest requests of the stage that is being played."""
        self._next = 0

    @property
    def parameters(self) -> RoundParameters:
        """The parameters of the honest round."""
        return self.server.parameters

    def play(self, until: Stage | None = None, *, lost: Mapping[str, Stage] | None = None) -> None:
        """Run the honest round up to a stage, or to its end, without the clients that are lost from some stage on."""
        for stage in self.server.stages:
            if stage is until:
                return
            if stage.rank >= self._next:
                self.step(stage, lost=lost)

    def step(
        self,
        stage: Stage,
        *,
        lost: Mapping[str, Stage] | None = None,
        request: Callable[[str, bytes], bytes] = _unchanged,
        replies: Callable[[str, bytes], Iterable[bytes]] = _one,
    ) -> None:
        """Run one stage of the honest round.

        Args:
            stage: The stage whose turn it is.
            lost: {client: stage from which on it is gone}.
            request: Makes of a client's request what the client gets.
            replies: Makes of a client's reply what reaches the server.
        """
        gone = {name for name, since in (lost or {}).items() if since.rank <= stage.rank}
        self.pending = self.server.requests(stage.value)
        for name, frame in self.pending.items():
            if name in gone:
                continue
            delivered = request(name, frame)
            reply = self.federation.machines[name].answer(stage.value, delivered)
            self.transcript[stage, name] = delivered, reply
            for passed in replies(name, reply):
                self.server.absorb(stage.value, {name: passed})
        self.server.conclude(stage.value)
        self._next = stage.rank + 1

    def ask(self, name: str, stage: Stage, message: Message) -> bytes:
        """Send a message in the honest session and return the reply's frame.

        Raises:
            ProtocolError: The client refuses.
        """
        return self.send(name, stage, encode_message(message, self.parameters.round, self.server.session_id))

    def send(self, name: str, stage: Stage, frame: bytes) -> bytes:
        """Send a frame and return the reply's frame.

        Raises:
            ProtocolError: The client refuses.
        """
        reply = self.federation.machines[name].handle(stage.value, frame)
        self.transcript[stage, name] = frame, reply
        return reply

    def tap(self, name: str, source: Entropy) -> None:
        """Start a client anew with another source of randomness, listened to."""
        self.federation.entropy[name] = self.taps[name] = Tap(source)
        self.federation.machines[name] = self.federation.machine(name)

    def replace(self, name: str, **changes: Any) -> None:
        """Give a client another policy, contribution or record of sums."""
        self.federation.machines[name] = self.federation.machine(name, **changes)

    def begin(self, number: int, **choices: Any) -> None:
        """Turn to another round: a new server machine and a new transcript."""
        self.server = self.federation.server(number, **choices)
        self.restart()

    def restart(self) -> None:
        """Forget the transcript, for another server machine."""
        self.transcript = {}
        self._next = 0

    def ask_all(self, stage: Stage, message: Callable[[str], Message]) -> tuple[dict[str, bytes], list[ProtocolError]]:
        """Send every client a message of its own; return the replies and the refusals."""
        replies: dict[str, bytes] = {}
        refusals: list[ProtocolError] = []
        for name in self.names:
            try:
                replies[name] = self.ask(name, stage, message(name))
            except ProtocolError as error:
                refusals.append(error)
        return replies, refusals

    def sent(self, kind: type[M], stage: Stage, name: str) -> M:
        """Return what a client sent at a stage."""
        return read(kind, self.transcript[stage, name][1])

    def received(self, kind: type[M], stage: Stage, name: str) -> M:
        """Return what a client was sent at a stage."""
        return read(kind, self.transcript[stage, name][0])

    def secret_of(self, name: str) -> NDArray[np.int64]:
        """Return int64 [d], the encoded vector of a client: what the adversary wants."""
        return self.federation.expected([name], self.parameters.round)


def read(kind: type[M], frame: bytes) -> M:
    """Return the message in a frame."""
    return decode_message(kind, frame, ANY_SIZE)[1]


def default_policy(codec: Codec, threat_model: ThreatModel) -> ClientPolicy:
    """Return the policy that hospitals have unless they change it, with configuration and encoding pinned."""
    return ClientPolicy(
        threat_models=frozenset({threat_model}), config_digest=DEFAULT_CONFIG, encoding_digest=codec.digest
    )


def first_refusal(refusals: list[ProtocolError]) -> ProtocolError:
    """Return the error that stands for all of them.

    Raises:
        LookupError: Nobody refused.
    """
    if not refusals:
        raise LookupError("nobody refused and nothing was gained: the attack was not played to its end")
    return refusals[0]
