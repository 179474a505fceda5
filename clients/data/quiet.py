"""Decoders that keep what they think of a file to themselves: it may name a patient, and findings say what matters."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0
_restore = contextlib.ExitStack()


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Let no warning, and nothing that pydicom logs, out of this process while any thread is in here.

    Filters of warnings and loggers belong to the process: the first thread that enters changes them and the last one
    that leaves puts them back, so that no thread takes the changes of another for what was there before. Whoever starts
    threads that decode enters before they do and leaves after them.
    """
    global _inside  # noqa: PLW0603 (the state is the process's)
    with _lock:
        if _inside == 0:
            _restore.enter_context(warnings.catch_warnings())
            _restore.enter_context(_disabled(logging.getLogger("pydicom")))
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _restore.close()


@contextlib.contextmanager
def _disabled(logger: logging.Logger) -> Iterator[None]:
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
