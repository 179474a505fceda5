"""The declared purpose: every field of the report can be declared, and a run records what was."""

import dataclasses

import pytest

from audit.log import read_events
from audit.report import build_report
from audit.report.purpose import PURPOSE_FIELDS
from securefed.config import PurposeConfig, load_config
from securefed.errors import ConfigError
from securefed.simulation import simulate


def test_configuration_and_report_name_the_same_fields():
    assert [field.name for field in dataclasses.fields(PurposeConfig)] == [name for name, _ in PURPOSE_FIELDS]


def test_a_run_records_what_was_declared_and_reports_the_rest_as_open(small_run, tmp_path):
    declared = {"purpose": "triage of trees", "region": "EU", "access_control": "the forester alone"}
    run = simulate(small_run(federation={"rounds": 1}, purpose=declared), output=tmp_path / "run")
    events = [event for event in read_events(run.folder.log) if event.kind == "purpose"]
    assert [event.fields["values"] for event in events] == [declared]
    report = build_report(run.folder.path)
    assert len(report["purpose"]["open_items"]) == len(PURPOSE_FIELDS) - 3
    assert {field["name"]: field["value"] for field in report["purpose"]["fields"]}["region"] == "EU"
    assert report["questions"][11] == {
        "question": "Who can reach the raw data and the keys?",
        "answer": "the forester alone",
        "state": "answered",
    }


def test_nothing_declared_leaves_no_event(small_run, tmp_path):
    run = simulate(small_run(federation={"rounds": 1}), output=tmp_path / "run")
    assert not [event for event in read_events(run.folder.log) if event.kind == "purpose"]


@pytest.mark.parametrize(
    ("value", "says"), [("a\nb", "on one line"), ("x" * 4001, "4001 characters"), (3, "must be of type str")]
)
def test_what_cannot_stand_in_the_log_is_refused(value, says):
    with pytest.raises(ConfigError, match=says):
        load_config(None, {"purpose.purpose": value})


def test_an_unknown_field_is_refused():
    with pytest.raises(ConfigError, match="did you mean controller"):
        load_config(None, {"purpose.controler": "x"})
