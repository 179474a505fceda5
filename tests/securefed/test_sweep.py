"""Sweeps: the grid, one table, cells that are not run twice."""

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import read_events
from audit.accounting import Adjacency
from audit.ledger import Budget, BudgetLine, Ledger, Policy
from audit.report import write_report
from audit.site_folder import site_folder_name
from audit.verify import verify_run
from clients.data import DataError
from clients.data.feature_table import read_feature_table, write_feature_table
from clients.encoders import export_features
from securefed.config import config_digest, load_config
from securefed.errors import ConfigError, RunFolderError
from securefed.observer import Observer
from securefed.sweep import run as sweep_run
from securefed.sweep.cell import FAILED, FINISHED, WAITING
from securefed.sweep.plan import read_plan
from securefed.sweep.run import look_up_all, run_sweep
from securefed.sweep.table import _figures
from tests.securefed.conftest import bundle


def test_every_combination_is_one_cell_with_its_own_configuration(sweep_file):
    plan = read_plan(sweep_file('"federation.seed" = [0, 1]\n"federation.method" = ["fedclip", "local", "fedclip"]'))
    assert plan.keys == ("federation.seed", "federation.method")
    assert [tuple(cell.values.values()) for cell in plan.cells] == [
        (0, "fedclip"),
        (0, "local"),
        (1, "fedclip"),
        (1, "local"),
    ]
    assert all(cell.config.federation.rounds == 2 for cell in plan.cells)
    assert [config_digest(cell.config) for cell in plan.cells] == [cell.digest for cell in plan.cells]


def test_unquoted_keys_and_profiles_and_overrides_are_understood(sweep_file):
    path = sweep_file('federation.seed = [3]\ntraining.profile = ["default", "paper"]')
    plan = read_plan(path, {"federation.rounds": 5})
    assert [cell.config.training.fam_loss for cell in plan.cells] == ["class-prompt", "contrastive"]
    assert all(cell.config.federation.rounds == 5 for cell in plan.cells)


