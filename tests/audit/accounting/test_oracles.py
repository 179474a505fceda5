"""Our own curves and random variables against the implementations of others."""

import numpy as np
import pytest

from audit.accounting import Gaussian, Repeated, rdp_epsilon
from audit.accounting.prv import prv_interval
from tests.audit.accounting.test_known_answers import steps

SETTINGS = [(1.0, 0.01, 1000), (0.7, 0.1, 20), (2.0, 0.3, 100), (1.1, 256 / 60000, 2000), (5.0, 0.5, 30)]


@pytest.mark.parametrize(("sigma", "q", "count"), SETTINGS)
def test_rdp_equals_dp_accounting(sigma, q, count):
    dp = pytest.importorskip("dp_accounting")
    from dp_accounting.rdp import RdpAccountant

    orders = [*range(2, 65), 128]
    accountant = RdpAccountant(orders=orders)
    accountant.compose(dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(sigma)), count)
    assert rdp_epsilon(steps(sigma, q, count), 1e-5, orders=tuple(orders)) == pytest.approx(
        accountant.get_epsilon(1e-5), rel=1e-9
    )


def test_curves_equal_the_binomial_sum():
    """Mironov et al. 2019, section 3.3: at an integer order the moment is a finite sum."""
    from math import comb, exp, log

    from audit.accounting.rdp import _sampled_gaussian

    for sigma, q in ((1.0, 0.01), (0.6, 0.5), (4.0, 0.2)):
        for order in (2, 3, 7, 20):
            terms = [
                comb(order, k) * (1 - q) ** (order - k) * q**k * exp((k * k - k) / (2 * sigma**2))
                for k in range(order + 1)
            ]
            expected = log(sum(terms)) / (order - 1)
            assert _sampled_gaussian(q, sigma, (order,))[0] == pytest.approx(expected, rel=1e-9)


def test_prv_of_plain_gaussians_contains_the_exact_value():
    """Balle and Wang 2018, theorem 8: delta of Gaussians in closed form."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    for sigma, count in ((4.0, 50), (1.0, 1), (10.0, 7)):
        whole = sigma / np.sqrt(count)

        def delta(epsilon, whole=whole):
            below = norm.cdf(0.5 / whole - epsilon * whole)
            return below - np.exp(epsilon) * norm.cdf(-0.5 / whole - epsilon * whole)

        exact = brentq(lambda epsilon: delta(epsilon) - 1e-5, 0, 100)
        found = prv_interval([Repeated(Gaussian(sigma), count)], 1e-5)
        assert found.lower <= exact <= found.upper
        assert found.upper - found.lower < 0.025


@pytest.mark.parametrize(("sigma", "q", "count"), SETTINGS)
def test_prv_equals_opacus(sigma, q, count):
    pytest.importorskip("opacus")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.accountants import PRVAccountant
    accountant = PRVAccountant()
    accountant.history = [(sigma, q, count)]
    assert prv_interval(steps(sigma, q, count), 1e-5).upper == pytest.approx(accountant.get_epsilon(1e-5), abs=2e-5)
