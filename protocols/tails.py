"""Exact hypergeometric tails and the failure probabilities of a k-regular ring, in integers and fractions."""

from fractions import Fraction
from functools import lru_cache
from math import comb, inf, log2

from protocols.stages import ThreatModel


@lru_cache(maxsize=8)
def _weights(population: int, marked: int, draws: int) -> tuple[int, ...]:
    """Number of ways to draw j marked ones, for j = 0 to draws, each from the one before."""
    least = max(0, draws - (population - marked))
    weights = [0] * (draws + 1)
    weights[least] = comb(marked, least) * comb(population - marked, draws - least)
    for j in range(least, min(draws, marked)):
        weights[j + 1] = weights[j] * (marked - j) * (draws - j) // ((j + 1) * (population - marked - draws + j + 1))
    return tuple(weights)


def tail_above(population: int, marked: int, draws: int, bound: int) -> Fraction:
    """Return Pr[more than `bound` of `draws` drawn without replacement are marked]."""
    weights = _weights(population, marked, draws)
    return Fraction(sum(weights[max(bound + 1, 0) :]), comb(population, draws))


def tail_below(population: int, marked: int, draws: int, bound: int) -> Fraction:
    """Return Pr[fewer than `bound` of `draws` drawn without replacement are marked]."""
    weights = _weights(population, marked, draws)
    return Fraction(sum(weights[: max(bound, 0)]), comb(population, draws))


def disconnection(clients: int, gone: int, neighbours: int) -> Fraction:
    """Bound the chance that removing `gone` clients cuts a ring of degree k in two.

    That takes two disjoint runs of k / 2 neighbouring seats without a remaining client; there are at most
    n (n - k - 1) / 2 pairs of places for them, each gone with probability C(n - k, gone - k) / C(n, gone).
    """
    if neighbours > gone:
        return Fraction(0)
    pairs = Fraction(clients * max(clients - neighbours - 1, 0), 2)
    numerator = denominator = 1
    for i in range(neighbours):
        numerator *= gone - i
        denominator *= clients - i
    return min(Fraction(1), pairs * Fraction(numerator, denominator))


def severance(clients: int, corrupt: int, neighbours: int, threshold: int) -> Fraction:
    """Bound the chance that an active server finds a place for each of two cuts once it knows the order of the ring.

    It need not lose clients at random: whom it counts as lost, or shows whom, it decides when it sees who sits where.
    Every client insists on t holders of its shares among those that stay, and whatever is opened takes t shares. Of
    the k neighbours beside a cut half lie beyond it, so that each cut takes h = k / 2 neighbouring seats of which
    t - h - 1 collude. There are n (n - k - 1) / 2 pairs of places for two such runs of seats; the
    second finds t - h - 1 colluders fewer than the first, or fewer still.
    """
    half = neighbours // 2
    least = max(threshold - half - 1, 0)
    if least > corrupt:
        return Fraction(0)
    first = tail_above(clients, corrupt, half, least - 1)
    second = tail_above(clients - half, corrupt - least, half, least - 1)
    return min(Fraction(1), Fraction(clients * max(clients - neighbours - 1, 0), 2) * first * second)


def exposure(clients: int, corrupt: int, neighbours: int, threshold: int, threat_model: ThreatModel) -> Fraction:
    """Bound the chance that some client's neighbours include enough colluders to expose it.

    Semi-honest: t colluders rebuild its secrets. Active: with c colluders among k neighbours, two sets of t holders
    need not share an honest one once 2 t <= k + c, so that both kinds of share could be gathered.
    """
    bound = threshold - 1 if threat_model is ThreatModel.SEMI_HONEST else 2 * threshold - neighbours - 1
    return min(Fraction(1), clients * tail_above(clients, corrupt, neighbours, bound))


def starvation(clients: int, dropouts: int, neighbours: int, threshold: int) -> Fraction:
    """Bound the chance that some client has fewer than t neighbours left after the tolerated dropouts."""
    return min(Fraction(1), clients * tail_below(clients, clients - dropouts, neighbours, threshold))


def log2_of(probability: Fraction) -> float:
    """Return the base-2 logarithm, minus infinity for zero, for fractions too small for a float."""
    if probability == 0:
        return -inf
    shift = probability.denominator.bit_length() - probability.numerator.bit_length()
    return log2(probability * (1 << shift) if shift >= 0 else probability / (1 << -shift)) - shift
