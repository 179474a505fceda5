"""The benchmark of verification runs to its end on a small log."""

import importlib
import sys
from pathlib import Path


def test_a_small_log_is_written_signed_and_verified(monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["verify_log.py", "200"])
    importlib.import_module("verify_log").main()
    out = capsys.readouterr().out
    assert "signed by 4 of 4 parties" in out
    assert "verified in" in out