def test_cells_are_named_as_written_and_know_their_ledger_as_their_runs_do(sweep_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = {"privacy.mode": "local", "privacy.epsilon": 8.0, "privacy.ledger": "ledger.sqlite"}
    (cell,) = read_plan(sweep_file("federation.rounds = [2]"), more).cells
    (absolute,) = read_plan(
        sweep_file("federation.rounds = [2]"), {**more, "privacy.ledger": f"{Path.cwd()}/ledger.sqlite"}
    ).cells
    assert cell.digests == (config_digest(cell.config), absolute.digest)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (again,) = read_plan(sweep_file("federation.rounds = [2]"), more).cells
    assert again.name == cell.name
    assert absolute.digest not in again.digests  # another ledger


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("", r"grid: is missing; write \[grid\]"),
        ('"federation.seed" = 3', r"grid.federation.seed: 3 is no list of values; write \[3\]"),
        ('"federation.seed" = []', "grid.federation.seed: is an empty list; write at least one value"),
        ("seed = [1]", "write SECTION.KEY"),
        (
            'federation.seed = [0]\n"federation.seed" = [1]',
            "grid.federation.seed: is there twice",
        ),
        ('"federation.seed" = [9007199254740993]', r"federation.seed: is beyond 2\*\*53 - 1"),
        ('"federation.sed" = [1]', "federation.sed: unknown key; did you mean seed"),
        ('"federation.seed" = [0, -1]', r"in the cell federation.seed=-1"),
        ('"federation.seed" = ["a"]', "must be of type int"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(sweep_file, grid, message):
    with pytest.raises(ConfigError, match=message):
        read_plan(sweep_file(grid))


def test_grids_that_nobody_can_mean_are_refused(sweep_file, tmp_path):
    numbers = list(range(400))
    with pytest.raises(ConfigError, match="160,000 combinations"):
        read_plan(sweep_file(f'"federation.seed" = {numbers}\n"federation.rounds" = {numbers}'))
    with pytest.raises(ConfigError, match="is varied by the grid"):
        read_plan(sweep_file('"federation.seed" = [1]'), {"federation.seed": 2})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plan(tmp_path / "none.toml")


def test_a_sweep_ends_in_one_table_and_is_not_run_twice(sweep_file, tmp_path, monkeypatch):
    plan = read_plan(sweep_file('"federation.seed" = [0, 1]\n"federation.method" = ["fedmedclip", "zero-shot"]'))
    folder = tmp_path / "out"
    assert {result.status for result in look_up_all(plan, folder).values()} == {WAITING}
    seen = []
    result = run_sweep(plan, folder, jobs=1, finished=lambda cell, _: seen.append(cell.name))
    assert seen == [cell.name for cell in plan.cells]
    assert result.failed == 0
    with (folder / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "cell", "status", "federation.seed", "federation.method", "site", "part", "metric", "value",
    ]  # fmt: skip
    for cell in plan.cells:
        summary = json.loads((folder / "cells" / cell.name / "summary.json").read_text())
        mine = {(r["site"], r["part"], r["metric"]): float(r["value"]) for r in rows if r["cell"] == cell.name}
        assert mine["mean over sites", "ensemble", "accuracy"] == summary["mean"]["ensemble"]["accuracy"]
        assert mine["site3", "ensemble", "auroc"] == summary["sites"]["site3"]["test"]["ensemble"]["auroc"]
        assert mine["site3", "ensemble", "num_images"] == summary["sites"]["site3"]["test"]["ensemble"]["num_images"]
        assert ("mean over sites", "ensemble", "num_images") not in mine
        assert mine["", "run", "upload_bytes"] == summary["communication"]["upload_bytes"]
    table = pq.read_table(folder / "results.parquet").to_pylist()
    assert [(str(row["federation.seed"]), row["value"]) for row in table] == [
        (row["federation.seed"], float(row["value"])) for row in rows
    ]
    assert (folder / "plots/accuracy_by_federation_method.svg").stat().st_size > 1000

    monkeypatch.setattr(sweep_run, "run_cell", lambda *_: pytest.fail("a finished cell was run again"))
    again = run_sweep(plan, folder, jobs=1)
    assert {name: r.summary for name, r in again.results.items()} == {n: r.summary for n, r in result.results.items()}


@pytest.mark.parametrize("private", ["", '[privacy]\nmode = "local"\nepsilon = 8.0\n'])
def test_cells_on_data_that_have_changed_do_not_stand_beside_new_ones(sweep_file, features_file, tmp_path, private):
    """Two sites less and the same configuration: what was finished before is no result on the same data."""
    path, folder = tmp_path / "changing.safetensors", tmp_path / "out"

    def plan(seeds):
        grid = sweep_file(f'"federation.seed" = {seeds}', private)
        grid.write_text(grid.read_text().replace(str(features_file), str(path)))
        return read_plan(grid)

    export_features(bundle(), path)
    assert run_sweep(plan([0]), folder, jobs=1).failed == 0
    export_features(bundle(sites=3), path)
    with pytest.raises(RunFolderError, match=r"the data of its run differs .* name another folder with --output"):
        run_sweep(plan([0, 1]), folder, jobs=1)
    assert len(list((folder / "cells").iterdir())) == 1
    export_features(replace(bundle(), encoder_digest="1" * 64), path)
    with pytest.raises(RunFolderError, match="the encoder of its run differs"):
        run_sweep(plan([0, 1]), folder, jobs=1)
    export_features(replace(bundle(), logit_scale=49.0), path)
    with pytest.raises(RunFolderError, match="the file of features of its run differs"):
        run_sweep(plan([0, 1]), folder, jobs=1)
    export_features(bundle(), path)
    assert run_sweep(plan([0, 1]), folder, jobs=1).failed == 0


@pytest.mark.parametrize("change", [{"logit_scale": 49.0}, {"encoder_digest": "1" * 64}])
def test_finished_cells_that_read_the_same_images_another_way_are_held_to_them(
    sweep_file, features_file, tmp_path, change
):
    """The grid varies how the data are read, so that no cell that is left has the settings of a finished one."""
    path = tmp_path / "changing.safetensors"

    def plan(held_out):
        grid = sweep_file(f'"data.global_site" = {held_out}')
        grid.write_text(grid.read_text().replace(str(features_file), str(path)))
        return read_plan(grid)

    export_features(bundle(), path)
    assert run_sweep(plan('[""]'), tmp_path / "out", jobs=1).failed == 0
    export_features(replace(bundle(), **change), path)
    with pytest.raises(RunFolderError, match="of its run differs"):
        run_sweep(plan('["", "site1"]'), tmp_path / "out", jobs=1)
    path.unlink()
    with pytest.raises(DataError, match="changing"):
        run_sweep(plan('["", "site1"]'), tmp_path / "out", jobs=1)


def test_what_is_to_be_said_of_images_is_said_once_and_a_cell_that_cannot_use_them_fails_alone(
    sweep_file, features_file, tmp_path
):
    path, told = tmp_path / "one.npz", []
    export_features(bundle(sites=1), path)
    write_feature_table(replace(read_feature_table(path), splits=()), path)
    grid = sweep_file('"data.clients" = [1000, 4, 5]')
    grid.write_text(grid.read_text().replace(str(features_file), str(path)))
    observer = Observer()
    observer.warned = told.append
    plan = read_plan(grid)
    results = run_sweep(plan, tmp_path / "out", jobs=1, observer=observer).results
    assert [results[cell.name].status for cell in plan.cells] == [FAILED, FINISHED, FINISHED]
    assert results[plan.cells[0].name].error.startswith("PartitionError")
    assert len([text for text in told if "are split by their content" in text]) == 1
    assert all(text.startswith(f"features:{path}: ") for text in told)


def test_a_cell_that_breaks_a_rule_of_privacy_is_refused_before_anything_runs(sweep_file):
    grid = '"federation.select" = ["last", "best-val"]'
    with pytest.raises(
        ConfigError, match=r"federation.select: best-val: .* \(in the cell federation.select='best-val'\)"
    ):
        read_plan(sweep_file(grid, '[privacy]\nmode = "local"\nepsilon = 8.0'))


NAMES = ("St. Mary's (N)", "Köln 2", "K-ln-2", "K ln 2", "n" * 90)


def test_hospitals_may_have_any_names_and_none_passes_for_another(sweep_file, features_file, tmp_path):
    made = bundle()
    sites = tuple(replace(site, site=name) for site, name in zip(made.sites, NAMES, strict=True))
    path = tmp_path / "names.safetensors"
    export_features(replace(made, sites=sites), path)
    grid = sweep_file('"federation.seed" = [0]')
    grid.write_text(grid.read_text().replace(str(features_file), str(path)))
    plan = read_plan(grid)
    ended = run_sweep(plan, tmp_path / "out", jobs=1).results[plan.cells[0].name]
    assert (ended.status, ended.error) == (FINISHED, "")
    folder = tmp_path / "out/cells" / plan.cells[0].name
    found = verify_run(folder, report=True)
    assert found.is_verified, found.failed
    assert "(15 copies as hospitals kept them), signed by 6 of 6 parties" in found.checks[2].detail
    assert all(name in (folder / "report.json").read_text() for name in NAMES)
    mine, other = (folder / "sites" / site_folder_name(name) / "heads.jsonl" for name in NAMES[1:3])
    mine.write_bytes(other.read_bytes())
    assert "lacks the countersignature of 'Köln 2'" in verify_run(folder).failed[0].detail


def test_cells_in_processes_have_the_results_of_cells_in_this_one(sweep_file, tmp_path):
    plan = read_plan(sweep_file('"federation.seed" = [0, 1]', more='select = "last"'))
    here, there = (run_sweep(plan, tmp_path / f"{jobs}", jobs=jobs).results for jobs in (1, 2))
    for cell in plan.cells:
        a, b = here[cell.name].summary, there[cell.name].summary
        assert (a["fam_sha256"], a["sites"]) == (b["fam_sha256"], b["sites"])


def test_a_cell_that_fails_is_a_line_of_the_table_and_the_others_run(sweep_file, tmp_path):
    lost = '["site0@1:ShareKeys", "site1@1:ShareKeys", "site2@1:ShareKeys", "site3@1:ShareKeys"]'
    plan = read_plan(sweep_file(f'"simulation.drop" = [{lost}, []]'))
    result = run_sweep(plan, tmp_path / "out", jobs=1)
    assert [result.results[cell.name].status for cell in plan.cells] == [FAILED, FINISHED]
    assert "was aborted" in result.results[plan.cells[0].name].error
    assert result.failed == 1
    with (tmp_path / "out/results.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert (first["status"], first["value"]) == ("failed", "")


def test_a_cell_that_diverges_fails_alone(sweep_file, tmp_path):
    plan = read_plan(sweep_file('"training.fam_learning_rate" = [1e20, 5e-4]', 'method = "local"'))
    result = run_sweep(plan, tmp_path / "out", jobs=1)
    results = [result.results[cell.name] for cell in plan.cells]
    assert [result.status for result in results] == [FAILED, FINISHED]
    assert results[0].error.startswith("DivergedError: training diverged at site0")


def test_a_cell_fails_alone_of_a_fault_that_nobody_foresaw_and_its_trace_is_kept(sweep_file, tmp_path, monkeypatch):
    plan, faults = read_plan(sweep_file('"federation.seed" = [0, 1]')), iter([ValueError("no\udcff such")])

    def draw_plots(*_):
        for fault in faults:
            raise fault

    monkeypatch.setattr("securefed.outcome.draw_plots", draw_plots)
    result = run_sweep(plan, tmp_path / "out", jobs=1)
    first, second = (result.results[cell.name] for cell in plan.cells)
    trace = tmp_path / "out" / "cells" / f"{first.name}.traceback.txt"
    assert (first.status, second.status) == (FAILED, FINISHED)
    assert first.error == f"ValueError: no\udcff such; see {trace}"
    assert "in draw_plots" in trace.read_text()
    assert run_sweep(plan, tmp_path / "out", jobs=1).failed == 0
    assert not trace.exists()


@pytest.mark.parametrize("content", ["[]", "null", "3", "{"])
def test_a_summary_that_is_no_object_is_told_in_one_line(sweep_file, tmp_path, content):
    plan = read_plan(sweep_file('"federation.seed" = [0, 1]'))
    folder = tmp_path / "out" / "cells" / plan.cells[0].name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"is damaged .*; remove its folder to run the cell again"):
        look_up_all(plan, tmp_path / "out")


def test_a_cell_that_a_budget_does_not_bear_fails_alone(sweep_file, tmp_path):
    path, signer = tmp_path / "ledger.sqlite", Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    budget = Budget(2.0, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
    with Ledger(path) as ledger:
        ledger.install(Policy({BudgetLine(f"site{number}", "image"): budget for number in range(5)}))
    private = f'[privacy]\nmode = "distributed"\nledger = "{path}"\n[training]\nfam_width = 4'
    plan = read_plan(sweep_file('"privacy.epsilon" = [8.0, 1.0]', private))
    result = run_sweep(plan, tmp_path / "out", jobs=1)
    assert [result.results[cell.name].status for cell in plan.cells] == [FAILED, FINISHED]
    assert result.results[plan.cells[0].name].error.startswith("BudgetExceededError: ")
    for _ in range(2):  # tried again: nothing was interrupted, and nothing is left beside the cells
        assert run_sweep(plan, tmp_path / "out", jobs=1).failed == 1
    assert {path.name for path in (tmp_path / "out/cells").iterdir()} == {cell.name for cell in plan.cells}


@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("local", "securefed.evidence.RunEvidence.completed"),
        ("fedmedclip", "securefed.ended.delete_checkpoint"),
        ("fedmedclip", "securefed.ended.write_report"),
    ],
)
def test_a_cell_that_was_cut_off_behind_its_summary_is_finished(sweep_file, tmp_path, monkeypatch, method, step):
    plan = read_plan(sweep_file(f'"federation.method" = ["{method}"]'))

    def interrupted(*_, **__):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(plan, tmp_path / "out", jobs=1)
    (cell,) = plan.cells
    folder = tmp_path / "out" / "cells" / cell.name
    assert (folder / "summary.json").exists()
    assert look_up_all(plan, tmp_path / "out")[cell.name].status == WAITING
    assert run_sweep(plan, tmp_path / "out", jobs=1).results[cell.name].status == FINISHED
    assert look_up_all(plan, tmp_path / "out")[cell.name].status == FINISHED
    assert [path.name for path in folder.parent.iterdir()] == [cell.name]
    assert not (folder / "checkpoint").exists()
    assert read_events(folder / "audit.jsonl")[-1].kind == "run_completed"
    assert (folder / "report.html").exists()


def test_a_cell_whose_record_does_not_verify_fails_until_it_does(sweep_file, tmp_path, monkeypatch):
    plan = read_plan(sweep_file('"federation.method" = ["local"]'))
    folder = tmp_path / "out" / "cells" / plan.cells[0].name

    whole = []

    def changed(run, **arguments):
        whole.append((run / "metrics.csv").read_bytes())
        (run / "metrics.csv").write_text("another")
        return write_report(run, **arguments)

    monkeypatch.setattr("securefed.ended.write_report", changed)
    for _ in range(2):
        result = run_sweep(plan, tmp_path / "out", jobs=1)
        (found,) = result.results.values()
        assert (found.status, result.failed) == (FAILED, 1)
        assert found.error == f"RunFolderError: {folder}: holds a record that does not verify: see audit verify"
        assert look_up_all(plan, tmp_path / "out")[plan.cells[0].name].status == FAILED
    monkeypatch.setattr("securefed.ended.write_report", write_report)
    (folder / "metrics.csv").write_bytes(whole[0])
    assert run_sweep(plan, tmp_path / "out", jobs=1).results[plan.cells[0].name].status == FINISHED


def test_a_folder_of_other_runs_is_refused(sweep_file, tmp_path):
    plan = read_plan(sweep_file('"federation.seed" = [0]'))
    cell = tmp_path / "out/cells" / plan.cells[0].name
    cell.mkdir(parents=True)
    (cell / "summary.json").write_text('{"config_digest": "00"}')
    with pytest.raises(RunFolderError, match="another configuration"):
        run_sweep(plan, tmp_path / "out", jobs=1)
    (cell / "summary.json").write_text("{")
    with pytest.raises(RunFolderError, match="damaged"):
        look_up_all(plan, tmp_path / "out")


def test_images_that_cells_share_are_encoded_once_before_they_start(tmp_path, monkeypatch):
    configs = [load_config(None, {"federation.seed": seed, "federation.device": "cpu"}) for seed in (0, 1)]
    configs.append(load_config(None, {"encoder.prompt": "a scan of {class}", "federation.device": "cpu"}))
    asked = []

    def encode(config, *_):
        asked.append(config.encoder.prompt)
        return bundle()

    monkeypatch.setattr(sweep_run, "load_sites", lambda data, seed: (data, ()))
    monkeypatch.setattr(sweep_run, "encode_sites", encode)
    sweep_run.encode_once(configs, Path(tmp_path), None)
    assert asked == ["a picture of a {class}", "a scan of {class}"]


def test_the_table_has_an_epsilon_only_where_one_is_claimed():
    """A run with noise from its seed has a figure in its summary, and promises nothing."""
    summary = {
        "sites": {},
        "mean": {},
        "global_site": None,
        "rounds_completed": 1,
        "chosen_round": 1,
        "communication": dict.fromkeys(("upload_bytes", "download_bytes", "upload_bytes_per_client_round"), 1),
        "timing": {},
    }
    for claim, stated in (("CLAIMED: all", [7.999]), ("NOT CLAIMED: the seed is known", [])):
        privacy = {"epsilon": 7.999, "claim": claim}
        figures = _figures({**summary, "privacy": privacy})
        assert [value for _, _, name, value in figures if name == "epsilon"] == stated
