"""Processes of a sweep, each running one cell after the other; none outlives the sweep that has started it.

A process holds one end of a pipe whose other end is the sweep's alone. When that is closed, by a sweep that was
interrupted or by the system because it is gone, the cell at work is interrupted as by Ctrl-C: it leaves its checkpoint
and goes on from there next time. Cells that wait are not begun, and without a parent the process ends.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from securefed.errors import RunFolderError
from securefed.sweep.cell import FAILED, FINISHED, INTERRUPTED, CellResult, run_cell
from securefed.sweep.plan import Cell

_PATIENCE_SECONDS = 60.0
"""How long a cell may take to leave its checkpoint once the sweep is gone."""

_at_work = threading.Lock()
_over = threading.Event()


def run_in_processes(
    left: Sequence[Cell], folder: Path, cache_dir: Path | None, processes: int, workers: int
) -> Generator[tuple[Cell, CellResult], None, None]:
    """Yield each cell as it ends.

    Args:
        left: Cells to run.
        folder: Folder of all cells.
        cache_dir: Feature cache.
        processes: Cells at the same time.
        workers: Hospitals of a cell that work at the same time.

    Raises:
        RunFolderError: A process was lost.
    """
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(theirs,))
    try:
        running = {pool.submit(_run, folder, cell, cache_dir, workers): cell for cell in left}
        for future in as_completed(running):
            result = future.result()
            if result.status not in (FINISHED, FAILED):
                raise KeyboardInterrupt
            yield running[future], result
    except BrokenProcessPool as error:
        raise RunFolderError(
            folder, "a process of the sweep died, as a rule for want of memory; use fewer --jobs and start it again"
        ) from error
    finally:
        ours.close()
        with contextlib.suppress(KeyboardInterrupt):
            pool.shutdown(wait=True, cancel_futures=True)
        theirs.close()


def _begin(pipe: "Connection[Any, Any]") -> None:
    """Set a process up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep, which closes the pipe
    signal.signal(signal.SIGUSR1, _interrupt)
    threading.Thread(target=_watch, args=(pipe,), daemon=True).start()


def _run(folder: Path, cell: Cell, cache_dir: Path | None, workers: int) -> CellResult:
    with _at_work:
        if _over.is_set():
            return CellResult(cell.name, INTERRUPTED)
        return run_cell(folder, cell, cache_dir, workers)


def _watch(pipe: "Connection[Any, Any]") -> None:
    """Wait for the end of the sweep; then interrupt the cell at work, and end this process if it has no parent."""
    with contextlib.suppress(OSError):
        pipe.poll(None)
    _over.set()
    if _at_work.locked():
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    _at_work.acquire(timeout=_PATIENCE_SECONDS)
    os._exit(1)


def _interrupt(_number: int, _frame: object) -> None:
    if _at_work.locked():
        raise KeyboardInterrupt
