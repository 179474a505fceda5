"""What is taken from Opacus, which sets up the root logger when it is imported: here it finds that done already.

Without that, every message of every library in the process would go to stderr in its form, refusals of attacked clients
among them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _set_up_already() -> Iterator[None]:
    root, nowhere = logging.getLogger(), logging.NullHandler()
    root.addHandler(nowhere)
    try:
        yield
    finally:
        root.removeHandler(nowhere)


with _set_up_already():
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
    from opacus.grad_sample.utils import register_grad_sampler, register_norm_sampler

__all__ = ["GradSampleModuleFastGradientClipping", "register_grad_sampler", "register_norm_sampler"]
