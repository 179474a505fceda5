"""Updates beyond their public range are told of: in metrics.csv, in the record and its report, and to who watches."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from audit.log import read_events
from audit.verify import verify_run
from protocols.codec import FixedPointCodec
from securefed.compression import Contribution
from securefed.fixed_point import FixedPointSite
from securefed.observer import Observer
from securefed.round_rows import ClampingWatch
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


@pytest.mark.parametrize(("share", "said"), [(0.0099, 0), (0.01, 1), (0.5, 1)])
def test_a_run_is_warned_of_once_from_one_coordinate_in_a_hundred(small_run, share, said):
    observer = Listening()
    watch = ClampingWatch(SimpleNamespace(config=small_run(), compression=SimpleNamespace(scheme="none")), observer)
    for number in (1, 2):
        watch.see(number, share)
    assert len(observer.warnings) == said


@pytest.mark.parametrize(("clamped", "count"), [(0, 0), (1, 1), (100, 1), (101, 2), (10_000, 100)])
def test_a_single_clamped_coordinate_shows_though_the_counter_is_coarser(clamped, count):
    """The counter has 100 steps for 10,000 coordinates: it is rounded up."""
    codec = FixedPointCodec([10_000], [1.0], 8, max_counters=(100, 100))
    site = FixedPointSite("north", codec, lambda _site, _number: np.random.default_rng(0))
    update = np.zeros(10_000, np.float32)
    update[:clamped] = 2.0
    encoded = site.encode(1, codec.digest, Contribution(update, 0.25))
    assert encoded.lanes(16)[-2:].tolist() == [25, count]
