"""A sweep from start to end: features once, cells on the cores of this machine, one table."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from clients.method.threads import usable_cores
from securefed.config import RunConfig
from securefed.errors import RunFolderError
from securefed.observer import Observer
from securefed.preparation import encode_sites, load_sites, resolve_device
from securefed.sweep.cell import FAILED, FINISHED, CellResult, look_up, run_cell
from securefed.sweep.plan import Cell, SweepPlan
from securefed.sweep.plots import plot_sweep
from securefed.sweep.ray_cluster import run_on_ray
from securefed.sweep.table import tidy_rows, write_table

Finished = Callable[[Cell, CellResult], None]


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has ended.

    Attributes:
        folder: Its folder: cells/, results.csv, results.parquet, plots/.
        results: {cell: its result}.
    """

    folder: Path
    results: Mapping[str, CellResult]

    @property
    def failed(self) -> int:
        """Return how many cells failed."""
        return sum(result.status == FAILED for result in self.results.values())


def look_up_all(plan: SweepPlan, folder: Path) -> dict[str, CellResult]:
    """Return {cell: what its folder holds}, running nothing."""
    return {cell.name: look_up(folder / "cells", cell) for cell in plan.cells}


def run_sweep(
    plan: SweepPlan,
    folder: Path,
    *,
    cache_dir: Path | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
    observer: Observer | None = None,
    finished: Finished = lambda _cell, _result: None,
) -> SweepResult:
    """Run the cells that are not finished and write the table of all.

    A cell that fails is a line of the table; the others run on. After an interruption the same call goes on: finished
    cells are not run again and unfinished ones continue after their last round.

    Args:
        plan: The cells.
        folder: Where everything goes.
        cache_dir: Feature cache; images that several cells share are encoded once, before the first one starts.
        jobs: Cells that run at the same time, each in a process of its own; None for one a core.
        cluster: Address of a Ray cluster that runs the cells (`ray_cluster.run_on_ray`); None for this machine's cores.
        observer: Watches the encoding.
        finished: Called with each cell as it ends.

    Raises:
        RunFolderError: The folder cannot be written, or is that of other runs.
        ConfigError: There is no such cluster.
        DataError, EncoderError: No features for a cell.
    """
    cells = folder / "cells"
    try:
        cells.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(cells, f"cannot be made ({error.strerror}); name another --output") from error
    results = look_up_all(plan, folder)
    left = [cell for cell in plan.cells if results[cell.name].status != FINISHED]
    encode_once([cell.config for cell in left], cache_dir, observer or Observer())
    ended = _run_cells(left, cells, cache_dir, jobs)
    if cluster is not None:
        ended = run_on_ray(cluster, left, cells, cache_dir, jobs)
    try:
        for cell, result in ended:
            results[cell.name] = result
            finished(cell, result)
    finally:
        rows = tidy_rows(plan, results)
        write_table(folder, rows)
        plot_sweep(plan, results, folder / "plots")
    return SweepResult(folder, results)


def encode_once(configs: Sequence[RunConfig], cache_dir: Path | None, observer: Observer) -> None:
    """Fill the feature cache for all configurations: each set of images and encoder once, whoever shares it."""
    seen = set()
    for config in configs:
        data = config.data
        key = (data.source, data.path_column, data.label_column, data.class_names, data.strict, config.encoder)
        if key in seen or config.encoder.name.startswith("features:"):
            continue
        seen.add(key)
        dataset, _ = load_sites(data, config.federation.seed)
        encode_sites(config, dataset, resolve_device(config.federation.device), cache_dir, observer)


def _run_cells(
    left: Sequence[Cell], folder: Path, cache_dir: Path | None, jobs: int | None
) -> Iterator[tuple[Cell, CellResult]]:
    """Yield each cell as it ends; one process a cell where several run at once, and all cores for one."""
    cores = usable_cores()
    several = min(jobs or cores, len(left))
    if several <= 1:
        for cell in left:
            result = run_cell(folder, cell, cache_dir, cores)
            if result.status not in (FINISHED, FAILED):
                raise KeyboardInterrupt
            yield cell, result
        return
    workers = max(1, cores // several)
    pool = ProcessPoolExecutor(several, mp_context=multiprocessing.get_context("spawn"))
    try:
        running = {pool.submit(run_cell, folder, cell, cache_dir, workers): cell for cell in left}
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
        with contextlib.suppress(KeyboardInterrupt):
            pool.shutdown(wait=True, cancel_futures=True)
