"""Sweeps on a Ray cluster: the results of this machine's, one error line where there is none."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from securefed.errors import ConfigError, RunFolderError
from securefed.sweep import ray_cluster
from securefed.sweep.cell import FAILED, FINISHED
from securefed.sweep.plan import read_plan
from securefed.sweep.run import run_sweep

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ray

if importlib.util.find_spec("ray") is None and not os.environ.get("CI"):
    pytest.skip("needs the extra ray", allow_module_level=True)


@pytest.fixture
def grid(features_file, tmp_path, monkeypatch):
    """A sweep file whose data are named relative to the folder that the sweep is started in."""
    monkeypatch.chdir(features_file.parent)

    def make(lines, rounds=2):
        path = tmp_path / "grid.toml"
        path.write_text(
            f'[data]\nsource = "features:{features_file.name}"\n[encoder]\nname = "features:{features_file.name}"\n'
            f'[federation]\nrounds = {rounds}\ndevice = "cpu"\n[grid]\n{lines}\n'
        )
        return path

    return make


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's own, when it starts and ends its processes
def test_cells_on_a_cluster_have_the_results_of_cells_here(grid, tmp_path):
    lost = '["site0@1:ShareKeys", "site1@1:ShareKeys", "site2@1:ShareKeys", "site3@1:ShareKeys"]'
    plan = read_plan(grid(f'"federation.seed" = [0, 1]\n"simulation.drop" = [{lost}, []]'))
    here = run_sweep(plan, tmp_path / "here", jobs=1).results
    seen = []
    there = run_sweep(
        plan,
        tmp_path / "there",
        cache_dir=tmp_path / "not there yet",
        cluster="local",
        finished=lambda cell, _: seen.append(cell.name),
    )
    assert sorted(seen) == sorted(cell.name for cell in plan.cells)
    assert there.failed == 2
    for name, result in here.items():
        other = there.results[name]
        assert (result.status, result.error) == (other.status, other.error)
        assert result.status in (FINISHED, FAILED)
        if result.summary:
            assert result.summary["fam_sha256"] == other.summary["fam_sha256"]
            assert result.summary["sites"] == other.summary["sites"]
    assert not list((tmp_path / "there" / "cells").glob(".seen-*"))


@pytest.mark.slow
def test_ctrl_c_ends_the_cluster_and_the_next_sweep_goes_on(grid, tmp_path):
    file, output = grid('"federation.seed" = [0, 1]', rounds=500), tmp_path / "out"
    command = [sys.executable, str(ROOT / "cli.py"), "sweep", str(file), "--output", str(output), "--ray", "local"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not list(output.glob("cells/*/checkpoint/latest.json")):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "Traceback" not in said
    assert list(output.glob("cells/*/checkpoint/latest.json"))
    assert not list(output.glob("cells/*/summary.json"))


def test_no_cluster_at_an_address_is_one_line(grid, tmp_path):
    plan = read_plan(grid('"federation.seed" = [0]'))
    with pytest.raises(ConfigError, match="--ray: no cluster at"):
        run_sweep(plan, tmp_path / "out", cluster="nonsense")


def test_without_ray_the_extra_is_named(grid, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    plan = read_plan(grid('"federation.seed" = [0]'))
    with pytest.raises(ConfigError, match=r"pip install 'securefed\[ray\]'"):
        run_sweep(plan, tmp_path / "out", cluster="local")


class FakeRay:
    """What `_check_machines` and `_shares` use of Ray, in this process."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    class Task:
        def __init__(self, function):
            self.remote = function

        def options(self, **_):
            return self

    def nodes(self):
        return [{"Alive": True, "NodeID": "ab" * 28, "Resources": {"CPU": 8}}, {"Alive": False, "NodeID": "cd" * 28}]

    def remote(self, **_):
        return self.Task

    def get(self, results, timeout):
        return results


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": "0.0"}, "has version 0.0, here is"),
        ({"missing": ("/scans",)}, "does not see /scans; a sweep on a cluster needs a common file system"),
    ],
)
def test_a_machine_that_cannot_do_the_same_is_named_before_anything_runs(tmp_path, monkeypatch, change, says):
    found = {"name": "node7", "version": ray_cluster.version_of(), "missing": (), **change}
    monkeypatch.setattr(ray_cluster, "_look", lambda paths: ray_cluster._Machine(**found))
    with pytest.raises(RunFolderError, match=f"node7 {says}"):
        ray_cluster._check_machines(FakeRay(), (tmp_path,), tmp_path)
    assert not list(tmp_path.iterdir())


def cells(*devices):
    return [
        SimpleNamespace(name=f"{number}", config=SimpleNamespace(federation=SimpleNamespace(device=device)))
        for number, device in enumerate(devices)
    ]


def machines(*resources):
    nodes = [
        {"Alive": True, "Resources": {"CPU": cores, "GPU": gpus} if gpus else {"CPU": cores}}
        for cores, gpus in resources
    ]
    return SimpleNamespace(nodes=lambda: nodes)


def test_a_cell_takes_its_part_of_a_machine():
    assert ray_cluster._shares(FakeRay(), cells("auto", "cpu"), None) == (2, {"0": (4, 0), "1": (4, 0)})
    several, shares = ray_cluster._shares(FakeRay(), cells(*["auto"] * 100), None)
    assert several == 100
    assert set(shares.values()) == {(1, 0)}


@pytest.mark.parametrize(
    ("resources", "devices", "jobs", "several", "shares"),
    [
        ([(16, 1)], ["auto"] * 16, None, 1, {(16, 1)}),
        ([(16, 1)], ["cpu"] * 16, None, 16, {(1, 0)}),
        ([(16, 4), (64, 0)], ["cuda"] * 16, None, 4, {(4, 1)}),
        ([(16, 4), (32, 2)], ["auto"] * 16, 2, 2, {(8, 1)}),
        ([(16, 1)], ["cuda", "cuda", "cpu"], None, 2, {(8, 1), (8, 0)}),
        ([(64, 1), (4, 0)], ["auto"] * 3, None, 1, {(64, 1)}),
        ([(8, 0), (4, 0)], ["auto"] * 2, None, 2, {(4, 0)}),
    ],
)
def test_no_more_cells_at_once_than_find_a_gpu_have_its_cores(resources, devices, jobs, several, shares):
    at_once, found = ray_cluster._shares(machines(*resources), cells(*devices), jobs)
    assert (at_once, set(found.values())) == (several, shares)
