"""Who pays for a release, and from which budget."""

from dataclasses import dataclass

from audit.accounting import Adjacency, Mechanism

ALL_DATA = "*"
"""The data sets of a hospital that have no budget of their own."""

UNITS = ("image", "patient", "hospital")
"""From the finest to the coarsest: what is released about a patient is released about each of its images as well."""


@dataclass(frozen=True)
class Account:
    """The data about which something is released.

    Attributes:
        hospital: Its name.
        fingerprint: SHA-256 (hex) of the data set's content, whatever its name.
        unit: image, patient or hospital.
    """

    hospital: str
    fingerprint: str
    unit: str


@dataclass(frozen=True)
class BudgetLine:
    """What one budget covers: all data of a hospital for a unit, or one data set that was declared to be disjoint.

    A data set that nobody declared shares the line of all others: renaming, copying or extending data opens no budget,
    not even where the data set itself was declared (`State.answers_for`).
    """

    hospital: str
    unit: str
    fingerprint: str = ALL_DATA


@dataclass(frozen=True)
class Budget:
    """An absolute limit over all runs: what was spent before a renewal stays spent.

    Attributes:
        epsilon: The limit.
        delta: The delta at which it holds.
        adjacency: The neighbouring relation in which it is meant.
        signer: Ed25519 public key (hex) of who may renew it.
        serial: 0 for the policy, one more with each renewal.
    """

    epsilon: float
    delta: float
    adjacency: Adjacency
    signer: str
    serial: int = 0


@dataclass(frozen=True)
class Charge:
    """One release that is paid for.

    Attributes:
        run_id: The run that releases.
        release_id: Unique within the ledger: a release that is repeated with fresh noise is another one.
        mechanism: The noise.
        repetitions: Uses of it with fresh noise.
    """

    run_id: str
    release_id: str
    mechanism: Mechanism
    repetitions: int = 1
