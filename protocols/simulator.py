"""A federation in memory that can drop, delay, duplicate, alter or invent any message: for tests and for attacks.

The machines are the real ones. Interceptors stand between them and the server, where an active adversary stands.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocols.client.machine import ClientMachine
from protocols.client.session import RoundContext
from protocols.codec import Codec, FixedPointCodec
from protocols.driver import run_round
from protocols.entropy import Entropy, ReproducibleEntropy
from protocols.messages import Message, decode_message, encode_message
from protocols.parameters import RoundParameters
from protocols.plain import PlainClient, run_plain_round
from protocols.policy import ClientPolicy
from protocols.result import RoundResult
from protocols.roster import IdentityKey, RememberingVerifier, Roster
from protocols.server.machine import ServerMachine
from protocols.server.session import ExcessNoise
from protocols.stages import Stage, ThreatModel
from protocols.transport import DEFAULT_PATIENCE, Exchanged, Handler, InProcessTransport, Patience, Replies
from protocols.vectors import EncodedVector

M = TypeVar("M", bound=Message)

DEFAULT_CONFIG = hashlib.sha256(b"a simulated configuration").digest()
DEFAULT_PAYLOAD = b"a simulated global model"


class Interceptor:
    """Sees every frame on its way and decides what arrives; the base class passes everything on."""

    def request(self, stage: str, client: str, frame: bytes) -> Iterable[bytes]:
        """Return what reaches the client instead of a request: nothing drops it, two copies repeat it."""
        del stage, client
        return (frame,)

    def reply(self, stage: str, client: str, frame: bytes) -> Iterable[bytes]:
        """Return what reaches the server instead of a reply."""
        del stage, client
        return (frame,)

    def invent(self, stage: str) -> Iterable[tuple[str, bytes]]:
        """Return (client, frame) that reach the server at the end of a stage without anybody having sent them."""
        del stage
        return ()


class Recorder(Interceptor):
    """Keeps a transcript: (stage, client, direction, frame) of all that passed."""

    def __init__(self) -> None:
        self.transcript: list[tuple[str, str, str, bytes]] = []

    def request(self, stage: str, client: str, frame: bytes) -> Iterable[bytes]:
        """Keep and pass on."""
        self.transcript.append((stage, client, "down", frame))
        return (frame,)

    def reply(self, stage: str, client: str, frame: bytes) -> Iterable[bytes]:
        """Keep and pass on."""
        self.transcript.append((stage, client, "up", frame))
        return (frame,)

    def find(self, stage: str, client: str, direction: str) -> bytes:
        """Return the first frame of a client at a stage.

        Raises:
            KeyError: There is none.
        """
        for seen_stage, name, way, frame in self.transcript:
            if (seen_stage, name, way) == (stage, client, direction):
                return frame
        raise KeyError((stage, client, direction))


class Alter(Interceptor):
    """Changes the frames of one stage and direction, of one client or of all.

    Args:
        stage: Name of the stage.
        direction: "down" (requests) or "up" (replies).
        change: Takes a frame, returns what arrives instead: one frame, several, or none.
        client: Whose frames; None for everybody's.
    """

    def __init__(
        self, stage: str, direction: str, change: Callable[[bytes], bytes | Sequence[bytes]], client: str | None = None
    ) -> None:
        self._stage, self._direction, self._change, self._client = stage, direction, change, client

    def request(self, stage: str, client: str, frame: bytes) -> Iterable[bytes]:
        """Change a request, or pass it on."""
        return self._apply(stage, client, "down", frame)

    def reply(self, stage: str, client: str, frame: bytes) -> Iterable[bytes]:
        """Change a reply, or pass it on."""
        return self._apply(stage, client, "up", frame)

    def _apply(self, stage: str, client: str, direction: str, frame: bytes) -> Iterable[bytes]:
        if (stage, direction) != (self._stage, self._direction) or self._client not in (None, client):
            return (frame,)
        changed = self._change(frame)
        return (changed,) if isinstance(changed, bytes) else changed


def rewrite(frame: bytes, kind: type[M], change: Callable[[M], M]) -> bytes:
    """Return a frame with its message changed and its header kept.

    Raises:
        DecodeError: The frame holds no such message.
    """
    header, message = decode_message(kind, frame, len(frame))
    return encode_message(change(message), header.round, header.session_id)


class InterceptedTransport:
    """An in-process transport with interceptors between the two ends.

    Args:
        clients: {name: handler}.
        interceptors: Applied in order to requests and to replies.
        drops: As for `InProcessTransport`.
    """

    def __init__(
        self,
        clients: Mapping[str, Handler],
        interceptors: Sequence[Interceptor],
        drops: Mapping[tuple[str, int], str] | None = None,
    ) -> None:
        self._clients = dict(clients)
        self._interceptors = tuple(interceptors)
        self._plain = InProcessTransport({name: _Relay(name, self) for name in clients}, drops)
        self._pending: dict[str, list[bytes]] = {}

    def nodes(self) -> Collection[str]:
        """Return the clients' names."""
        return self._plain.nodes()

    def exchange(self, stage: str, requests: Mapping[str, bytes], *, round_id: int, patience: Patience) -> Exchanged:
        """Carry one stage through all interceptors."""
        replies, failures = self._plain.exchange(stage, requests, round_id=round_id, patience=patience)
        return self._deliver(stage, replies), failures

    def close(self) -> None:
        """Nothing is held."""

    def relay(self, stage: str, name: str, request: bytes) -> bytes:
        """Let a request through the interceptors to its client, and the replies back; they are delivered later."""
        self._pending[name] = []
        for delivered in self._pass(stage, name, (request,), "request"):
            answer = self._clients[name].answer(stage, delivered)
            self._pending[name].extend(self._pass(stage, name, (answer,), "reply"))
        return b""

    def _pass(self, stage: str, name: str, frames: Iterable[bytes], way: str) -> list[bytes]:
        current = list(frames)
        for interceptor in self._interceptors:
            step = interceptor.request if way == "request" else interceptor.reply
            current = [passed for frame in current for passed in step(stage, name, frame)]
        return current

    def _deliver(self, stage: str, replies: Replies) -> Replies:
        for name, _ in replies:
            for frame in self._pending.pop(name):
                yield name, frame
        for interceptor in self._interceptors:
            yield from interceptor.invent(stage)


