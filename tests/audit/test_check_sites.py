"""A record speaks of one set of hospitals, and states one set of test metrics."""

import json

import pytest

from audit.check_terms import check_terms
from audit.errors import EvidenceError
from audit.report.privacy import hospitals_of
from audit.verify import Outcome, verify_run
from tests.audit.runs import SITES, Run
from tests.audit.tampering import edited, failure

METRICS = {site: {"ensemble": {"accuracy": 0.5, "auroc": None}} for site in SITES}


@pytest.fixture
def described(tmp_path):
    run = Run(tmp_path / "run", rounds=0)
    data = {"name": "scans", "fingerprint": "ab" * 32, "sites": [*SITES, "far"], "held_out_site": "far"}
    run.log.append("data_described", {**data, "classes": ["a", "b"]})
    for number in (1, 2, 3):
        run.round(number)
    run.log.append("evaluation", {"round": 3, "split": "test", "leaves_hospital": False, "values": METRICS})
    sites = {site: {"val": {}, "test": parts} for site, parts in METRICS.items()}
    return run.complete(3, sites=sites, global_site=None)


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


def test_how_many_may_collude_is_one_in_five_where_nobody_configured_it(tmp_path):
    run = Run(tmp_path / "run", rounds=0, masked=True, sites=tuple(f"h{number}" for number in range(5)))
    terms = {"secure_aggregation": True, "clients": 5, "dimension": 2, "threat_model": "active", "threshold": 4}
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
