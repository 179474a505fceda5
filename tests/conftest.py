"""How tests are spread over processes and threads, how Triton runs where there is no GPU, and that Ctrl-C is heard."""

import os
import signal

# One test process a core: threads of OpenMP beside them would wait for each other, at each of a test's many small
# operations. Read when torch is imported, and by the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if not torch.cuda.is_available():  # Triton looks at this as it is imported, by whichever test comes first
    os.environ["TRITON_INTERPRET"] = "1"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # inherited from a shell that began this in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

ENGINES = ("flare", "flower")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep all tests of one engine in one process: they share a deployment that takes half a minute to start."""
    from xdist.scheduler import LoadScopeScheduling

    class OneProcessAnEngine(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next(
                (engine for engine in ENGINES if f"over_{engine}" in nodeid or f"test_{engine}_" in nodeid), nodeid
            )

    return OneProcessAnEngine(config, log)


def pytest_collection_modifyitems(items):
    """Skip, and say so, what is marked `gpu` on a machine without one."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def tf32():
    """Both settings of TF32 on, as in images of NVIDIA's; a function says what they are."""
    settings = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = True
    yield lambda: tuple(setting.allow_tf32 for setting in settings)
    for setting, allowed in zip(settings, before, strict=True):
        setting.allow_tf32 = allowed
