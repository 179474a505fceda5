"""Secure aggregation: ring codec, pads, shares, keys, messages, client and server state machines (SPEC.md)."""

from protocols.client.machine import ClientMachine
from protocols.client.session import Contribute, RoundContext
from protocols.codec import Codec, FixedPointCodec
from protocols.driver import run_round
from protocols.entropy import Entropy, ReproducibleEntropy, system_entropy
from protocols.errors import (
    AggregateError,
    AuthenticationError,
    DecodeError,
    InputError,
    IsolationError,
    NoSafePlanError,
    ParameterError,
    PolicyError,
    ProtocolError,
    ReconstructionError,
    RefusedError,
    RingOverflowError,
    SessionMismatchError,
    SpentError,
    StageOrderError,
    SurvivorSetError,
    TooFewSurvivorsError,
)
from protocols.messages import FrameKind
from protocols.parameters import RoundParameters, default_corrupt
from protocols.plain import PlainClient, run_plain_round
from protocols.policy import ClientPolicy
from protocols.result import Direction, FrameRecord, Rejection, RoundResult
from protocols.roster import IdentityKey, IdentitySeed, RememberingVerifier, Roster
from protocols.server.machine import ServerMachine
from protocols.stages import Stage, ThreatModel
from protocols.transport import Handler, InProcessTransport, Patience, Transport
from protocols.vectors import Aggregate, EncodedVector

__all__ = [
    "Aggregate",
    "AggregateError",
    "AuthenticationError",
    "ClientMachine",
    "ClientPolicy",
    "Codec",
    "Contribute",
    "DecodeError",
    "Direction",
    "EncodedVector",
    "Entropy",
    "FixedPointCodec",
    "FrameKind",
    "FrameRecord",
    "Handler",
    "IdentityKey",
    "IdentitySeed",
    "InProcessTransport",
    "InputError",
    "IsolationError",
    "NoSafePlanError",
    "ParameterError",
    "Patience",
    "PlainClient",
    "PolicyError",
    "ProtocolError",
    "ReconstructionError",
    "RefusedError",
    "Rejection",
    "RememberingVerifier",
    "ReproducibleEntropy",
    "RingOverflowError",
    "Roster",
    "RoundContext",
    "RoundParameters",
    "RoundResult",
    "ServerMachine",
    "SessionMismatchError",
    "SpentError",
    "Stage",
    "StageOrderError",
    "SurvivorSetError",
    "ThreatModel",
    "TooFewSurvivorsError",
    "Transport",
    "default_corrupt",
    "run_plain_round",
    "run_round",
    "system_entropy",
]
