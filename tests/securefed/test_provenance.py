"""The record names the code that ran, where that can be known."""

import re
import subprocess

from audit.events import check_fields
from securefed import provenance


def test_a_checkout_states_its_commit_and_whether_it_was_changed():
    found = provenance.source_of()
    header = {"format": "securefed-audit-log/1", "run_id": "r", "operation": "simulation"}
    check_fields("run_started", {**header, **found})
    if found:
        assert re.fullmatch("[0-9a-f]{40}", found["commit"])
        assert isinstance(found["modified"], bool)


def test_without_git_nothing_is_stated(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.source_of() == {}
    (tmp_path / ".git").mkdir()
    assert provenance.source_of() == {}

    def absent(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", absent)
    assert provenance.source_of() == {}


def test_the_version_is_known_without_an_installation(monkeypatch, tmp_path):
    assert re.match(r"\d+\.\d+", provenance.version_of())
    monkeypatch.setattr("importlib.metadata.version", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name)))
    monkeypatch.setattr(provenance.importlib.metadata, "PackageNotFoundError", ModuleNotFoundError)
    assert provenance.version_of().endswith("(checkout)")
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.version_of() == "not installed"