class _Relay:
    """The client's place in the inner transport."""

    def __init__(self, name: str, transport: InterceptedTransport) -> None:
        self._name, self._transport = name, transport

    def answer(self, stage: str, data: bytes) -> bytes:
        return self._transport.relay(stage, self._name, data)


@dataclass
class SimulatedFederation:
    """n clients with reproducible identities and updates, and everything needed to run rounds with them.

    Attributes:
        clients: n.
        codec: How updates are encoded. Updates are made for the fixed-point codec; with another one the machines need a
            contribution of their own.
        threat_model: Against whom.
        policy: Every client's floors. The default accepts both threat models and graphs of any degree, as small
            simulations need.
        weights: {name: weight} for a weighted codec.
        choices: Further arguments of `RoundParameters.choose`.
        seed: Makes identities, entropy and updates; two federations of one seed behave the same.
        excess_noise: The codec of rounds whose excess noise is removed.
    """

    clients: int
    codec: Codec = field(default_factory=lambda: FixedPointCodec([200], [0.5], 16))
    threat_model: ThreatModel = ThreatModel.ACTIVE
    policy: ClientPolicy = field(
        default_factory=lambda: ClientPolicy(
            threat_models=frozenset(ThreatModel), min_corrupt=0, complete_up_to=2, min_sigma=None
        )
    )
    weights: Mapping[str, int] | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    seed: bytes = b"simulation"
    excess_noise: ExcessNoise | None = None

    def __post_init__(self) -> None:
        self.names = [f"site-{i:03d}" for i in range(self.clients)]
        self.entropy: dict[str, Entropy] = {
            name: ReproducibleEntropy(hashlib.sha256(self.seed + name.encode()).digest()) for name in self.names
        }
        self.identities = {name: IdentityKey.generate(self.entropy[name]) for name in self.names}
        self.roster = Roster.of(self.identities)
        self.verifier = RememberingVerifier()
        self.machines = {name: self.machine(name) for name in self.names}

    def update(self, name: str, number: int = 1) -> NDArray[np.float32]:
        """Return a client's update of a round, float32 [d], uniform over the codec's ranges."""
        rng = np.random.default_rng([self.names.index(name), number])
        codec = self._fixed_point
        limits = np.repeat(codec.ranges, codec.lengths)
        update: NDArray[np.float32] = (rng.uniform(-1, 1, codec.num_values) * limits).astype(np.float32)
        return update

    def contribute(self, context: RoundContext) -> EncodedVector:
        """Encode the update of context.client: the same however often it is asked for."""
        rounding = np.random.default_rng([self.names.index(context.client), context.round, 7])
        weight = None if self.weights is None else self.weights[context.client]
        codec = self._fixed_point
        counters = [1] * len(codec.max_counters)
        return codec.encode(self.update(context.client, context.round), rounding, weight=weight, counters=counters)

    @property
    def _fixed_point(self) -> FixedPointCodec:
        if not isinstance(self.codec, FixedPointCodec):
            raise TypeError("updates are made for the fixed-point codec; give the machines a contribution of their own")
        return self.codec

    def machine(self, name: str, **changes: Any) -> ClientMachine:
        """Return a new machine of a client; `changes` replace identity, roster, policy, contribute or participation."""
        return ClientMachine(
            changes.get("identity", self.identities[name]),
            changes.get("roster", self.roster),
            changes.get("policy", self.policy),
            changes.get("contribute", self.contribute),
            self.entropy[name],
            verifier=self.verifier,
            participation=changes.get("participation"),
        )

    def parameters(self, number: int = 1, **choices: Any) -> RoundParameters:
        """Return the parameters of a round."""
        arguments = {
            "roster": self.roster,
            "codec": self.codec,
            "config_digest": DEFAULT_CONFIG,
            "threat_model": self.threat_model,
        }
        return RoundParameters.choose(round=number, **{**arguments, **self.choices, **choices})

    def server(self, number: int = 1, payload: bytes = DEFAULT_PAYLOAD, **choices: Any) -> ServerMachine:
        """Return a server for a round."""
        return ServerMachine(
            self.parameters(number, **choices),
            self.roster,
            payload,
            verifier=self.verifier,
            excess_noise=self.excess_noise,
        )

    def transport(
        self, *interceptors: Interceptor, drops: Mapping[str, str] | None = None, number: int = 1
    ) -> InterceptedTransport:
        """Return a transport to the machines with {name: stage} lost."""
        schedule = {(name, number): stage for name, stage in (drops or {}).items()}
        return InterceptedTransport(self.machines, interceptors, schedule)

    def run(
        self,
        *interceptors: Interceptor,
        drops: Mapping[str, str] | None = None,
        number: int = 1,
        server: ServerMachine | None = None,
    ) -> RoundResult:
        """Run one round to its end.

        Raises:
            ProtocolError: As `run_round`.
        """
        return run_round(server or self.server(number), self.transport(*interceptors, drops=drops, number=number))

    def run_until(self, stage: Stage, *interceptors: Interceptor, server: ServerMachine) -> dict[str, bytes]:
        """Run a round up to a stage and return that stage's requests, unsent."""
        transport = self.transport(*interceptors)
        for current in server.stages:
            requests = server.requests(current.value)
            if current is stage:
                return requests
            replies, _ = transport.exchange(
                current.value, requests, round_id=server.parameters.round, patience=DEFAULT_PATIENCE
            )
            for client, reply in replies:
                server.absorb(current.value, {client: reply})
            server.conclude(current.value)
        return {}

    def run_plain(self, drops: Mapping[str, str] | None = None, number: int = 1) -> RoundResult:
        """Run the same round without secure aggregation."""
        schedule = {(name, number): stage for name, stage in (drops or {}).items()}
        clients = {name: PlainClient(name, self.contribute) for name in self.names}
        transport = InProcessTransport(clients, schedule)
        return run_plain_round(self.parameters(number), self.roster, DEFAULT_PAYLOAD, transport)

    def expected(self, survivors: Iterable[str], number: int = 1) -> NDArray[np.int64]:
        """Return int64 [d], the plain sum of the survivors' encodings: what the opened total must equal."""
        parameters = self.parameters(number)
        total = np.zeros(self.codec.vector_length, dtype=np.int64)
        for name in survivors:
            context = RoundContext(number, DEFAULT_PAYLOAD, parameters, name)
            total += self.contribute(context).lanes(62).astype(np.int64)
        return total
