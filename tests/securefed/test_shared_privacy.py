"""Runs whose hospitals add noise in shares: calibrated, charged before the sum is opened, stopped in time."""

import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.accounting import Adjacency, Gaussian, Repeated, rdp_epsilon
from audit.ledger import Budget, BudgetExceededError, BudgetLine, Ledger, LedgerError, Policy, run_of_log
from audit.log import read_events
from audit.verify import verify_run
from clients.encoders import export_features
from securefed import simulation
from securefed.config import config_from_mapping
from securefed.errors import ConfigError, TargetEpsilonError
from securefed.model_file import load_model
from securefed.nodes.simulated import SimulatedSites
from securefed.noisy import NoisySite
from securefed.observer import Observer
from securefed.privacy.shared_hospitals import SummingHospitals
from securefed.simulation import resume_run, simulate
from tests.audit.ledger.money import stopped_after_reserving
from tests.securefed.conftest import bundle

SITES = [f"site{number}" for number in range(5)]
LOST = {"drop": ["site1@2:MaskedInputCollection", "site3@3:Unmasking"]}


class Noting(Observer):
    def __init__(self):
        self.lines = []

    def noted(self, text):
        self.lines.append(text)


def kinds(folder, *names):
    return [event for event in read_events(folder / "audit.jsonl") if event.kind in names]


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


# ------------------------------------------------------------------------------------------------- what is recorded


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
def test_a_run_ends_below_its_epsilon_and_its_record_gives_the_same(noise_in_shares, tmp_path, mode):
    run = simulate(noise_in_shares(mode, simulation=LOST), output=tmp_path / "run")
    privacy = run.summary["privacy"]
    assert 0 < privacy["epsilon"] <= 8
    assert privacy["claim"].startswith("CLAIMED")
    assert privacy["unit"] == ("hospital" if mode == "hospital" else "image")
    assert privacy["epsilon_by_adversary"]["aggregate_only"] == privacy["epsilon"]
    assert privacy["epsilon_by_adversary"]["aggregation_broken"] > privacy["epsilon"]
    (described,) = kinds(run.folder.path, "protocol_described")
    assert "value_bits" not in described.fields  # the noise has a grid of its own, in `values`
    assert run.summary["secure_aggregation"]["value_bits"] is None
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json").require()
    stated = {
        (e.fields["view"], e.fields.get("colluders", 0)): e.fields["upper"] for e in kinds(run.folder.path, "epsilon")
    }
    assert stated["aggregate-only", 0] == privacy["epsilon"]
    pitfalls = json.loads((run.folder.path / "report.json").read_text(encoding="utf-8"))["pitfalls"]
    (constants,) = [row for row in pitfalls if "public constants" in row["name"]]
    assert constants["outcome"] == "PASS"
    assert constants["detail"].endswith("steps a round 1")


def test_the_report_says_against_whom_epsilon_holds(noise_in_shares, tmp_path):
    """A hospital knows its own share: against it, or a server that it helps, the noise is less by one share."""
    run = simulate(noise_in_shares(), output=tmp_path / "run", observer=(seen := Noting()))
    report = json.loads((run.folder.path / "report.json").read_text(encoding="utf-8"))
    rows = {row["adversary"]: row["epsilon"] for row in report["trust"]}
    alone, helped = rows["whoever gets the shared model"], rows["the server"]
    assert "that one hospital helps" in report["trust"][0]["protection"]
    assert alone == pytest.approx(run.summary["privacy"]["epsilon"])
    assert alone < helped == rows["another hospital"] < rows["whoever breaks the aggregation"]
    statement = report["claim"]["statement"]
    assert "an observer" not in statement
    assert f"knows its own noise, or a server that it helps, epsilon is {helped:.4g}." in statement
    sums = "against whoever sees only the sums and what follows from them"
    assert all(f"{sums}, and with a larger one against hospitals." in h["sentence"] for h in report["hospitals"])
    assert sums in report["questions"][0]["answer"]
    (warned,) = [line for line in seen.lines if "max_colluders" in line]
    worst = float(warned.partition("may come to ")[2].partition(",")[0])
    assert helped < worst < 1.2 * helped  # with as few survivors as may be in every round


def test_nobody_is_warned_where_the_noise_provides_for_the_helpers_of_the_masks(noise_in_shares, tmp_path):
    simulate(noise_in_shares(max_colluders=1), output=tmp_path / "run", observer=(seen := Noting()))
    assert not [line for line in seen.lines if "max_colluders" in line]


