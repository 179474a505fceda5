"""Renyi bounds of a Poisson-sampled mechanism from those of the mechanism itself, where its noise is symmetric.

P and Q are the mechanism's output with and without one record, m = (1 - q) Q + q P that with a record of rate q.

*With the record added*, at an integer order a, E over Q of (m/Q)**a is a binomial sum whose terms are
E of (P/Q)**j = exp((j - 1) D_j(P, Q)): an upper bound on each divergence D_j gives an upper bound on the sum.

*With the record removed*, D_a(Q, m) is no larger. Noise that is added and symmetric has a map v of the outputs onto
themselves, v(v(x)) = x, that swaps P and Q (v(x) = shift - x). With t = P/Q and h(t) = m(t)**a - m(t)**(1 - a),
m(t) = 1 - q + q t, the two moments differ by E over Q of h(t), which the map makes E of (h(t) + t h(1/t)) / 2; as
h(1/t) + h(t)/t is that over t, t >= 1 is enough. There let e = log m(t) and f = -log m(1/t): e >= f >= 0, since
m(t) m(1/t) >= 1. h(t) = 2 exp(e/2) sinh(c e) and -h(1/t) = 2 exp(-f/2) sinh(c f) with c = a - 1/2; at c = 1/2 the two
sides h(t) and -t h(1/t) are equal, q (t - 1) each, and sinh(c e) / sinh(c f) does not fall when c grows.

What the others' records are, and how they were sampled and rounded, mixes such pairs over something that both data sets
have in common, which enlarges no divergence.

Paper: Mironov, Talwar, Zhang 2019 (arXiv 1908.10530), section 3, for the Gaussian; Zhu, Wang 2019 (ICML), whose theorem
for any mechanism has a factor 3 on the terms from j = 3 on, and whose lower bound is the sum without it.
"""

import math
from collections.abc import Callable

import numpy as np


def sampled_rdp(plain: Callable[[int], float], sampling_rate: float, order: int) -> float:
    """Return the divergence bound at an integer order of a mechanism with added symmetric noise, Poisson sampled.

    Args:
        plain: Divergence bound of the mechanism without sampling, at integer orders above 1.
        sampling_rate: Within (0, 1).
        order: Above 1.

    Returns:
        No more than `plain(order)`; for add-or-remove-one neighbours, in both directions.
    """
    log_q, log_rest = math.log(sampling_rate), math.log1p(-sampling_rate)
    terms = [
        math.log(math.comb(order, j)) + j * log_q + (order - j) * log_rest + _log_expm1((j - 1) * plain(j))
        for j in range(2, order + 1)
    ]
    log_excess = float(np.logaddexp.reduce(np.asarray(terms)))  # of the moment over 1
    return min(float(np.logaddexp(0.0, log_excess)) / (order - 1), plain(order))


def _log_expm1(x: float) -> float:
    """Return log(exp(x) - 1) for x >= 0 without overflow."""
    if x <= 0:
        return -math.inf
    if x < 1:
        return math.log(math.expm1(x))
    return x + math.log(-math.expm1(-x))
