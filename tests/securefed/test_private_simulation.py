"""Runs with differential privacy: what they record and when, what they state, where they stop, how they resume."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file

from audit.accounting import Adjacency, Repeated, mechanism_of, upper_epsilon
from audit.ledger import BudgetExceededError, Ledger
from audit.log import read_events
from audit.verify import verify_run
from clients.encoders import export_features
from clients.privacy import PrivateHospital
from securefed.config import config_from_mapping
from securefed.errors import ConfigError, RoundAbortedError, TargetEpsilonError
from securefed.evidence import RunEvidence
from securefed.federation import Federation
from securefed.model_file import load_model
from securefed.observer import Observer
from securefed.simulation import resume_run
from tests.securefed.conftest import bundle
from tests.securefed.private_runs import LOCAL, SITES, budgets, events_of, run


class Lines(Observer):
    def __init__(self):
        self.lines = []

    def started(self, folder, lines):
        self.lines += lines

    def noted(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def whole(features_file, tmp_path_factory):
    """One run with noise of the system, what it said, and how often each hospital was charged when it trained."""
    folder, seen, charged = tmp_path_factory.mktemp("whole"), Lines(), []
    tree = {
        "data": {"source": f"features:{features_file}"},
        "encoder": {"name": f"features:{features_file}"},
        "federation": {"rounds": 3, "device": "cpu"},
        "privacy": LOCAL,
    }
    right = PrivateHospital.train_round

    def watched(self, vector, number, randomness=None):
        lines = (folder / "run" / "audit.jsonl").read_text().splitlines()
        mine = [line for line in lines if '"privacy_event"' in line and f'"{self.site.site}"' in line]
        charged.append((number, len(mine)))
        return right(self, vector, number, randomness)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("securefed.outcome.draw_plots", lambda *_: None)
        patched.setattr(PrivateHospital, "train_round", watched)
        result = run(config_from_mapping(tree), folder, observer=seen)
    return SimpleNamespace(result=result, lines=seen.lines, charged=charged)


def test_a_private_run_claims_what_its_log_gives(whole):
    result = whole.result
    seen = SimpleNamespace(lines=whole.lines)
    assert seen.lines[0].startswith("SIMULATION:")
    assert "noise never do" in seen.lines[0]
    assert any("training profile: private" in line for line in seen.lines)
    stated = result.summary["privacy"]
    assert stated["mode"] == "local"
    assert stated["unit"] == "image"
    assert stated["adjacency"] == "add-or-remove-one"
    assert stated["claim"].startswith("CLAIMED: training images")
    assert 7.9 < stated["epsilon"] <= 8
    events = events_of(result.folder.path, "privacy_event")
    assert len(events) == 3 * len(SITES)
    of_one = [
        Repeated(mechanism_of(event.fields["mechanism"]), event.fields["repetitions"])
        for event in events
        if event.fields["hospital"] == SITES[0]
    ]
    assert upper_epsilon(of_one, 1e-5, Adjacency.ADD_OR_REMOVE_ONE) == pytest.approx(stated["epsilon"], rel=1e-6)
    views = {event.fields["view"]: event.fields["upper"] for event in events_of(result.folder.path, "epsilon")}
    assert set(views) == {"everybody", "aggregate-only", "aggregation-broken"}
    assert set(views.values()) == {stated["epsilon"]}
    found = verify_run(result.folder.path)
    assert found.is_verified, found.failed
    assert any("validation and test images" in text for text in stated["unprotected"])
    assert not (result.folder.site(SITES[0]) / "release.safetensors").exists()


def test_every_release_is_recorded_before_it_is_made(whole):
    """At the moment at which a hospital trained, the log on disk had its privacy event of this round already."""
    assert len(whole.charged) == 3 * len(SITES)
    assert all(number == events for number, events in whole.charged)


def test_noise_that_means_nothing_is_no_disagreement_and_no_claim(small_run, tmp_path):
    """Epsilon above 100,000 is not computed; verification agrees, and nothing says that accountants contradict."""
    one = run(small_run(privacy={**LOCAL, "epsilon": 0.0, "noise_multiplier": 0.001}), tmp_path, "one")
    assert one.summary["privacy"]["claim"].startswith("NOT CLAIMED: no meaningful epsilon")
    assert one.summary["privacy"]["epsilon"] is None
    assert events_of(one.folder.path, "privacy_claim")[0].fields["claim"] == "NOT CLAIMED"
    assert verify_run(one.folder.path).is_verified
    assert any("NOT CLAIMED" in line for line in one.verdict)
    assert "DISAGREEMENT" not in (one.folder.path / "report.json").read_text(encoding="utf-8")


def test_a_seeded_run_claims_nothing(small_run, tmp_path, whole):
    private = {**LOCAL, "noise": "seeded"}
    seen = Lines()
    one = run(small_run(privacy=private), tmp_path, "one", observer=seen)
    assert "NOT PRIVATE" in seen.lines[0]
    assert one.summary["fam_sha256"] != whole.result.summary["fam_sha256"]
    assert one.summary["privacy"]["claim"].startswith("NOT CLAIMED: the noise")
    assert events_of(one.folder.path, "privacy_claim")[0].fields["claim"] == "NOT CLAIMED"
    assert verify_run(one.folder.path).is_verified
    assert any("NOT CLAIMED" in line for line in one.verdict)
    other = run(small_run(privacy=private), tmp_path, "two")
    assert other.summary["fam_sha256"] == one.summary["fam_sha256"]


def test_a_round_above_the_target_does_not_begin(small_run, tmp_path):
    config = small_run(privacy={**LOCAL, "noise_multiplier": 1.0})  # one step of multiplier 1 costs about 4.4
    with pytest.raises(TargetEpsilonError) as stopped:
        run(config, tmp_path)
    assert stopped.value.exit_code == 4
    refused = events_of(tmp_path / "run", "refused")
    assert len(refused) == 1
    assert refused[0].fields["epsilon"] > 8
    released = {event.fields["round"] for event in events_of(tmp_path / "run", "privacy_event")}
    assert refused[0].fields["round"] == max(released) + 1
    started = {event.fields["round"] for event in events_of(tmp_path / "run", "round_started")}
    assert refused[0].fields["round"] not in started


def test_a_round_that_would_cost_more_than_any_number_is_refused_in_the_record(small_run, tmp_path):
    hollow = small_run(privacy={**LOCAL, "noise_multiplier": 1e-6}, federation={"rounds": 1})
    with pytest.raises(TargetEpsilonError, match="would bring epsilon to inf"):
        run(hollow, tmp_path)
    (refused,) = events_of(tmp_path / "run", "refused")
    assert (refused.fields["epsilon"], refused.fields["budget"]) == (None, 8.0)


@pytest.mark.parametrize("centring", [0, 2])
def test_an_interrupted_run_neither_pays_twice_nor_forgets(small_run, tmp_path, monkeypatch, centring):
    """Killed in round 2 after two hospitals trained: they send the same bits again, the third trains now."""
    config = small_run(privacy={**LOCAL, "centring_steps": centring})
    right, calls = PrivateHospital.train_round, []

    def interrupting(self, vector, number, randomness=None):
        if len(calls) == len(SITES) + 2:
            calls.append("cut")
            raise KeyboardInterrupt
        calls.append((number, self.site.site))
        return right(self, vector, number, randomness)

    monkeypatch.setattr(PrivateHospital, "train_round", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path)
    resumed = resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    trained = [call for call in calls if call != "cut"]
    assert len(trained) == len(set(trained)) == 3 * len(SITES)
    events = events_of(tmp_path / "run", "privacy_event")
    charged = [event.fields["release_id"] for event in events]
    assert len(charged) == len(set(charged)) == 3 * len(SITES)
    assert 7.9 < resumed.summary["privacy"]["epsilon"] <= 8
    assert verify_run(tmp_path / "run").is_verified


@pytest.mark.parametrize(("centring", "cut_in"), [(0, 2), (2, 2), (2, 3), (2, 4)])
def test_a_seeded_run_that_was_interrupted_ends_with_the_same_model(small_run, tmp_path, monkeypatch, centring, cut_in):
    privacy = {**LOCAL, "noise": "seeded", "centring_steps": centring}
    config = small_run(federation={"rounds": 4}, privacy=privacy)
    uncut = run(config, tmp_path, "uncut")
    right = Federation._open_round

    def cut(self, number):
        if number == cut_in:
            raise KeyboardInterrupt
        return right(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Federation, "_open_round", cut)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path, "cut")
    resumed = resume_run(tmp_path / "cut", cache_dir=tmp_path / "cache")
    assert resumed.summary["fam_sha256"] == uncut.summary["fam_sha256"]
    assert resumed.summary["privacy"] == uncut.summary["privacy"]


def test_what_a_hospital_loses_in_a_round_is_charged_and_the_rest_goes_on(small_run, tmp_path):
    config = small_run(privacy=LOCAL, simulation={"drop": ["site1@2:Unmasking", "site2@3:ShareKeys"]})
    result = run(config, tmp_path)
    counts = dict.fromkeys(SITES, 0)
    for event in events_of(result.folder.path, "privacy_event"):
        counts[event.fields["hospital"]] += 1
    assert counts["site1"] == 3  # lost after its vector had left: charged
    assert counts["site2"] == 2  # lost before it had trained: nothing was released
    assert verify_run(result.folder.path).is_verified


def test_other_hospitals_may_be_lost_in_each_of_the_rounds_that_begin_with_the_first_model(small_run, tmp_path):
    """Measuring steps leave the model as it is: rounds 1 to 3 begin with it, and only round 3 sums what was trained."""
    lost = ["site0@1:MaskedInputCollection", "site1@2:MaskedInputCollection", "site2@3:Unmasking"]
    config = small_run(federation={"rounds": 4}, privacy={**LOCAL, "centring_steps": 2}, simulation={"drop": lost})
    result = run(config, tmp_path)
    rounds = events_of(result.folder.path, "round_completed")
    assert [sorted(set(SITES) - set(event.fields["survivors"])) for event in rounds] == [["site0"], ["site1"], [], []]
    started = events_of(result.folder.path, "round_started")
    models = [event.fields["model_digest"] for event in started]
    assert models[0] == models[1] == models[2] != models[3]
    assert verify_run(result.folder.path).is_verified


@pytest.mark.parametrize("centring", [0, 1])
def test_after_training_the_same_model_is_summed_over_the_same_hospitals_only(
    small_run, tmp_path, monkeypatch, centring
):
    """Were a training step to leave the model as it is, the next round must not be summed over others."""
    monkeypatch.setattr(PrivateHospital, "_move", lambda *_: None)
    lost = f"site1@{centring + 2}:MaskedInputCollection"
    config = small_run(privacy={**LOCAL, "centring_steps": centring}, simulation={"drop": [lost]})
    with pytest.raises(RoundAbortedError, match=f"round {centring + 2} .*ConsistencyCheck"):
        run(config, tmp_path)


def test_one_way_covers_the_fam_and_says_what_it_does_not(small_run, tmp_path):
    result = run(small_run(privacy={**LOCAL, "coupling": "one-way"}), tmp_path)
    stated = result.summary["privacy"]
    assert "the private MLP is trained without noise" in stated["claim"]
    assert any("private MLP" in text for text in stated["unprotected"])
    assert verify_run(result.folder.path).is_verified


def test_fedclip_states_what_its_releases_cost(small_run, tmp_path):
    result = run(small_run(privacy=LOCAL, federation={"method": "fedclip"}), tmp_path)
    stated = result.summary["privacy"]
    assert stated["claim"].startswith("CLAIMED: training images, in all updates of the FAM")
    assert "there is no private MLP" in stated["claim"]
    mechanisms = {event.fields["mechanism"]["type"] for event in events_of(result.folder.path, "privacy_event")}
    assert mechanisms == {"sampled-gaussian"}
    assert 7.9 < stated["epsilon"] <= 8
    assert verify_run(result.folder.path).is_verified


def test_patient_level_needs_patients(small_run, tmp_path):
    with pytest.raises(ConfigError, match="P13"):
        run(small_run(privacy={**LOCAL, "unit": "patient"}), tmp_path)
    assert not (tmp_path / "run").exists()  # refused before an image is encoded or a folder made


def test_a_run_does_not_go_on_with_patients_that_are_told_apart(small_run, tmp_path, monkeypatch):
    """The images are the same, each would be clipped on its own, and the claim be that of patients."""
    path = tmp_path / "five.safetensors"
    write_patients(path, images=2)
    source = {"data": {"source": f"features:{path}"}, "encoder": {"name": f"features:{path}"}}
    finish = RunEvidence.round_completed

    def interrupting(self, number, *arguments):
        finish(self, number, *arguments)
        if number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunEvidence, "round_completed", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(small_run(**source, privacy={**LOCAL, "unit": "patient"}), tmp_path)
    monkeypatch.setattr(RunEvidence, "round_completed", finish)
    write_patients(path, images=1)
    with pytest.raises(ConfigError, match="the patient_grouping of data differs from the run's; restore it"):
        resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    write_patients(path, images=2, name="renamed")
    resumed = resume_run(tmp_path / "run", cache_dir=tmp_path / "cache")
    assert verify_run(resumed.folder.path).is_verified


def write_patients(path, images, name="p"):
    """Write the small federation; each patient has as many images of each split as said."""
    whole = bundle()
    sites = tuple(
        replace(site, **{split: replace(site.split(split), patients=tuple(
            f"{name}{split}{number // images}" for number in range(len(site.split(split)))))
            for split in ("train", "val", "test")})
        for site in whole.sites
    )  # fmt: skip
    export_features(replace(whole, sites=sites), path)


def test_no_class_count_is_stored_beside_the_mlp(whole):
    result = whole.result
    stored = load_file(result.folder.site(SITES[0]) / "mlp.safetensors")
    assert len(set(stored["log_prior"].tolist())) == 1
    assert load_model(result.folder).vector.size > 0


def test_the_same_words_stand_in_summary_and_log(whole):
    result = whole.result
    claim = events_of(result.folder.path, "privacy_claim")[0].fields
    written = json.loads(result.folder.summary.read_text())["privacy"]
    assert written["claim"] == f"{claim['claim']}: {claim['reason']}"
    assert written["unprotected"] == list(claim["unprotected"])


def test_an_over_budget_run_is_refused_before_a_byte_is_sent(small_run, tmp_path, monkeypatch):
    from securefed.nodes.simulated import SimulatedSites

    path = tmp_path / "ledger.sqlite"
    budgets(path, 2.0)
    monkeypatch.setattr(SimulatedSites, "exchange", lambda *_, **__: pytest.fail("something was sent"))
    with pytest.raises(BudgetExceededError, match="all that is left to release would bring it to") as refused:
        run(small_run(privacy={**LOCAL, "ledger": str(path)}), tmp_path)
    assert refused.value.exit_code == 4
    kinds = [event.kind for event in read_events(tmp_path / "run" / "audit.jsonl")]
    assert kinds[-1] == "refused"
    assert not {"round_started", "charge", "privacy_event"} & set(kinds)
    with Ledger(path) as ledger:
        assert ledger.charges() == ()
        assert [entry["kind"] for entry in ledger.entries("refused")] == ["refused"]


def test_a_replay_is_recorded_where_hospitals_made_one(small_run, tmp_path, monkeypatch):
    from securefed.privacy.claim import claim_fields

    monkeypatch.setattr("clients.privacy.PrivateHospital._replay_a_step", lambda self: None)
    done = run(small_run(privacy=LOCAL, federation={"rounds": 1}), tmp_path)
    (claim,) = [event.fields for event in read_events(done.folder.log) if event.kind == "privacy_claim"]
    assert "sensitivity_checked" not in claim["values"]
    assert "sensitivity_checked" not in done.summary["privacy"]["mechanism"]
    deployed = claim_fields(small_run(privacy=LOCAL), deployed=True)
    assert "sensitivity_checked" not in deployed["values"]


def test_the_report_of_a_private_run_is_whole(whole):
    from audit.report import build_report, render

    report = build_report(whole.result.folder.path)
    assert {row["name"]: row["outcome"] for row in report["pitfalls"]} == dict.fromkeys(
        [row["name"] for row in report["pitfalls"]], "PASS"
    )
    epsilons = [entry["epsilon"] for entry in report["rounds"]]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] == pytest.approx(report["claim"]["epsilon"], rel=1e-2)
    assert all(entry["noise"] for entry in report["rounds"])
    assert render(report, "registry").startswith(b"url_slug")


def test_who_has_paid_twice_for_a_round_is_not_told_to_run_as_many_rounds_again():
    assert "run again with --rounds 3" in str(TargetEpsilonError(4, 9.1, 8.0, 3))
    repeated = str(TargetEpsilonError(4, 8.1, 8.0, 4))
    assert "--rounds" not in repeated
    assert "privacy.spare_rounds" in repeated


def test_a_target_that_no_noise_is_made_for_leaves_no_folder_behind(small_run, tmp_path):
    hollow = {**LOCAL, "sampling_rate": 0.001, "delta": 0.009, "epsilon": 8.0, "noise_multiplier": 0.0}
    with pytest.raises(ConfigError, match=r"privacy\.delta: 0\.009 is at least the chance of 0\.00"):
        run(small_run(privacy=hollow, federation={"rounds": 1}), tmp_path)
    assert not (tmp_path / "run").exists()
