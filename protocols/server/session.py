"""What the server knows throughout one round."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.parameters import RoundParameters
from protocols.roster import Roster, SignatureVerifier
from protocols.secret_values import NoiseSeed
from protocols.stages import ThreatModel


class ExcessNoise(Protocol):
    """What the server needs to know of a noisy codec."""

    def component(self, component: int, seed: NoiseSeed) -> NDArray[np.int64]:
        """Return int64 [d], the noise of a component, as its client added it."""
        ...


@dataclass(frozen=True, slots=True)
class ServerSession:
    """One round at the server.

    Attributes:
        parameters: The round's parameters.
        roster: All clients.
        payload: The global model's bytes.
        session_id: 32 bytes.
        verifier: Checks signatures.
        excess_noise: Expands the seeds of noise that is removed; None where none is.
    """

    parameters: RoundParameters
    roster: Roster
    payload: bytes
    session_id: bytes
    verifier: SignatureVerifier
    excess_noise: ExcessNoise | None = None

    @property
    def is_active(self) -> bool:
        """Whether signatures are made and checked."""
        return self.parameters.threat_model is ThreatModel.ACTIVE

    @property
    def quorum(self) -> int:
        """Signatures over the survivor set that clients want to see."""
        return self.parameters.quorum(len(self.roster))

    def name(self, position: int) -> str:
        """Return the name of the client at a position."""
        return self.roster.names[self.parameters.cohort[position]]

    def identity_key(self, position: int) -> bytes:
        """Return the pinned identity key of the client at a position."""
        return self.roster.key(self.parameters.cohort[position])
