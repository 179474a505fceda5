"""Sweeps and processes: what is shared, left alone, cut off, and does not outlive them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audit import read_events
from securefed.errors import RunFolderError
from securefed.locks import locked
from securefed.sweep.cell import FAILED, FINISHED, WAITING
from securefed.sweep.plan import read_plan
from securefed.sweep.run import look_up_all, run_sweep

ROOT = Path(__file__).resolve().parents[2]


def test_an_interrupted_sweep_goes_on_where_it_was(sweep_file, tmp_path, monkeypatch):
    plan = read_plan(sweep_file('"federation.seed" = [0, 1, 2]'))
    whole = run_sweep(plan, tmp_path / "whole", jobs=1)
    folder = tmp_path / "cut"
    from securefed.federation import Federation

    opened = Federation._open_round

    def interrupted(self, number):
        if number == 2 and len(list((folder / "cells").glob("*/summary.json"))) == 1:
            signal.raise_signal(signal.SIGINT)
        return opened(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Federation, "_open_round", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(plan, folder, jobs=1)
    states = [look_up_all(plan, folder)[cell.name].status for cell in plan.cells]
    assert states == [FINISHED, WAITING, WAITING]
    assert (folder / "results.csv").exists()
    (folder / "cells" / plan.cells[2].name).mkdir()  # as if it had died before its first round
    (folder / "cells" / plan.cells[2].name / "audit.jsonl").touch()
    resumed = run_sweep(plan, folder, jobs=1)
    for cell in plan.cells:
        assert resumed.results[cell.name].summary["sites"] == whole.results[cell.name].summary["sites"]
    assert [path.name for path in (folder / "cells").glob("*.interrupted-*")] == [f"{plan.cells[2].name}.interrupted-1"]


def test_two_sweeps_do_not_share_a_folder(sweep_file, tmp_path):
    plan = read_plan(sweep_file('"federation.seed" = [0]'))
    folder = tmp_path / "out"
    folder.mkdir()
    with locked(folder / ".lock"), pytest.raises(RunFolderError, match="another sweep runs in it; wait until"):
        run_sweep(plan, folder, jobs=1)
    assert run_sweep(plan, folder, jobs=1).failed == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_a_process_is_at_work_in_is_left_alone_and_the_others_run(sweep_file, tmp_path, jobs):
    """It has begun and has no checkpoint yet, like one that was interrupted there."""
    plan = read_plan(sweep_file('"federation.seed" = [0, 1]'))
    cell = tmp_path / "out/cells" / plan.cells[0].name
    cell.mkdir(parents=True)
    with locked(cell / "audit.jsonl"):
        result = run_sweep(plan, tmp_path / "out", jobs=jobs)
    assert [result.results[cell.name].status for cell in plan.cells] == [FAILED, FINISHED]
    error = result.results[cell.name].error
    assert error.count("is being written by another process; wait until that run has ended") == 1
    assert sorted(path.name for path in cell.parent.iterdir()) == sorted(cell.name for cell in plan.cells)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_no_process_of_a_sweep_outlives_it(sweep_file, tmp_path, number):
    path = sweep_file('"federation.seed" = [0, 1, 2, 3]')
    path.write_text(path.read_text().replace("rounds = 2", "rounds = 5000"))
    folder = tmp_path / "out"
    sweep = subprocess.Popen(
        [sys.executable, "-m", "cli", "sweep", str(path), "--output", str(folder), "--jobs", "2", "--quiet"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait(lambda: len(list(folder.glob("cells/*/checkpoint/latest.json"))) == 2)
        workers = children(sweep.pid)
        assert len(workers) >= 2
        sweep.send_signal(number)
        _, err = sweep.communicate(timeout=60)
        wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30)
    finally:
        sweep.kill()
    if number == signal.SIGTERM:
        assert (sweep.returncode, err.strip()) == (
            130,
            "interrupted: finished runs are kept; start the sweep again to go on",
        )
    logs = sorted(folder.glob("cells/*/audit.jsonl"))
    assert len(logs) == 2  # no cell was begun after it
    for log in logs:
        assert read_events(log)[-1].kind == "interrupted"


def wait(reached, seconds=120):
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid):
    """The processes that have this parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
