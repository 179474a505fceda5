"""The page on what privacy costs refuses what it cannot show before anything runs."""

import importlib
import sys
from pathlib import Path

import pytest


def test_a_single_run_of_each_row_is_refused_before_it_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    privacy_utility = importlib.import_module("privacy_utility")
    asked = ["privacy_utility", "--data", "PATH", "--encoder", "demo", "--seeds", "1", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", asked)
    with pytest.raises(SystemExit):
        privacy_utility.main()
    assert "use at least 2" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
