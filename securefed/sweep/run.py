"""A sweep from start to end: features once, cells on the cores of this machine, one table."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clients.data import DataError
from clients.encoders import EncoderError
from clients.method.threads import usable_cores
from securefed.config import RunConfig
from securefed.errors import RunFolderError
from securefed.locks import locked
from securefed.observer import Observer
from securefed.preparation import encode_sites, has_device, load_sites, resolve_device
from securefed.sweep.cell import FAILED, FINISHED, CellResult, look_up, require_same_data, run_cell
from securefed.sweep.plan import Cell, SweepPlan
from securefed.sweep.plots import plot_sweep
from securefed.sweep.ray_cluster import run_on_ray
from securefed.sweep.table import tidy_rows, write_table
from securefed.sweep.workers import run_in_processes

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
        observer: Watches the encoding, and is told of warnings about the images.
        finished: Called with each cell as it ends.

    Raises:
        RunFolderError: The folder cannot be written, is that of other runs or holds cells of other data than there are
            now, or another sweep runs in it.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
        ConfigError: There is no such cluster.
        DataError, EncoderError: The data or the encoder of finished cells, which others want too, cannot be used now.
    """
    with _alone(folder), _terminated_as_interrupted():
        results = look_up_all(plan, folder)
        left = [cell for cell in plan.cells if results[cell.name].status != FINISHED]
        encode_once([cell.config for cell in left], cache_dir, observer or Observer())
        _check_finished(plan, results, folder / "cells", cache_dir, observer or Observer())
        if cluster is None:
            ended = _run_cells(left, folder / "cells", cache_dir, jobs)
        else:
            ended = run_on_ray(cluster, left, folder / "cells", cache_dir, jobs)
        try:
            with contextlib.closing(ended):
                for cell, result in ended:
                    results[cell.name] = result
                    finished(cell, result)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note("finished runs are kept; start the sweep again to go on")
            raise
        finally:
            rows = tidy_rows(plan, results)
            write_table(folder, rows)
            plot_sweep(plan, results, folder / "plots")
        return SweepResult(folder, results)


def encode_once(configs: Sequence[RunConfig], cache_dir: Path | None, observer: Observer) -> None:
    """Fill the feature cache for all configurations: each set of images and encoder once, whoever shares it.

    Warnings about them are told here, once; in the cells nobody would see them. Data or an encoder that cannot be used
    are left to the cells that want them, which fail by themselves; so is encoding on a GPU that this machine lacks and
    that the machine of the cell may have.
    """
    seen = set()
    told = set()
    for config in configs:
        data = replace(config.data, clients=0, alpha=0.0)  # dealt or not, the images are the same
        encodes = not config.encoder.name.startswith("features:") and has_device(config.federation.device)
        columns = data.path_column, data.label_column
        key = (data.source, *columns, data.class_names, data.strict, config.encoder, encodes)
        if key in seen:
            continue
        try:
            dataset, found = load_sites(data, config.federation.seed)
            seen.add(key)
            if encodes:
                device = resolve_device(config.federation.device)
                found += encode_sites(config, dataset, device, cache_dir, observer).warnings
        except (DataError, EncoderError):
            continue
        for warning in found:
            if warning.severity == "warning" and (data.source, warning.message) not in told:
                told.add((data.source, warning.message))
                observer.warned(f"{data.source}: {warning.message}")


def _check_finished(
    plan: SweepPlan, results: Mapping[str, CellResult], folder: Path, cache_dir: Path | None, observer: Observer
) -> None:
    """Refuse finished cells that share images or encoder with cells left to run, and had others than there are now."""
    left = [cell.config for cell in plan.cells if results[cell.name].status != FINISHED]
    images = {(config.data.source, config.data.class_names) for config in left}
    encoders = {config.encoder for config in left}
    named: dict[object, tuple[str, str, str]] = {}
    for cell in plan.cells:
        config, data = cell.config, cell.config.data
        shares_images, shares_encoder = (data.source, data.class_names) in images, config.encoder in encoders
        if results[cell.name].status != FINISHED or not (shares_images or shares_encoder):
            continue
        key = (data, config.encoder, config.federation.seed if data.clients else 0)
        if key not in named:
            try:
                dataset, _ = load_sites(data, config.federation.seed)
                device = config.federation.device  # what is compared is the same on every device
                device = resolve_device(device if has_device(device) else "auto")
                bundle = encode_sites(config, dataset, device, cache_dir, observer)
            except (DataError, EncoderError) as error:
                if shares_images if isinstance(error, DataError) else shares_encoder:
                    raise
                continue  # gone since then, and no cell that is left wants it
            named[key] = bundle.data_fingerprint, bundle.encoder_digest, bundle.features_digest
        require_same_data(folder, results[cell.name], *named[key])


def _run_cells(
    left: Sequence[Cell], folder: Path, cache_dir: Path | None, jobs: int | None
) -> Generator[tuple[Cell, CellResult], None, None]:
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
    yield from run_in_processes(left, folder, cache_dir, several, max(1, cores // several))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make a sweep's folder and hold it: two sweeps in it would take each other's cells for interrupted ones."""
    with contextlib.ExitStack() as stack:
        try:
            (folder / "cells").mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(locked(folder / ".lock"))
        except OSError as error:
            raise RunFolderError(
                folder, f"cannot be made or locked ({error.strerror}); name another --output"
            ) from error
        if not held:
            raise RunFolderError(folder, "another sweep runs in it; wait until it has ended, or name another --output")
        yield


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: cells leave their checkpoints. Only the main thread may set that up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
