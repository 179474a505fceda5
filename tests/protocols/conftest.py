import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from protocols import (
    ClientMachine,
    ClientPolicy,
    FixedPointCodec,
    IdentityKey,
    InProcessTransport,
    PlainClient,
    RememberingVerifier,
    ReproducibleEntropy,
    Roster,
    RoundContext,
    RoundParameters,
    RoundResult,
    ServerMachine,
    ThreatModel,
    run_plain_round,
    run_round,
)

CONFIG = hashlib.sha256(b"configuration").digest()
PAYLOAD = b"the global model"


@dataclass
class Cohort:
    """n clients with fixed identities and updates, and everything needed to run rounds with them."""

    clients: int
    codec: FixedPointCodec
    threat_model: ThreatModel = ThreatModel.ACTIVE
    policy: ClientPolicy | None = None
    weights: Mapping[str, int] | None = None
    choices: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = [f"site-{i:03d}" for i in range(self.clients)]
        self.entropy = {name: ReproducibleEntropy(hashlib.sha256(name.encode()).digest()) for name in self.names}
        self.identities = {name: IdentityKey.generate(self.entropy[name]) for name in self.names}
        self.roster = Roster.of(self.identities)
        self.verifier = RememberingVerifier()
        if self.policy is None:
            self.policy = ClientPolicy(threat_models=frozenset(ThreatModel), complete_up_to=2, min_sigma=0)
        self.machines = {name: self.machine(name) for name in self.names}

    def update(self, name: str, number: int = 1) -> np.ndarray:
        rng = np.random.default_rng([self.names.index(name), number])
        limits = np.repeat(self.codec.ranges, self.codec.lengths)
        return (rng.uniform(-1, 1, self.codec.num_values) * limits).astype(np.float32)

    def contribute(self, context: RoundContext):
        rounding = np.random.default_rng([self.names.index(context.client), context.round, 7])
        weight = None if self.weights is None else self.weights[context.client]
        counters = [1] * len(self.codec.max_counters)
        return self.codec.encode(self.update(context.client, context.round), rounding, weight=weight, counters=counters)

    def machine(self, name: str, **changes) -> ClientMachine:
        return ClientMachine(
            changes.get("identity", self.identities[name]),
            self.roster,
            changes.get("policy", self.policy),
            changes.get("contribute", self.contribute),
            self.entropy[name],
            verifier=self.verifier,
        )

    def parameters(self, number: int = 1, **choices) -> RoundParameters:
        return RoundParameters.choose(
            round=number,
            roster=self.roster,
            codec=self.codec,
            config_digest=CONFIG,
            **{"threat_model": self.threat_model, **self.choices, **choices},
        )

    def server(self, number: int = 1, payload: bytes = PAYLOAD, **choices) -> ServerMachine:
        return ServerMachine(self.parameters(number, **choices), self.roster, payload, verifier=self.verifier)

    def run(self, drops: Mapping[str, str] | None = None, number: int = 1) -> RoundResult:
        schedule = {(name, number): stage for name, stage in (drops or {}).items()}
        return run_round(self.server(number), InProcessTransport(self.machines, schedule))

    def run_plain(self, drops: Mapping[str, str] | None = None, number: int = 1) -> RoundResult:
        schedule = {(name, number): stage for name, stage in (drops or {}).items()}
        clients = {name: PlainClient(name, self.contribute) for name in self.names}
        return run_plain_round(self.parameters(number), self.roster, PAYLOAD, InProcessTransport(clients, schedule))

    def expected(self, survivors, number: int = 1) -> np.ndarray:
        """The plain sum of the survivors' encodings."""
        context = lambda name: RoundContext(number, PAYLOAD, self.parameters(number), name)  # noqa: E731
        return sum(self.contribute(context(name)).lanes(62).astype(np.int64) for name in survivors)


@pytest.fixture
def cohort() -> Callable[..., Cohort]:
    def make(clients: int = 5, length: int = 200, **changes) -> Cohort:
        codec = changes.pop("codec", FixedPointCodec([length], [0.5], 16))
        return Cohort(clients, codec, **changes)

    return make
