"""A record speaks of one set of hospitals, and states one set of test metrics."""

import json
import shutil
from dataclasses import replace

import pytest

from audit.canonical import decode_canonical
from audit.check_sites import check_sites
from audit.check_terms import check_terms
from audit.errors import EvidenceError
from audit.history import read_history
from audit.log import Event, read_events
from audit.report.privacy import hospitals_of
from audit.verify import Outcome, verify_run
from tests.audit.runs import SITES, Run, rechained, signed_again
from tests.audit.tampering import edited, failure, lines_of

METRICS = {site: {"ensemble": {"accuracy": 0.5, "auroc": None}} for site in SITES}


@pytest.fixture
def described(tmp_path):
    run = Run(tmp_path / "run", rounds=0)
    data = {"name": "scans", "fingerprint": "ab" * 32, "sites": [*SITES, "far"], "held_out_site": "far"}
    run.log.append("data_described", {**data, "classes": ["a", "b"]})
    for number in (1, 2, 3):
        run.round(number)
    run.log.append("evaluation", {"round": 3, "split": "test", "leaves_hospital": False, "values": METRICS})
    return run.complete()


@pytest.mark.parametrize(
    ("sites", "reason"),
    [
        (["somebody", "far"], "north: the roster names, and no data of it are described"),
        ([*SITES[1:], "far"], "north: the roster names, and no data of it are described"),
        ([*SITES, "far", "aaron"], "aaron: data are described, and the roster does not name it"),
    ],
)
def test_the_hospitals_of_the_data_are_those_of_the_roster(described, sites, reason):
    assert verify_run(described).is_verified
    at = edited(described, "data_described", lambda fields: fields.update(sites=sites))
    assert failure(described) == (at, f"event {at}: {reason}")
    assert set(SITES) <= set(hospitals_of(verify_run(described).history))  # who took part is never left out of a report


def test_metrics_in_the_log_and_in_the_summary_are_one(described):
    summary = json.loads((described / "summary.json").read_text())
    assert summary["sites"]["west"]["test"] == METRICS["west"]
    forged = {**METRICS, "west": {"ensemble": {"accuracy": 0.999, "auroc": None}}}
    at = edited(described, "evaluation", lambda fields: fields.update(values=forged))
    first, reason = failure(described)
    assert first == at
    assert "summary.json has other metrics of west on test images than the log" in reason


@pytest.mark.parametrize(
    ("kind", "hospital"), [("privacy_event", "far"), ("privacy_event", "nobody"), ("charge", "nobody")]
)
def test_what_is_paid_is_paid_by_hospitals_whose_data_are_described(private_run, kind, hospital):
    read = read_history(read_events(private_run / "audit.jsonl"))
    check_sites(read)
    fields = {"hospital": hospital, "release_id": "x"} if kind == "charge" else dict(read.last(kind).fields)
    stranger = Event(len(read.events), kind, "", "", fields | {"hospital": hospital}, b"")
    with pytest.raises(EvidenceError, match=f"{kind} is of {hospital}, of which no data are described"):
        check_sites(replace(read, events=(*read.events, stranger)))


def test_who_is_asked_has_data_that_are_described(complete_run):
    read = read_history(read_events(complete_run / "audit.jsonl"))
    asked = replace(read.rounds[1], cohort=(*SITES, "nobody"))
    with pytest.raises(EvidenceError, match="nobody was asked, and no data of it are described") as caught:
        check_sites(replace(read, rounds=(read.rounds[0], asked)))
    assert caught.value.seq == asked.seq


def without(folder, kind):
    """Take all events of a kind out of a record and make chain and signatures good again."""
    for site in SITES:
        shutil.rmtree(folder / "sites" / site)
    signed_again(folder, rechained([line for line in lines_of(folder) if decode_canonical(line)["kind"] != kind]))


def test_rounds_over_data_that_nobody_described_are_found(complete_run):
    without(complete_run, "data_described")
    assert "a round was finished, and no data are described" in failure(complete_run)[1]


def test_how_many_may_collude_is_one_in_five_where_nobody_configured_it(tmp_path):
    run = Run(tmp_path / "run", rounds=0, masked=True, sites=tuple(f"h{number}" for number in range(5)))
    terms = {"secure_aggregation": True, "clients": 5, "dimension": 1000, "threat_model": "active", "threshold": 4}
    run.log.append("protocol_described", {**terms, "corrupt": 2})
    run.round(1)
    verified = verify_run(run.complete(1))
    checks = {check.name: check for check in verified.checks}
    assert checks["sums"].outcome is Outcome.PASS
    with pytest.raises(EvidenceError, match=r"has 2, .*corrupt = -1, one in five"):
        check_terms(verified.history)


def test_a_hospital_that_has_signed_a_head_over_its_sums_may_be_gone_at_the_next_one(tmp_path):
    run = Run(tmp_path / "run")  # all have signed the head after round 3
    run.book.publish(3, run.witnesses[:2])  # the same head once more, for one that had been away
    run.witnesses = run.witnesses[:2]
    verified = verify_run(run.complete())
    assert verified.is_verified, verified.checks
    assert verified.unsigned_by == ("west",)  # of the end


def test_a_hospital_that_signed_no_head_over_its_last_sum_is_missing(tmp_path):
    run = Run(tmp_path / "run", rounds=2)
    run.witnesses = run.witnesses[:2]
    run.round(3)
    folder = run.complete()
    assert "lacks the countersignature of 'west'" in failure(folder)[1]