@pytest.mark.parametrize(
    ("mode", "privacy"), [("distributed", {"noise_multiplier": 0.1}), ("hospital", {"epsilon": 90.0})]
)
def test_an_epsilon_that_excludes_nothing_is_not_claimed(noise_in_shares, tmp_path, mode, privacy):
    run = simulate(noise_in_shares(mode, **privacy), output=tmp_path / "run")
    assert run.summary["privacy"]["epsilon"] > 23
    assert run.summary["privacy"]["claim"].startswith("NOT CLAIMED: no meaningful epsilon: it may come to ")
    verify_run(tmp_path / "run").require()
    assert any("NOT CLAIMED" in line for line in run.verdict)


def test_a_sum_is_charged_with_the_shares_that_arrived_before_it_is_opened(noise_in_shares, tmp_path):
    run = simulate(noise_in_shares(simulation=LOST), output=tmp_path / "run")
    order = [event.kind for event in kinds(run.folder.path, "round_started", "privacy_event", "round_completed")]
    assert order == ["round_started", "privacy_event", "round_completed"] * 3
    events = kinds(run.folder.path, "privacy_event")
    assert [event.fields["mechanism"]["shares"] for event in events] == [5, 4, 5]
    totals = [event.fields["mechanism"]["shares"] * event.fields["mechanism"]["share_variance"] for event in events]
    assert totals == pytest.approx([totals[0]] * 3)  # xnoise: exact for every number of losses
    (claim,) = kinds(run.folder.path, "privacy_claim")
    assert claim.fields["values"]["dropout_noise"] == "xnoise"


def test_conservative_shares_are_charged_as_they_arrive(noise_in_shares, tmp_path):
    run = simulate(noise_in_shares(dropout_noise="conservative", simulation=LOST), output=tmp_path / "run")
    mechanisms = [event.fields["mechanism"] for event in kinds(run.folder.path, "privacy_event")]
    assert [mechanism["shares"] for mechanism in mechanisms] == [5, 4, 5]
    assert len({mechanism["share_variance"] for mechanism in mechanisms}) == 1
    assert run.summary["privacy"]["epsilon"] < 8  # more noise than needed where nobody is lost


def test_epsilon_against_colluders_meets_the_target_and_is_stated(noise_in_shares, tmp_path):
    run = simulate(noise_in_shares(max_colluders=1), output=tmp_path / "run")
    views = run.summary["privacy"]["epsilon_by_adversary"]
    assert views["aggregate_only"] < views["colluders"]["1"] <= 8 < views["aggregation_broken"]
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json").require()


def test_discrete_gaussian_noise_is_charged_as_such(noise_in_shares, tmp_path):
    run = simulate(noise_in_shares(mechanism="discrete-gaussian"), output=tmp_path / "run")
    (mechanism, *_) = [event.fields["mechanism"] for event in kinds(run.folder.path, "privacy_event")]
    assert mechanism["type"] == "discrete-gaussian"
    assert run.summary["privacy"]["epsilon"] <= 8


def test_nothing_is_opened_where_the_charge_cannot_be_recorded(noise_in_shares, tmp_path, monkeypatch):
    def fails(self, number, survivors):
        raise OSError("disk full")

    monkeypatch.setattr("securefed.privacy.shared_run.SharedPrivacy.before_opening", fails)
    asked = []
    monkeypatch.setattr("protocols.client.survivors_signed.SurvivorsSigned._handle", lambda *a: asked.append(a))
    with pytest.raises(OSError, match="disk full"):
        simulate(noise_in_shares(), output=tmp_path / "run")
    assert asked == []
    assert kinds(tmp_path / "run", "round_completed") == []


def test_neither_scores_nor_clamp_counts_leave_with_a_noisy_sum(noise_in_shares, tmp_path):
    run = simulate(noise_in_shares(), output=tmp_path / "run")
    assert run.summary["config"]["federation"]["select"] == "last"
    described = kinds(run.folder.path, "protocol_described")[0].fields
    assert described["values"]["vector_length"] == described["dimension"]  # no coordinate more
    assert all("clamped" not in event.fields for event in kinds(run.folder.path, "round_completed"))


def test_ten_hospitals_state_epsilon_of_the_sum_and_of_one_share(tmp_path):
    """Ten shares: the sum has ten times the variance of one, and both are in summary and log."""
    path = tmp_path / "ten.safetensors"
    export_features(bundle(sites=10, train=12), path)
    tree = {
        "data": {"source": f"features:{path}"},
        "encoder": {"name": f"features:{path}"},
        "privacy": {"mode": "distributed", "noise_multiplier": 4.0},
        "training": {"fam_width": 4},
        "federation": {"rounds": 2, "device": "cpu"},
    }
    run = simulate(config_from_mapping(tree), output=tmp_path / "run")
    views = run.summary["privacy"]["epsilon_by_adversary"]
    whole, share = ([Repeated(Gaussian(z), 2)] for z in (4.0, 4.0 / 10**0.5))
    assert views["aggregate_only"] == pytest.approx(rdp_epsilon(whole, 1e-5), rel=0.01)
    assert views["aggregation_broken"] == pytest.approx(rdp_epsilon(share, 1e-5), rel=0.03)
    stated = {event.fields["view"]: event.fields["upper"] for event in kinds(tmp_path / "run", "epsilon")}
    assert stated == {"aggregate-only": views["aggregate_only"], "aggregation-broken": views["aggregation_broken"]}
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json").require()


