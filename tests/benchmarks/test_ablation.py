"""The ablation takes back every departure from the paper, and knows its rows before it trains."""

import dataclasses
import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from clients.method import TrainingSettings


@pytest.fixture
def ablation(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("ablation")


def departures(settings: TrainingSettings) -> set[str]:
    """Fields in which settings differ from the default."""
    default = dataclasses.asdict(TrainingSettings.default())
    return {field for field, value in dataclasses.asdict(settings).items() if value != default[field]}


def test_every_departure_is_taken_back_by_a_row_and_every_row_takes_one_back(ablation):
    rows = {name: departures(settings) for name, settings in ablation.VARIANTS.items()}
    assert rows.pop("default") == set()
    assert rows.pop("paper") == set().union(*rows.values()) == departures(TrainingSettings.paper())
    assert all(rows.values())


def test_the_default_is_there_beside_rows_that_are_asked_for(ablation, monkeypatch, tmp_path):
    accuracy = {"ensemble": (70.0, 40.0), "fam": (60.0, 30.0), "mlp": (65.0, 35.0)}
    monkeypatch.setattr(ablation, "load_dataset", lambda source: (SimpleNamespace(name="set"), ()))
    monkeypatch.setattr(ablation, "prepare_features", lambda *_: None)
    monkeypatch.setattr(ablation, "blocks_of", lambda *_: [])
    monkeypatch.setattr(
        ablation,
        "run",
        lambda *arguments: accuracy | ({} if arguments[2] == ablation.DEFAULT else {"ensemble": (69.0, 40.0)}),
    )
    asked = ["ablation", "--data", "PATH/set", "--encoder", "demo", "--out", str(tmp_path), "--only", "paper"]
    monkeypatch.setattr(sys, "argv", asked)
    ablation.main()
    page = (tmp_path / "ablation.md").read_text()
    assert "| default | 70.0 (40.0) |  | 60.0 (30.0) | 65.0 (35.0) |" in page
    assert "--folds 5 --seeds 1 --only paper`" in page
    assert "| paper | 69.0 (40.0) | -1.0 ± 0.0 |" in page


def test_a_row_that_does_not_exist_is_refused_before_anything_trains(ablation, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ablation", "--data", "PATH", "--encoder", "demo", "--only", "nonsense"])
    with pytest.raises(SystemExit):
        ablation.main()
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err
