"""Updates beyond their public range are told of: in metrics.csv, in the record and its report, and to who watches."""

import json
import re

import pytest

from audit.log import read_events
from audit.verify import verify_run
from securefed.observer import Observer
from securefed.run_folder import read_metric_rows
from securefed.simulation import simulate


class Listening(Observer):
    def __init__(self):
        self.warnings = []

    def warned(self, text):
        self.warnings.append(text)


def run(config, folder):
    observer = Listening()
    simulate(config, output=folder, observer=observer)
    shares = {row.round: row.value for row in read_metric_rows(folder / "metrics.csv") if row.metric == "clamped"}
    rounds = [event.fields for event in read_events(folder / "audit.jsonl") if event.kind == "round_completed"]
    counts = {fields["round"]: fields["clamped"] for fields in rounds if "clamped" in fields}
    said = [line for line in json.loads((folder / "report.json").read_text())["limitations"] if "clamped" in line]
    return observer.warnings, shares, counts, said


@pytest.mark.parametrize("enabled", [True, False])
def test_clamped_updates_are_warned_of_once_and_stand_in_every_record(small_run, tmp_path, enabled):
    config = small_run(secure_aggregation={"update_range": 1e-4, "enabled": enabled})
    warnings, shares, counts, said = run(config, tmp_path / "run")
    (warning,) = [text for text in warnings if "clamped" in text]
    assert f"in round 1 hospitals clamped {shares[1]:.1%}" in warning
    assert "Raise secure_aggregation.update_range" in warning
    assert set(shares) == set(counts) == {1, 2, 3}
    assert all(0.01 < share <= 1 for share in shares.values())
    (event,) = [event for event in read_events(tmp_path / "run/audit.jsonl") if event.kind == "protocol_described"]
    coordinates = 5 * event.fields["dimension"]
    assert counts == {number: round(share * coordinates) for number, share in shares.items()}
    (line,) = said
    stated = re.match(r"Hospitals clamped up to ([\d.e-]+) % of the coordinates", line)[1]
    most = 100 * max(counts.values()) / coordinates
    assert most <= float(stated) <= most * 1.001
    assert verify_run(tmp_path / "run").is_verified


def test_nothing_is_said_where_nothing_is_clamped(small_run, tmp_path):
    warnings, shares, counts, said = run(small_run(), tmp_path / "run")
    assert [text for text in warnings if "clamped" in text] == []
    assert (shares, counts, said) == ({}, {}, [])


def test_ranges_that_follow_the_updates_are_no_cause_of_a_warning(small_run, tmp_path):
    config = small_run(secure_aggregation={"compression": "ring:4", "update_range": 1e-4})
    warnings, *_ = run(config, tmp_path / "run")
    assert [text for text in warnings if "clamped" in text] == []