# ------------------------------------------------------------------------------------------------------- who pays


def budgets(path, epsilon, unit="image"):
    signer = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    budget = Budget(epsilon, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
    with Ledger(path) as ledger:
        ledger.install(Policy({BudgetLine(site, unit): budget for site in SITES}))
    return str(path)


def spent_of(ledger, hospital):
    """What a ledger answers for by now, of all that was charged to a hospital."""
    return ledger.status(next(spent.account for spent in ledger.charges() if spent.account.hospital == hospital)).spent


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
def test_every_hospital_pays_for_its_vector_before_it_leaves(noise_in_shares, tmp_path, monkeypatch, mode):
    path = budgets(tmp_path / "ledger.sqlite", 9.0, "hospital" if mode == "hospital" else "image")
    encode, paid = NoisySite.encode, []

    def watched(self, number, *args):
        with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
            paid.append((len(ledger.charges()), {spent.state for spent in ledger.charges()}))
        return encode(self, number, *args)

    monkeypatch.setattr(NoisySite, "encode", watched)
    run = simulate(noise_in_shares(mode, ledger=path, simulation=LOST), output=tmp_path / "run")
    # site1 is lost in round 2 before it has sent its vector, and pays for none
    assert paid == [(count, {"committed"}) for count in range(1, 15)]
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json", ledger=tmp_path / "ledger.sqlite").require()
    with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
        spent = spent_of(ledger, "site0")
    assert run.summary["privacy"]["epsilon"] <= spent * (1 + 1e-9) <= 8 * (1 + 1e-9)
    with pytest.raises(BudgetExceededError):
        simulate(noise_in_shares(mode, ledger=path), output=tmp_path / "second")
    assert kinds(tmp_path / "second", "round_started") == []


@pytest.mark.parametrize("lost", [{}, LOST])
def test_a_ledger_may_be_charged_the_share(noise_in_shares, tmp_path, lost):
    """Whoever opens a vector takes out all noise that can be removed, though a sum after a loss has more of it."""
    path = budgets(tmp_path / "ledger.sqlite", 60.0)
    run = simulate(noise_in_shares(ledger=path, charge="share", simulation=lost), output=tmp_path / "run")
    with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
        spent = spent_of(ledger, "site0")
    assert spent == pytest.approx(run.summary["privacy"]["epsilon_by_adversary"]["aggregation_broken"])
    assert spent > run.summary["privacy"]["epsilon"]


def test_a_round_that_ends_before_its_sum_could_be_opened_has_no_event_and_is_paid_again(
    noise_in_shares, tmp_path, monkeypatch
):
    """The log states sums: none was opened. A hospital cannot know that, and its ledger counts both vectors."""
    path = budgets(tmp_path / "ledger.sqlite", 20.0)
    exchange = SimulatedSites.exchange

    def cut(self, stage, requests, **more):
        if stage == "ConsistencyCheck" and not getattr(cut, "done", False):
            cut.done = True
            raise KeyboardInterrupt
        return exchange(self, stage, requests, **more)

    monkeypatch.setattr(SimulatedSites, "exchange", cut)
    with pytest.raises(KeyboardInterrupt):
        simulate(noise_in_shares(ledger=path, spare_rounds=1), output=tmp_path / "run")
    run = resume_run(tmp_path / "run")
    rounds = [event.fields["round"] for event in kinds(tmp_path / "run", "privacy_event")]
    assert rounds == [1, 2, 3]
    assert run.summary["privacy"]["epsilon"] <= 8
    with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
        of_one = [spent.charge.release_id for spent in ledger.charges() if spent.account.hospital == "site0"]
    name = run_of_log(read_events(tmp_path / "run" / "audit.jsonl"))
    assert of_one == [f"{name}/{number}/vector {k}/site0" for number, k in ((1, 1), (1, 2), (2, 1), (3, 1))]


def test_a_crash_between_the_ledger_and_the_log_strands_no_run(noise_in_shares, tmp_path, monkeypatch):
    """The ledger has a charge that the log never got: the vector is charged once more, and the run goes on."""
    path = budgets(tmp_path / "ledger.sqlite", 20.0)
    calls = stopped_after_reserving(monkeypatch, len(SITES) + 2)
    with pytest.raises(KeyboardInterrupt):
        simulate(noise_in_shares(ledger=path, spare_rounds=1), output=tmp_path / "run")
    assert resume_run(tmp_path / "run").summary["rounds_completed"] == 3
    paid = [release.partition("/")[2] for release in calls if release.endswith(("site0", "site1", "site2"))]
    assert sorted(paid) == sorted(
        [f"{number}/vector 1/site{k}" for number in (1, 2, 3) for k in range(3)]
        + [f"2/vector 2/site{k}" for k in (0, 1)]
    )
    verify_run(tmp_path / "run", ledger=tmp_path / "ledger.sqlite").require()


def test_a_run_does_not_go_on_with_another_ledger(noise_in_shares, tmp_path, monkeypatch):
    path = budgets(tmp_path / "ledger.sqlite", 20.0)
    with monkeypatch.context() as patched:
        stopped_after_reserving(patched, len(SITES) + 2)
        with pytest.raises(KeyboardInterrupt):
            simulate(noise_in_shares(ledger=path, spare_rounds=1), output=tmp_path / "run")
    (tmp_path / "ledger.sqlite").rename(tmp_path / "kept.sqlite")
    budgets(tmp_path / "ledger.sqlite", 20.0)
    with pytest.raises(LedgerError, match="lacks the charge"):
        resume_run(tmp_path / "run")
    with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.charges() == ()


# ------------------------------------------------------------------------------------------------ stopping, refusing


def test_a_round_that_would_exceed_the_target_is_refused_before_anything_is_sent(noise_in_shares, tmp_path):
    with pytest.raises(TargetEpsilonError) as refused:
        simulate(noise_in_shares(rounds=9, epsilon=8.0, noise_multiplier=1.5), output=tmp_path / "run")
    completed = len(kinds(tmp_path / "run", "round_completed"))
    assert refused.value.exit_code == 4
    assert refused.value.round_number == completed + 1
    assert 1 <= completed < 9
    assert len(kinds(tmp_path / "run", "privacy_event")) == completed
    assert len(kinds(tmp_path / "run", "round_started")) == completed
    (event,) = kinds(tmp_path / "run", "refused")
    assert event.fields["epsilon"] > 8


@pytest.mark.parametrize(
    ("privacy", "key"),
    [
        ({"max_colluders": 4}, "privacy.max_colluders"),
        ({"dropout_noise": "xnoise", "mechanism": "discrete-gaussian"}, "privacy.dropout_noise"),
        ({"dropout_noise": "xnoise", "noise": "seeded"}, "privacy.dropout_noise"),
        ({"dropout_noise": "xnoise", "secure_aggregation": {"enabled": False}}, "privacy.dropout_noise"),
        ({"ledger": "ledger.sqlite", "secure_aggregation": {"enabled": False}}, "privacy.charge"),
        ({"secure_aggregation": {"compression": "ring:4,subspace:0.125"}}, "secure_aggregation.compression"),
        ({"ring_bits": 15}, "privacy.ring_bits"),
        ({"mechanism": "laplace"}, "privacy.mechanism"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(noise_in_shares, tmp_path, monkeypatch, privacy, key):
    monkeypatch.chdir(tmp_path)
    Ledger(tmp_path / "ledger.sqlite").close()
    with pytest.raises(ConfigError) as refused:
        simulate(noise_in_shares(**privacy), output=tmp_path / "run")
    assert refused.value.key == key


def test_a_whole_hospital_as_the_unit_is_said_to_be_poor(noise_in_shares, tmp_path):
    notes = []

    class Listening(simulation.Observer):
        def noted(self, text):
            notes.append(text)

    simulate(noise_in_shares("hospital"), output=tmp_path / "run", observer=Listening())
    assert any("Few hospitals cannot hide one of them" in note for note in notes)


def test_sums_over_many_images_go_to_the_grid_in_double_precision(tmp_path, monkeypatch):
    """Also where hospitals would be summed together: a fleet sums in single precision."""
    path, seen, encode = tmp_path / "many.safetensors", [], NoisySite.encode
    data = bundle(sites=3, train=1100)
    export_features(data, path)

    def watched(self, number, digest, given, *rest):
        seen.append(given.update.dtype)
        return encode(self, number, digest, given, *rest)

    monkeypatch.setattr(NoisySite, "encode", watched)
    tree = {
        "data": {"source": f"features:{path}"},
        "encoder": {"name": f"features:{path}"},
        "privacy": {"mode": "distributed", "noise_multiplier": 4.0, "sampling_rate": 1.0},
        "training": {"fam_width": 4},
        "federation": {"rounds": 1, "device": "cpu"},
    }
    config = config_from_mapping(tree)
    run = simulate(config, output=tmp_path / "run")
    assert seen == [np.float64] * 3
    assert np.isfinite(load_model(run.folder).vector).all()
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json").require()
    fleet = SummingHospitals(data, config, "cpu", {}, together=True)
    fleet.expect(1, ("site0",))
    assert fleet.train("site0", load_model(run.folder).vector, 1).dtype == np.float64
