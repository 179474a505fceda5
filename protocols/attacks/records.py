"""What an attack is, how it can end, and what is reported of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How an attack ended against the installed build.

    REFUSED: a check stopped it by name. HARMLESS: it ran to its end and the adversary holds nothing that it should not.
    REPORTED: it cannot be prevented, but the build names it to those it concerns. BROKEN: the adversary got what it
    wanted.
    """

    REFUSED = "refused"
    HARMLESS = "harmless"
    REPORTED = "reported"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """How one attack ended.

    Attributes:
        outcome: The class of endings.
        evidence: One line: what was tried and what came of it.
    """

    outcome: Outcome
    evidence: str


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack that can be run.

    Attributes:
        id: Family and variant, for example `A3b`: `A3` is the family.
        title: What is attacked, in a few words.
        action: What the attacker does, in one line.
        expected: How it must end.
        run: Plays it with real machines.
    """

    id: str
    title: str
    action: str
    expected: Outcome
    run: Callable[[], Finding]

    @property
    def family(self) -> str:
        """The id without the letter of the variant."""
        return self.id.rstrip("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class AttackReport:
    """One line of the table that a run of the catalogue gives.

    Attributes:
        id: Family and variant.
        title: What is attacked.
        action: What the attacker did.
        expected: How it had to end.
        outcome: How it ended.
        evidence: What came of it.
        seconds: How long it took.
    """

    id: str
    title: str
    action: str
    expected: Outcome
    outcome: Outcome
    evidence: str
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the build withstood the attack."""
        return self.outcome is not Outcome.BROKEN

    def to_dict(self) -> dict[str, str | float]:
        """Return plain values for JSON."""
        return {
            "id": self.id,
            "title": self.title,
            "action": self.action,
            "expected": self.expected.value,
            "outcome": self.outcome.value,
            "evidence": self.evidence,
            "seconds": round(self.seconds, 3),
        }


def refused(error: Exception, tried: str) -> Finding:
    """Return the finding for an attack that a named error stopped."""
    return Finding(Outcome.REFUSED, f"{tried}: {type(error).__name__}, {error}")


def harmless(evidence: str) -> Finding:
    """Return the finding for an attack that gained nothing."""
    return Finding(Outcome.HARMLESS, evidence)


def broken(evidence: str) -> Finding:
    """Return the finding for an attack that succeeded."""
    return Finding(Outcome.BROKEN, evidence)
