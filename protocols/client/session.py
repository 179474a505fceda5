"""What a client knows throughout one round, and what it works with in every round."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from protocols.entropy import Entropy
from protocols.parameters import RoundParameters
from protocols.participation import Participation
from protocols.policy import ClientPolicy
from protocols.roster import IdentityKey, Roster, SignatureVerifier
from protocols.secret_values import NoiseSeed
from protocols.session import PayloadDigest
from protocols.stages import ThreatModel
from protocols.vectors import EncodedVector


@dataclass(frozen=True, slots=True)
class RoundContext:
    """What a client's training gets to know about the round.

    Attributes:
        round: Round number.
        payload: The global model as this client received it.
        parameters: The round's parameters.
        client: This client's name.
        excess: Seeds of the components of noise that can be removed; the state erases them afterwards.
    """

    round: int
    payload: bytes | memoryview
    parameters: RoundParameters
    client: str
    excess: tuple[NoiseSeed, ...] = ()


Contribute = Callable[[RoundContext], EncodedVector]
"""Trains and encodes: called once a round, at MaskedInputCollection."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a client works with in every round; never part of its dumped state.

    Attributes:
        name: The client's name in the roster.
        identity: Its signing key.
        roster: All clients.
        policy: Its floors.
        contribute: Trains and encodes.
        entropy: Cryptographic source.
        verifier: Checks signatures.
        participation: The sums that this client has helped to open.
        digest: Hashes what it receives; None for `payload_digest`.
    """

    name: str
    identity: IdentityKey
    roster: Roster
    policy: ClientPolicy
    contribute: Contribute
    entropy: Entropy
    verifier: SignatureVerifier
    participation: Participation
    digest: PayloadDigest | None = None


@dataclass(frozen=True, slots=True)
class ClientSession:
    """What is fixed once a client has accepted a round.

    Attributes:
        parameters: The round's parameters.
        session_id: 32 bytes, computed from what this client received.
        position: Its position in the cohort.
        model_digest: 32 bytes; of the download. Sums of one digest are compared with each other.
    """

    parameters: RoundParameters
    session_id: bytes
    position: int
    model_digest: bytes

    @property
    def is_active(self) -> bool:
        """Whether signatures are made and checked."""
        return self.parameters.threat_model is ThreatModel.ACTIVE

    def apart(self) -> "ClientSession":
        """Return the session as one whose sum is compared with no other (M-24): this client's vector is constant."""
        return replace(self, model_digest=self.session_id)

    def name(self, position: int, roster: Roster) -> str:
        """Return the name of the client at a position."""
        return roster.names[self.parameters.cohort[position]]

    def names(self, positions: Iterable[int], roster: Roster) -> list[str]:
        """Return the names of the clients at positions."""
        return [self.name(position, roster) for position in positions]

    def identity_key(self, position: int, roster: Roster) -> bytes:
        """Return the pinned identity key of the client at a position."""
        return roster.key(self.parameters.cohort[position])
