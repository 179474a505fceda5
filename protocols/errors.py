"""What a caller of the protocol may have to react to.

ProtocolError
    DecodeError                 bytes are not the message they should be: drop the sender
    InputError                  a contribution is refused before it is encoded: fix the training
        NonFiniteError, OutOfRangeError, ShapeError, DtypeError, WeightError, NoiseError
    ParameterError              the parameters of a round cannot be meant or cannot be safe: choose others
        RingOverflowError       the sum could wrap around: more ring bits, fewer clients or fewer value bits
        NoSafePlanError         no neighbours and threshold reach the stated failure probabilities
    PolicyError                 the server asks for less protection than this client accepts
    StageOrderError             a message for another stage, a repeated round or a replay: ignored, nothing was spent
    SessionMismatchError        model, configuration or parameters differ between the two ends
    AuthenticationError         a signature or a sealed share is not from whom it should be
    SurvivorSetError            the survivor set is inconsistent: nothing is revealed
    TooFewSurvivorsError        the round is over, nothing was revealed: try again with more clients
    ReconstructionError         the shares of one client are unusable or do not fit together: it dealt wrongly
    AggregateError              the opened total is impossible: somebody's pads did not cancel
    SpentError                  a one-time secret would be used twice: a fault of the calling program
    IsolationError              the sum would differ from earlier sums by few clients
    RefusedError                the other end answered with a refusal

Every class has a `code`, which is all that travels to the other end. No error carries a secret, a value of an update or
free text from the wire.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from protocols.result import FrameRecord


class ProtocolError(Exception):
    """Base of everything that `protocols` raises on purpose."""

    code: ClassVar[int] = 1


class DecodeError(ProtocolError):
    """Bytes are not the message they should be; `reason` says what is wrong with them."""

    code: ClassVar[int] = 2

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot decode: {reason}")
        self.reason = reason


class InputError(ProtocolError):
    """A contribution is refused before anything of it is encoded."""

    code: ClassVar[int] = 3


class NonFiniteError(InputError):
    """The update holds NaN or infinity; `count` coordinates, the first at `first`."""

    def __init__(self, count: int, first: int) -> None:
        super().__init__(f"{count} coordinates are NaN or infinite, the first at {first}: training diverged")
        self.count = count
        self.first = first


class OutOfRangeError(InputError):
    """`count` coordinates lie outside their public range, the first at `first`."""

    def __init__(self, count: int, first: int) -> None:
        super().__init__(f"{count} coordinates are outside their public range, the first at {first}: saturate() them")
        self.count = count
        self.first = first


class ShapeError(InputError):
    """The vector has another shape than the round's."""

    def __init__(self, expected: tuple[int, ...], actual: tuple[int, ...]) -> None:
        super().__init__(f"expected shape {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


class DtypeError(InputError):
    """The vector has another type than the round's."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


class WeightError(InputError):
    """A weight or a counter is not an integer within 0 or 1 and its public maximum."""

    def __init__(self, name: str, maximum: int) -> None:
        super().__init__(f"{name} must be an integer up to {maximum}, weights at least 1 and counters at least 0")
        self.name = name
        self.maximum = maximum


class NoiseError(InputError):
    """A vector without noise in a round that needs it, or with noise in a round that has no room for it."""

    def __init__(self, *, needed: bool) -> None:
        super().__init__("the vector has no noise and the round needs it" if needed else "the round has no noise")
        self.needed = needed


class ParameterError(ProtocolError):
    """A parameter cannot be meant; `name` says which one."""

    code: ClassVar[int] = 4

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class RingOverflowError(ParameterError):
    """The sum of all clients could wrap around in a ring of `ring_bits` bits; `required` bits would do."""

    code: ClassVar[int] = 5

    def __init__(self, ring_bits: int, required: int) -> None:
        super().__init__("ring_bits", f"the sum needs {required} bits, the ring has {ring_bits}")
        self.ring_bits = ring_bits
        self.required = required


class NoSafePlanError(ParameterError):
    """No graph and threshold meet the stated corruption, dropout and failure probabilities."""

    code: ClassVar[int] = 6


class PolicyError(ProtocolError):
    """The server offers `offered` where this client's floor (or ceiling) is `required`."""

    code: ClassVar[int] = 7

    def __init__(self, name: str, offered: object, required: object) -> None:
        super().__init__(f"{name} is {offered}, this client accepts {required}")
        self.name = name
        self.offered = offered
        self.required = required


class StageOrderError(ProtocolError):
    """A message for another stage than the expected one, a repeated round or a replay."""

    code: ClassVar[int] = 8

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


class SessionMismatchError(ProtocolError):
    """The two ends do not have the same parameters, configuration and model; `peer` is the other end."""

    code: ClassVar[int] = 9

    def __init__(self, peer: str) -> None:
        super().__init__(f"{peer} is in another session: its model, configuration or parameters differ")
        self.peer = peer


class AuthenticationError(ProtocolError):
    """Something is not from whom it should be: `what` of `peer`."""

    code: ClassVar[int] = 10

    def __init__(self, what: str, peer: str) -> None:
        super().__init__(f"the {what} of {peer} does not verify")
        self.what = what
        self.peer = peer


class SurvivorSetError(ProtocolError):
    """The survivor set that the server shows contradicts what this client knows or has signed."""

    code: ClassVar[int] = 11


class TooFewSurvivorsError(ProtocolError):
    """Fewer clients are left at `stage` than the round needs; nothing was revealed.

    Where enough are left and too few of them hold shares of one client, as on a ring its neighbours alone do,
    `shares_of` is that client, which is accused of nothing, and `survivors` counts those. In clear, `refused` holds
    {client: class of its reason} of those that answered with a refusal, and `frames` the accounts of what had been
    sent.
    """

    code: ClassVar[int] = 12

    def __init__(
        self,
        stage: str,
        survivors: int,
        required: int,
        refused: Mapping[str, int] | None = None,
        frames: Iterable["FrameRecord"] = (),
        shares_of: str = "",
    ) -> None:
        who = f"of the clients that hold shares of {shares_of}, {survivors}" if shares_of else f"{survivors} clients"
        super().__init__(f"{who} are left at {stage}, {required} are needed: nothing was revealed")
        self.stage = stage
        self.shares_of = shares_of
        self.survivors = survivors
        self.required = required
        self.refused = dict(refused or {})
        self.frames = tuple(frames)


class ReconstructionError(ProtocolError):
    """The shares that `owner` dealt do not open at too many holders, or rebuild nothing that fits what it published."""

    code: ClassVar[int] = 13

    def __init__(self, owner: str) -> None:
        super().__init__(f"the shares that {owner} dealt are unusable: the sum stays masked")
        self.owner = owner


class AggregateError(ProtocolError):
    """The opened total holds values that no sum of valid inputs can have; `count` coordinates."""

    code: ClassVar[int] = 14

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} coordinates of the total are impossible: some client's pads did not cancel")
        self.count = count


class SpentError(ProtocolError):
    """A one-time secret was asked for twice or after it was erased."""

    code: ClassVar[int] = 15

    def __init__(self, what: str) -> None:
        super().__init__(f"the {what} is spent")
        self.what = what


class IsolationError(ProtocolError):
    """A sum over this cohort, combined with earlier sums, would isolate fewer clients than the floor."""

    code: ClassVar[int] = 16

    def __init__(self, clients: tuple[str, ...], floor: int) -> None:
        super().__init__(f"this cohort and earlier ones together would single out {', '.join(clients)}")
        self.clients = clients
        self.floor = floor


class RefusedError(ProtocolError):
    """The other end refused; `refusal_code` is the class of its reason, `subject` whom it names, if anybody."""

    code: ClassVar[int] = 17

    def __init__(self, refusal_code: int, subject: str | None) -> None:
        super().__init__(f"refused with code {refusal_code}" + (f", naming {subject}" if subject else ""))
        self.refusal_code = refusal_code
        self.subject = subject
