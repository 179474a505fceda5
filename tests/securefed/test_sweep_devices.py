"""Sweeps some of whose cells ask for a GPU that this machine lacks."""

from pathlib import Path

import pytest
import torch

from clients.data import DataWarning
from securefed.config import load_config
from securefed.observer import Observer
from securefed.sweep import run as sweep_run
from securefed.sweep.cell import FAILED, FINISHED, CellResult
from securefed.sweep.plan import read_plan
from securefed.sweep.run import run_sweep
from tests.securefed.conftest import bundle

ON_BOTH = '[federation]\nrounds = 1\nmethod = "zero-shot"\n[grid]\n"federation.device" = ["cuda", "cpu"]\n'


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def on_both(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(ON_BOTH)
    return read_plan(path)


def test_a_cell_that_asks_for_a_gpu_that_is_not_there_fails_alone_each_time(on_both, tmp_path):
    for _ in range(2):
        result = run_sweep(on_both, tmp_path / "out", jobs=1, cache_dir=tmp_path / "cache")
        results = [result.results[cell.name] for cell in on_both.cells]
        assert [result.status for result in results] == [FAILED, FINISHED]
        assert results[0].error.startswith("ConfigError: federation.device: cuda is asked for")


def test_a_machine_without_a_gpu_refuses_no_cell_that_a_cluster_could_run(on_both, tmp_path, monkeypatch):
    """Not even beside one that has finished there."""
    given = []

    def cluster(_address, left, *_):
        given.extend(left)
        yield from ((cell, CellResult(cell.name, FAILED, error="it was not run")) for cell in left)

    monkeypatch.setattr(sweep_run, "run_on_ray", cluster)
    cache = tmp_path / "cache"
    run_sweep(on_both, tmp_path / "out", cluster="local", cache_dir=cache)
    assert given == list(on_both.cells)

    known = {cell.name: CellResult(cell.name, FINISHED, {"provenance": {}}) for cell in on_both.cells[:1]}
    left = {cell.name: CellResult(cell.name, FAILED) for cell in on_both.cells[1:]}
    held = []
    monkeypatch.setattr(sweep_run, "require_same_data", lambda _folder, result, *_: held.append(result.name))
    sweep_run._check_finished(on_both, known | left, tmp_path, cache, Observer())
    assert held == list(known)


def test_cells_without_their_gpu_keep_no_others_from_being_encoded_once(monkeypatch):
    devices = ("cuda", "cuda", "cpu", "auto")
    configs = [load_config(None, {"federation.seed": seed, "federation.device": d}) for seed, d in enumerate(devices)]
    asked, told, loaded = [], [], []

    def load(data, seed):
        loaded.append(seed)
        return data, (DataWarning("few", 1, (), "few images"),)

    monkeypatch.setattr(sweep_run, "load_sites", load)
    monkeypatch.setattr(sweep_run, "encode_sites", lambda *arguments: asked.append(arguments[2]) or bundle())
    observer = Observer()
    observer.warned = told.append
    sweep_run.encode_once(configs, Path("cache"), observer)
    assert (asked, loaded, told) == (["cpu"], [0, 2], ["demo: few images"])
