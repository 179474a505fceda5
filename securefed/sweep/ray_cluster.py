"""Cells of a sweep on the machines of a Ray cluster. Ray is imported here and nowhere else (extra `ray`).

Every machine must have the same version of SecureFed and reach the folder of the sweep, the feature cache, the images
and the folder that the sweep was started in under the same paths, as on a cluster with a common file system. All but
the images is looked up on each machine before the first cell starts.
"""

import contextlib
import os
import secrets
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.encoders import default_cache_dir
from securefed.errors import ConfigError, RunFolderError
from securefed.provenance import version_of
from securefed.sweep.cell import INTERRUPTED, CellResult, run_cell
from securefed.sweep.plan import Cell

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, started for the sweep and ended with it."""

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class _Machine:
    """What a machine says of itself: its name, the version installed, and which of the paths asked for it lacks."""

    name: str
    version: str
    missing: tuple[str, ...]


def run_on_ray(
    address: str, left: Sequence[Cell], folder: Path, cache_dir: Path | None, jobs: int | None
) -> Generator[tuple[Cell, CellResult], None, None]:
    """Yield each cell as it ends; a cell takes a share of the cores of one machine, and a GPU where there are some.

    A cell whose device is `cpu` takes no GPU.

    Args:
        address: Of the cluster as Ray understands it (`auto`, HOST:PORT, ray://HOST:PORT), or `local`.
        left: Cells to run.
        folder: Folder of all cells.
        cache_dir: Feature cache; None for the user's.
        jobs: Cells at the same time on the whole cluster; None for as many as it has room for.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at this address.
        RunFolderError: A machine has another version or does not see the folders; or one was lost on the way.
    """
    if not left:
        return
    ray = _connect(address)
    try:
        folder, cache = folder.resolve(), (cache_dir or default_cache_dir()).resolve()
        _make(cache)
        _check_machines(ray, (folder, cache, Path.cwd()), folder)
        several, shares = _shares(ray, left, jobs)
        task = ray.remote(max_retries=0)(_run)
        waiting = list(reversed(left))
        running: dict[Any, Cell] = {}
        try:
            while waiting or running:
                while waiting and len(running) < several:
                    cell = waiting.pop()
                    cores, gpus = shares[cell.name]
                    placed = task.options(num_cpus=cores, num_gpus=gpus)
                    running[placed.remote(Path.cwd(), folder, cell, cache, cores)] = cell
                (ended, *_), _ = ray.wait(list(running))
                cell = running.pop(ended)
                result: CellResult = ray.get(ended)
                if result.status == INTERRUPTED:
                    raise KeyboardInterrupt
                yield cell, result
        except ray.exceptions.RayError as error:
            raise RunFolderError(
                folder,
                f"a process or machine of the cluster was lost ({_cause(error)}); start the sweep again to go on",
            ) from error
        finally:
            _cancel(ray, list(running))
    finally:
        ray.shutdown()


def _make(cache: Path) -> None:
    """Make the feature cache where there is none yet: whether a machine sees it is to be found out."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(cache, f"cannot be made ({error.strerror}); choose another --cache-dir") from error


def _run(start: Path, folder: Path, cell: Cell, cache: Path, cores: int) -> CellResult:
    """Run a cell in the folder that the sweep was started in: names of data and encoder may be relative to it."""
    os.chdir(start)
    return run_cell(folder, cell, cache, cores)


def _connect(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers over the network
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("--ray", "Ray is not installed; install the extra: pip install 'securefed[ray]'") from error
    own = {"include_dashboard": False} if address == LOCAL else {}
    try:
        with _import_path() if address == LOCAL else contextlib.nullcontext():
            ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ConfigError(
            "--ray", f"no cluster at {address!r} ({_cause(error)}); start one with `ray start --head`"
        ) from error
    return ray


@contextlib.contextmanager
def _import_path() -> Iterator[None]:
    """Let processes that are started meanwhile import what this one can: SecureFed may run from a checkout."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _check_machines(ray: Any, paths: Sequence[Path], folder: Path) -> None:
    mark = folder / f".seen-{secrets.token_hex(8)}"
    mark.touch()
    try:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = ray.remote(num_cpus=0, max_retries=0)(_look)
        asked = [
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                [*map(str, paths), str(mark)]
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        machines: list[_Machine] = ray.get(asked, timeout=_PATIENCE_SECONDS)
    except ray.exceptions.RayError as error:
        raise RunFolderError(
            folder, f"a machine of the cluster cannot run SecureFed ({_cause(error)}); install the same version on all"
        ) from error
    finally:
        mark.unlink()
    for machine in machines:
        if machine.version != version_of():
            raise RunFolderError(
                folder, f"{machine.name} has version {machine.version}, here is {version_of()}; install the same"
            )
        if machine.missing:
            raise RunFolderError(
                folder,
                f"{machine.name} does not see {machine.missing[0]}; a sweep on a cluster needs a common file system",
            )


def _look(paths: Sequence[str]) -> _Machine:
    import platform

    return _Machine(platform.node(), version_of(), tuple(path for path in paths if not Path(path).exists()))


def _shares(ray: Any, left: Sequence[Cell], jobs: int | None) -> tuple[int, dict[str, tuple[int, int]]]:
    """Return how many cells run at once, and cores and GPUs of each: where there are GPUs, one unless it is on `cpu`.

    Cores are all that there are divided by the cells, and no more than a machine has, or than it has for each of its
    GPUs. No more cells run at once than find a GPU: the cores of those that wait for one would be idle.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    on_gpu = {cell.name for cell in left if with_gpu and cell.config.federation.device != "cpu"}
    room = len(left) - len(on_gpu) + min(len(on_gpu), int(sum(node["GPU"] for node in with_gpu)))
    several = min(jobs or room, room)
    mine = max(1, int(sum(node.get("CPU", 0) for node in nodes)) // several)
    smallest = int(min((node["CPU"] for node in nodes if node.get("CPU")), default=1))
    beside_a_gpu = min((int(node.get("CPU", 1) // min(node["GPU"], several)) for node in with_gpu), default=1)
    shares = {False: (min(mine, smallest), 0), True: (max(1, min(mine, beside_a_gpu)), 1)}
    return several, {cell.name: shares[cell.name in on_gpu] for cell in left}


def _cause(error: Exception) -> str:
    """Return the last line of what may be a traceback of another process."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _cancel(ray: Any, running: Sequence[Any]) -> None:
    """Interrupt what runs, as Ctrl-C does, and wait until it has written its checkpoint."""
    for reference in running:
        ray.cancel(reference, force=False)
    if running:
        with contextlib.suppress(KeyboardInterrupt):
            ray.wait(list(running), num_returns=len(running), timeout=_PATIENCE_SECONDS)
