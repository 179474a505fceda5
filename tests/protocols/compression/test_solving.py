import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.compression.solving import inverse_factors, inverses, product


def positive(rng, size, spread=1e4):
    rows = rng.normal(size=(3 * size, size)) * np.geomspace(1, spread, size)
    return np.rint(rows.T @ rows)


def scalar_inverse_factor(gram):
    """As SPEC.md says it, number by number."""
    size = len(gram)
    work = [[float(x) for x in row] + [float(i == j) for j in range(size)] for i, row in enumerate(gram)]
    for j in range(size):
        pivot = math.sqrt(work[j][j])
        work[j] = [x / pivot for x in work[j]]
        for i in range(j + 1, size):
            factor = work[i][j] / pivot
            work[i] = [x - factor * y for x, y in zip(work[i], work[j], strict=True)]
    return np.array([row[size:] for row in work])


def scalar_inverse(matrix):
    """As SPEC.md says it, number by number."""
    size, work = len(matrix), [[float(x) for x in row] for row in matrix]
    for j in range(size):
        pivot, column = work[j][j], [row[j] for row in work]
        work[j] = [x / pivot for x in work[j]]
        for row in work:
            row[j] = 0.0
        work[j][j] = 1 / pivot
        for i in range(size):
            if i != j:
                work[i] = [x - column[i] * y for x, y in zip(work[i], work[j], strict=True)]
    return np.array(work)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_factors_and_inverses_are_those_of_the_specification_bit_for_bit(size):
    rng = np.random.default_rng(size)
    matrices = [positive(rng, size) for _ in range(3)]
    for found, gram in zip(inverse_factors(matrices), matrices, strict=True):
        assert np.array_equal(found, scalar_inverse_factor(gram))
    for found, matrix in zip(inverses(matrices), matrices, strict=True):
        assert np.array_equal(found, scalar_inverse(matrix))


def test_matrices_of_several_sizes_keep_their_places():
    rng = np.random.default_rng(1)
    matrices = [positive(rng, size) for size in (4, 8, 4, 2)]
    for found, matrix in zip(inverses(matrices), matrices, strict=True):
        np.testing.assert_allclose(found @ matrix, np.eye(len(matrix)), atol=1e-6)
    for found, matrix in zip(inverse_factors(matrices), matrices, strict=True):
        np.testing.assert_allclose(found @ matrix @ found.T, np.eye(len(matrix)), atol=1e-6)
    assert inverses([]) == inverse_factors([]) == []


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(0, 48), exponent=st.integers(-60, 60), size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_product_is_exact_to_what_it_keeps_and_does_not_depend_on_the_order_of_sums(seed, bits, exponent, size):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-(1 << bits), 1 << bits, (5, size), endpoint=True).astype(np.float64)
    square = rng.normal(size=(size, size)) * 2.0**exponent
    found = product(rows, square)
    bound = size * np.abs(rows).max() * np.abs(square).max()
    assert np.abs(found - rows @ square).max() <= bound * 2.0**-33
    turned = rng.permutation(size)
    assert np.array_equal(found, product(rows[:, turned], square[turned]))
