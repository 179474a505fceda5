"""What single vectors cost whoever opens them, where a round with noise in shares was begun again."""

import json

import pytest

from audit.accounting import Repeated, against_broken_aggregation, mechanism_of, upper_epsilon
from audit.log import read_events
from audit.verify import verify_run
from securefed.errors import RoundAbortedError
from securefed.nodes.simulated import SimulatedSites
from securefed.privacy.shared_spending import SharedSpending
from securefed.simulation import resume_run, simulate

KILLED = "killed before the charge"


def begun_again(config, folder, monkeypatch, ended=KILLED):
    """A finished run whose round 2 had ended once before its sum was charged."""
    charge = SharedSpending.charge

    def dies(self, number, survivors):
        if number == 2:
            raise OSError(KILLED)
        charge(self, number, survivors)

    with monkeypatch.context() as patched:
        if ended == KILLED:
            patched.setattr(SharedSpending, "charge", dies)
        else:
            lost = {f"site{k}": ended for k in range(3)}
            patched.setattr(SimulatedSites, "losses", lambda _self, number: lost if number == 2 else {})
        with pytest.raises((OSError, RoundAbortedError), match=KILLED if ended == KILLED else f"left at {ended}"):
            simulate(config, output=folder)
    return resume_run(folder)


@pytest.mark.parametrize(("ended", "more"), [(KILLED, 1), ("MaskedInputCollection", 1), ("ShareKeys", 0)])
def test_vectors_that_left_before_a_round_was_begun_again_are_counted(
    noise_in_shares, tmp_path, monkeypatch, ended, more
):
    """Each bears fresh noise on the same data. Sums are not concerned, nor rounds that ended before any vector left."""
    run = begun_again(noise_in_shares(), tmp_path / "run", monkeypatch, ended)
    events = [event for event in read_events(tmp_path / "run" / "audit.jsonl") if event.kind == "privacy_event"]
    sums = [Repeated(mechanism_of(event.fields["mechanism"])) for event in events]
    share = against_broken_aggregation(sums)[0].mechanism
    views = run.summary["privacy"]["epsilon_by_adversary"]
    assert len(sums) == 3
    assert views["aggregate_only"] == pytest.approx(upper_epsilon(sums, 1e-5))
    assert views["aggregation_broken"] == pytest.approx(upper_epsilon([Repeated(share, 3 + more)], 1e-5))
    verify_run(tmp_path / "run").require()
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    (row,) = [row for row in report["trust"] if row["adversary"] == "whoever breaks the aggregation"]
    assert row["epsilon"] == pytest.approx(views["aggregation_broken"])
    assert ("up to 1 of each hospital for sums that were never opened" in row["sees"]) == bool(more)


def test_a_record_that_leaves_out_such_vectors_does_not_verify(noise_in_shares, tmp_path, monkeypatch):
    monkeypatch.setattr("securefed.privacy.shared_spending.unopened_in", lambda _events: 0)
    begun_again(noise_in_shares(), tmp_path / "run", monkeypatch)
    (failed,) = verify_run(tmp_path / "run").failed
    assert failed.name == "epsilon"
    assert "the events before it give" in failed.detail


def test_a_summary_that_states_less_than_the_log_against_single_vectors_does_not_verify(
    noise_in_shares, tmp_path, monkeypatch
):
    state = SharedSpending.state_epsilon
    monkeypatch.setattr(SharedSpending, "state_epsilon", lambda self: {**state(self), "aggregation_broken": 1.0})
    simulate(noise_in_shares(), output=tmp_path / "run")
    (failed,) = verify_run(tmp_path / "run").failed
    assert failed.name == "epsilon"
    assert "summary.json states epsilon_by_adversary" in failed.detail


def test_a_record_that_claims_more_than_can_be_claimed_does_not_verify(noise_in_shares, tmp_path, monkeypatch):
    """As of a server that goes on: three rounds are claimed, and each of their sums was opened twice."""
    monkeypatch.setattr("securefed.privacy.shared_run.held_to_claim", lambda privacy, _verdict: privacy)
    charge = SharedSpending.charge
    monkeypatch.setattr(SharedSpending, "charge", lambda self, *args: (charge(self, *args), charge(self, *args)))
    run = simulate(noise_in_shares(noise_multiplier=0.65), output=tmp_path / "run")
    assert run.summary["privacy"]["claim"].startswith("CLAIMED")
    assert run.summary["privacy"]["epsilon"] > 23
    failed = {check.name: check.detail for check in verify_run(tmp_path / "run").failed}
    assert "and privacy is claimed: above 23 nothing can be" in failed["epsilon"]
