"""The table of accuracies says how far its figures vary, and what they were made with."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def accuracy(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("accuracy")


def run(accuracy: float, balanced: float, **more: object) -> dict:
    return {"mean": {"ensemble": {"accuracy": accuracy, "balanced_accuracy": balanced}}, **more}


def test_a_cell_gives_the_deviation_of_both_accuracies(accuracy):
    assert accuracy.cell([run(0.68, 0.40), run(0.70, 0.46)], "ensemble") == "69.0 ± 1.4 (43.0 ± 4.2)"
    assert accuracy.cell([run(0.68, 0.40)], "ensemble") == "68.0 (40.0)"
    assert accuracy.cell([run(0.68, 0.40)], "mlp") == ""


def test_a_table_names_processor_and_commit_of_its_runs(accuracy):
    origin = accuracy.origin()
    assert origin["processor"]
    assert origin["commit"] == "unknown" or re.fullmatch("[0-9a-f]{40}(-dirty)?", origin["commit"])
    results = {"data": {"a": [run(1, 1, origin=origin)], "b": [run(1, 1, origin=accuracy.UNKNOWN)]}}
    shown = accuracy.shown_origins(results)
    assert f"on {origin['processor']} at commit {origin['commit']}" in shown
    assert shown.count("commit") == 2
