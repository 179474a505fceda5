"""What one release costs against different adversaries: who knows how much of the noise.

Noise that a hospital adds in full protects it against everybody. Noise that hospitals add in shares protects against
whoever sees only the sum; a colluder knows its own share, and whoever opens a single update sees one share only.
"""

from dataclasses import replace

from audit.accounting.mechanisms import Composition, DiscreteGaussian, Mechanism, Repeated, Skellam, Unknown


def against_colluders(composition: Composition, colluders: int) -> tuple[Repeated, ...]:
    """Return the composition as seen by some hospitals that subtract their own noise from the sum.

    Args:
        composition: As seen by one who knows no share.
        colluders: Hospitals that pool what they know; 0 leaves the composition unchanged.

    Raises:
        ValueError: `colluders` is negative.
    """
    if colluders < 0:
        raise ValueError(f"colluders must not be negative, is {colluders}")
    return tuple(replace(part, mechanism=_less_shares(part.mechanism, colluders)) for part in composition)


def against_broken_aggregation(composition: Composition, unopened: int = 0) -> tuple[Repeated, ...]:
    """Return the composition as seen by one who opens single updates: each carries one share of noise.

    Who can do that can open the seeds of removable noise as well: the least that a share can have is left.

    Args:
        composition: The sums that were to be opened, as seen by one who knows no share.
        unopened: Updates of a hospital that left for a sum that was never to be opened, each with a share of fresh
            noise. It is taken to be like the share of `composition` with the least noise; without any it is unknown.
    """
    single = tuple(replace(part, mechanism=_single_share(part.mechanism)) for part in composition)
    if not unopened:
        return single
    shares = [part.mechanism for part in single if isinstance(part.mechanism, Skellam | DiscreteGaussian)]
    share = min(shares, key=_relative_variance, default=Unknown("no sum states the noise of a share"))
    return (*single, Repeated(share, unopened))


def _single_share(mechanism: Mechanism) -> Mechanism:
    match mechanism:
        case Skellam(least_share_variance=least) if least:
            return replace(mechanism, shares=1, share_variance=least)
        case Skellam() | DiscreteGaussian():
            return replace(mechanism, shares=1)
        case _:
            return mechanism


def _relative_variance(share: Skellam | DiscreteGaussian) -> float:
    """Return the variance of a share over the squared norm of one contribution."""
    variance = share.share_variance if isinstance(share, Skellam) else share.share_sigma**2
    return variance / share.l2**2


def _less_shares(mechanism: Mechanism, known: int) -> Mechanism:
    if not isinstance(mechanism, Skellam | DiscreteGaussian):
        return mechanism
    if known >= mechanism.shares:
        return Unknown(f"{known} colluders know all {mechanism.shares} shares of the noise")
    return replace(mechanism, shares=mechanism.shares - known)
