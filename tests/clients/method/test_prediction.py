"""What a hospital's own images add to the answers, by the equations of docs/method.md."""

import numpy as np
import pytest
from scipy.optimize import minimize

from clients.method.prediction import calibrate, log_class_frequencies
from tests.clients.method.test_ensemble import log_softmax

FEW = np.array([0, 1, 2, 1, 0])
NONE = np.zeros(0, np.int64)


def log_parts(labels, classes=3):
    """Log probabilities of a FAM and an MLP that are often right, about images with these labels."""
    rng = np.random.default_rng(0)
    signal = np.eye(classes)[labels]
    return tuple(log_softmax(scale * signal + rng.normal(size=signal.shape)) for scale in (1.0, 2.0))


def fitted(members, labels, start):
    """Exponents by the equation: least negative log likelihood plus half the squared distance from the start."""

    def objective(exponents):
        pooled = log_softmax(sum(e * member for e, member in zip(exponents, members, strict=True)))
        return -pooled[np.arange(len(labels)), labels].sum() + ((exponents - np.array(start)) ** 2).sum() / 2

    return minimize(objective, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x


def test_class_frequencies_are_counted_with_one_image_more_of_each_class():
    expected = np.log((np.array([3, 1, 0, 0]) + 1) / (4 + 4))
    np.testing.assert_allclose(log_class_frequencies(np.array([0, 0, 1, 0]), 4), expected, rtol=1e-12)


@pytest.mark.parametrize("labels", [FEW, NONE])
def test_exponents_minimise_the_equation_around_one_and_a_half(labels):
    fam, mlp = log_parts(labels)
    calibration = calibrate((fam, mlp), labels)
    assert calibration.fam.exponents == pytest.approx(fitted([fam], labels, (1.0,)), abs=1e-5)
    assert calibration.mlp.exponents == pytest.approx(fitted([mlp], labels, (1.0,)), abs=1e-5)
    assert calibration.ensemble.exponents == pytest.approx(fitted([fam, mlp], labels, (0.5, 0.5)), abs=1e-5)


def test_a_fam_on_its_own_is_calibrated_around_one():
    fam, _ = log_parts(FEW)
    calibration = calibrate((fam, None), FEW)
    assert calibration.mlp is None
    assert calibration.ensemble.exponents == pytest.approx(fitted([fam], FEW, (1.0,)), abs=1e-5)
