"""The compiled loops against torch's own operations."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.method.lean.compiled import CompiledMask, CompiledMove, compiled
from clients.method.lean.optimizer import FusedAdamW, Moving
from clients.method.settings import TrainingSettings

ROOT = Path(__file__).resolve().parents[3]
TOLERANCE = {torch.float32: 2e-7, torch.float64: 1e-15}
SHAPES = [(1, 1), (3, 5), (8, 512), (40, 67)]


def random(*shape, dtype, seed):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class Rows:
    """Rows of weights in the middle of training, and what a step has for them."""

    def __init__(self, shape, dtype):
        self.weight, self.product, self.mean = (random(*shape, dtype=dtype, seed=seed) for seed in (1, 2, 3))
        self.square = random(*shape, dtype=dtype, seed=4).square()
        self.factor = random(shape[0], dtype=dtype, seed=5)
        self.total = torch.empty(shape[0], dtype=dtype)

    def tensors(self):
        return self.weight, self.product, self.mean, self.square

    def move(self, optimizer, *, of_fam):
        CompiledMove(*self.tensors(), self.total)(self.factor, optimizer.numbers(of_fam))

    def move_by_torch(self, optimizer, *, of_fam):
        straight = torch.where(self.weight > 0, 1.0, -1.0).to(self.weight.dtype) * self.factor[:, None]
        gradient = self.product + straight
        optimizer.move(Moving(of_fam, ([self.weight], [gradient], [self.mean], [self.square])))
        self.total = self.weight.abs().sum(1)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("of_fam", [True, False])
def test_rows_move_as_torchs_own_optimizer_moves_them(shape, dtype, of_fam):
    optimizer = FusedAdamW(TrainingSettings.default(), 3, torch.device("cpu"))
    expected, got = Rows(shape, dtype), Rows(shape, dtype)
    for _ in range(5):
        optimizer.begin_step()
        expected.move_by_torch(optimizer, of_fam=of_fam)
        got.move(optimizer, of_fam=of_fam)
        for a, b in zip((*expected.tensors(), expected.total), (*got.tensors(), got.total), strict=True):
            np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=20 * TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_a_weight_of_zero_counts_as_negative():
    rows = Rows((1, 2), torch.float64)
    rows.weight[:] = torch.tensor([0.0, -0.0])
    rows.product.zero_()
    rows.mean.zero_()
    rows.factor[:] = 1.0
    optimizer = FusedAdamW(TrainingSettings.default(), 1, torch.device("cpu"))
    optimizer.begin_step()
    rows.move(optimizer, of_fam=True)
    assert (rows.mean < 0).all()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(poison):
    rows = Rows((4, 33), torch.float32)
    rows.product[2, 20] = poison
    optimizer = FusedAdamW(TrainingSettings.default(), 1, torch.device("cpu"))
    optimizer.begin_step()
    rows.move(optimizer, of_fam=True)
    assert not rows.weight[2, 20].isfinite()
    assert rows.total.isfinite().tolist() == [True, True, False, True]
    assert rows.weight.isfinite().sum() == rows.weight.numel() - 1


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("outputs", "rows"), [(1, 1), (8, 32), (15, 3), (33, 32), (512, 7)])
def test_bias_and_mask_of_a_product_that_lies_transposed(outputs, rows, dtype):
    product, bias = random(outputs, rows, dtype=dtype, seed=1), random(outputs, dtype=dtype, seed=2)
    keep = (random(1, outputs, dtype=dtype, seed=3) > 0).to(dtype)
    linear, output = torch.empty(2, rows, outputs, dtype=dtype).unbind()
    CompiledMask(product, bias, keep, linear, output)()
    torch.testing.assert_close(linear, product.T + bias, rtol=0, atol=0)
    torch.testing.assert_close(output, linear * keep, rtol=0, atol=0)


def test_a_loop_is_compiled_where_nothing_can_be_kept(monkeypatch):
    import numba

    def refuse(dispatcher):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(numba.core.dispatcher.Dispatcher, "enable_caching", refuse)

    def double(values):
        for i in range(len(values)):
            values[i] *= 2

    values = np.arange(3.0)
    compiled(double)(values)
    assert values.tolist() == [0, 2, 4]


def test_commands_that_train_nothing_do_not_load_the_compiler():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, clients.method.hospital; sys.exit('numba' in sys.modules)"], cwd=ROOT
    )
    assert done.returncode == 0
