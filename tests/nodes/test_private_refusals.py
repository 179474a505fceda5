"""What a site with a ledger refuses: a budget that is gone, releases beyond the study, invalid configurations."""

import dataclasses
import json
import re

import numpy as np
import pytest
from deployed import KilledError
from site_trial import NAMES, Folders, FolderWire, Trial, call

from audit.ledger import run_in_ledgers
from audit.log import read_events
from securefed.errors import RoundAbortedError, TargetEpsilonError
from securefed.nodes.numbering import training_round
from securefed.nodes.owed import owed_signatures
from securefed.nodes.parties import RemoteParties
from securefed.site.folder import SiteFolder
from securefed.site.opening import open_site, site_privacy
from securefed.site.settings import read_settings
from securefed.study import read_study
from securefed.study.terms import terms_of
from tests.nodes.private_trial import LOCAL, PrivateTrial, hello, of_kind, spend, verified

pytestmark = pytest.mark.usefixtures("no_replay")


def test_a_site_whose_budget_is_too_small_refuses_by_name(tmp_path):
    with pytest.raises(AssertionError, match="the privacy budget of west"):
        PrivateTrial(tmp_path, budgets={"west": 2.0}, **LOCAL)


def test_a_budget_that_shrank_since_the_approval_is_refused_by_name_before_anything_is_sent(tmp_path):
    """Another study of the hospital has spent it: Hello is refused with the reason, and the others go on."""
    trial = PrivateTrial(tmp_path, budgets={"west": 8.5}, **LOCAL)
    spend(trial, "west")
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        summary = trial.serve("run", wire)
    refused = of_kind(read_events(trial.root / "run" / "audit.jsonl"), "refused")
    assert {e.fields["hospital"] for e in refused} == {"west"}
    assert "the privacy budget of west (image level) is 8.5" in refused[0].fields["reason"]
    assert summary["secure_aggregation"]["dropouts"]["MaskedInputCollection"] == 2
    assert [spent.charge.run_id for spent in trial.charges("west")] == ["earlier"]
    assert "refused" in {event.kind for event in trial.private_log("west")}
    assert read_events(trial.root / "run" / "audit.jsonl")[-1].kind == "run_completed"


def test_a_budget_that_ends_in_the_middle_is_named_after_the_round(tmp_path):
    trial = PrivateTrial(tmp_path, budgets={"west": 8.5}, **LOCAL)
    with Folders(trial) as folders:
        wire = FolderWire(folders)

        def spending(way, stage, site, round_id, frame):
            if (way, stage, site, training_round(round_id)) == ("down", "ShareKeys", "west", 2):
                spend(trial, "west")
            return [frame]

        wire.change.append(spending)
        trial.serve("run", wire)
    refused = of_kind(read_events(trial.root / "run" / "audit.jsonl"), "refused")
    assert [(e.fields["hospital"], e.fields["what"]) for e in refused] == [("west", "budget")]
    run = run_in_ledgers("run", trial.study.digest)
    assert [spent.charge.run_id for spent in trial.charges("west")] == [run, "earlier"]


def test_a_server_that_asks_for_more_than_the_study_gets_nothing(tmp_path):
    """Another run of the same study, under another name: its rounds were spent, and the release is not made."""
    trial = PrivateTrial(tmp_path, budgets=dict.fromkeys(NAMES, 50.0), **LOCAL)
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        trial.serve("run", wire)
        every = ", ".join(sorted(NAMES))
        with pytest.raises(RoundAbortedError, match=rf"but {every} cannot pay for another .* make a new one") as caught:
            trial.serve("again", wire)
    assert "bring the lost sites back" not in str(caught.value)
    for name in NAMES:
        assert len(trial.charges(name)) == 2
    refused = of_kind(read_events(trial.root / "again" / "audit.jsonl"), "refused")
    assert {e.fields["hospital"] for e in refused} == set(NAMES)
    assert all("above the target 8" in e.fields["reason"] for e in refused)


@pytest.mark.parametrize("centring", [0, 2])
def test_a_site_may_have_a_new_process_for_every_message(tmp_path, centring):
    """Books and last release are found again in its folder: each release is paid for and made once."""
    trial = PrivateTrial(tmp_path, rounds=3, **LOCAL, privacy__centring_steps=centring)
    with Folders(trial) as folders:
        wire = FolderWire(folders)

        def reborn(way, stage, site, round_id, frame):
            if way == "down":
                state = folders.nodes[site].dump()
                folders.nodes[site].close()
                folders.nodes[site] = open_site(trial.path(site), state)
            return [frame]

        wire.change.append(reborn)
        summary = trial.serve("run", wire)
    assert sum(summary["secure_aggregation"]["dropouts"].values()) == 0
    for name in NAMES:
        assert [spent.state for spent in trial.charges(name)] == ["committed"] * 3
    verified(trial, "run")


def test_another_model_for_the_same_round_is_another_release_and_the_study_has_so_many(tmp_path):
    """A server that changes the model by one bit to have a round trained again: paid each time, and at an end."""
    trial = PrivateTrial(tmp_path, budgets=dict.fromkeys(NAMES, 50.0), **LOCAL)
    first = terms_of(trial.study).initial_vector
    models = [first + np.float32(step * 1e-3) for step in range(3)]
    with Folders(trial) as folders:
        hello(trial, folders)
        hospital = folders.nodes["north"].node._trainer
        sent = [hospital.train(model, 1) for model in models[:2]]
        assert np.array_equal(hospital.train(models[1], 1), sent[1])
        with pytest.raises(TargetEpsilonError):
            hospital.train(models[2], 1)
    assert not np.array_equal(sent[0], sent[1])
    assert len(trial.charges("north")) == 2


def test_an_old_round_is_not_made_again(tmp_path):
    """The server goes back behind what the site keeps: with fresh noise that were a release that nobody has paid."""
    trial = PrivateTrial(tmp_path, **LOCAL)
    with Folders(trial) as folders:
        trial.serve("run", FolderWire(folders))
        hospital = folders.nodes["north"].node._trainer
        first = terms_of(trial.study).initial_vector
        with pytest.raises(Exception, match="with fresh noise it would be a second release"):
            hospital.train(first, 1)


def test_a_study_without_a_budget_is_not_approved(tmp_path):
    trial = PrivateTrial(tmp_path, **LOCAL)
    (trial.path("west") / "ledger.sqlite").unlink()
    said = call("site", "check", trial.path("west"), code=1).output
    assert "ledger.sqlite does not exist: whether a budget bears this study is not known; make it" in " ".join(
        said.split()
    )
    Trial.approve(trial, "west", code=1)


def test_a_seed_of_a_study_is_for_the_start_and_not_for_the_noise(tmp_path):
    trial = Trial(tmp_path)
    classes = [word for name in trial.study.classes for word in ("--class", name)]
    call("study", "init", tmp_path / "seeded.toml", "--roster", tmp_path / "roster.json", "--name", "seeded", *classes,
         "--encoder", f"features:{tmp_path / 'site0.safetensors'}", "--seed", 5, "--dp", "local",
         "--epsilon", 8)  # fmt: skip
    study = read_study(tmp_path / "seeded.toml")
    assert (study.config.federation.seed, study.config.privacy.noise) == (5, "system")


def test_a_private_study_may_not_be_what_the_rules_forbid(tmp_path):
    for settings in ({"training__fam_loss": "contrastive"}, {"privacy__noise": "seeded"}):
        with pytest.raises(AssertionError):
            PrivateTrial(tmp_path / next(iter(settings)), **LOCAL, **settings)


def test_no_score_leaves_a_site_of_a_study_that_keeps_the_last_round(tmp_path):
    """A score of validation images is a release: the server may not ask for one where the study has none."""
    from securefed.aggregation import Aggregator

    trial = PrivateTrial(tmp_path, **LOCAL)
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        aggregator = Aggregator(terms_of(trial.study), wire)
        hello(trial, folders)
        with pytest.raises(RoundAbortedError):
            aggregator.open_scores(1, terms_of(trial.study).initial_vector)


def test_a_countersignature_is_fetched_though_the_budget_is_spent_elsewhere(tmp_path):
    """The run is over, and the hospital was not in all of its rounds: a signature costs nothing."""
    trial = PrivateTrial(tmp_path, budgets={"west": 8.5}, **LOCAL)
    with Folders(trial) as folders:
        wire = FolderWire(folders)

        def lose(way, stage, site, round_id, frame):
            if site == "west" and (stage in ("CountersignHead", "CloseRun") or training_round(round_id) == 1):
                raise KilledError
            return [frame]

        wire.change.append(lose)
        summary = trial.serve("run", wire)
        assert owed_signatures(tmp_path / "run") == ("west",)
        spend(trial, "west")
        folders.nodes["west"].close()
        trial.approve("west")  # as after another study had been approved
        folders.nodes["west"] = open_site(trial.path("west"))
        wire.change.clear()
        trial.serve("run", wire)
    verified(trial, "run")
    kept = json.loads((trial.path("west") / "runs" / "run" / "summary.json").read_text())
    assert kept["fam_sha256"] == summary["fam_sha256"]
    assert [spent.charge.run_id for spent in trial.charges("west")][-1] == "earlier"


def test_a_server_that_says_falsely_that_the_run_has_ended_gets_nothing_unpaid(tmp_path, monkeypatch):
    trial = PrivateTrial(tmp_path, budgets={"west": 8.5}, **LOCAL)
    spend(trial, "west")
    greet = RemoteParties.greet
    monkeypatch.setattr(
        RemoteParties, "greet", lambda self, run, number=0, ended=False: greet(self, run, number, ended=True)
    )
    with Folders(trial) as folders:
        summary = trial.serve("run", FolderWire(folders))
    assert summary["secure_aggregation"]["dropouts"]["MaskedInputCollection"] >= 1
    releases = trial.charges("west")
    sent = [e for e in of_kind(read_events(tmp_path / "run" / "audit.jsonl"), "round_completed")
            if "west" in e.fields["survivors"]]  # fmt: skip
    assert len(releases) == 1 + len(sent)


@pytest.mark.parametrize("mode", ["local", "distributed", "hospital"])
def test_a_study_whose_noise_bears_fewer_rounds_than_it_has_is_refused_by_everyone(tmp_path, mode):
    """The lead cannot make it; where it was made by other means, hospitals neither approve it nor say Hello to it."""
    unit = "hospital" if mode == "hospital" else "image"
    right = {"privacy__mode": mode, "training__fam_width": 4, "privacy__unit": unit, "privacy__epsilon": 1.0}
    trial = PrivateTrial(tmp_path, unit=unit, budgets=dict.fromkeys(NAMES, 500.0), **right)
    says = "a noise multiplier of 0.5 bears 0 of 2 rounds within epsilon 1"
    with pytest.raises(AssertionError, match=says):
        trial.new_study("refused.toml", **right, privacy__noise_multiplier=0.5)
    config = trial.study.config
    noisy = dataclasses.replace(config, privacy=dataclasses.replace(config.privacy, noise_multiplier=0.5))
    study = dataclasses.replace(trial.study, config=noisy)
    (tmp_path / "short.toml").write_bytes(study.encode())
    assert f"HOSPITALS REFUSE THIS STUDY: {says}" in call("study", "show", tmp_path / "short.toml").output
    assert "a study that hospitals refuse; digest" in call("study", "check", tmp_path / "short.toml").output
    assert says in call("site", "check", trial.path("west"), "--study", tmp_path / "short.toml", code=1).output
    refused = trial.approve("west", "short.toml", study.digest, code=1)
    assert says in str(refused.exception)
    folder = SiteFolder.open(trial.path("west"))
    terms = terms_of(study)
    site = site_privacy(folder, read_settings(folder.settings), study, terms, "a" * 64, lambda: "run")
    assert says in site.objection("run", 0)
    limited = dataclasses.replace(read_settings(folder.settings).policy, max_epsilon=1.0)
    assert says in "".join(limited.objections(study, terms))
    assert limited.objections(trial.study, terms_of(trial.study)) == []


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_study_with_a_target_that_no_noise_is_made_for_is_neither_made_nor_called_valid(tmp_path, as_json):
    trial = PrivateTrial(tmp_path, **LOCAL)
    says = r"0\.009 is at least the chance of"
    hollow = {"delta": 0.009, "sampling_rate": 0.001, "steps": 2}
    with pytest.raises(AssertionError, match=says):
        trial.new_study("hollow.toml", **LOCAL, **{f"privacy__{key}": value for key, value in hollow.items()})
    assert not (tmp_path / "hollow.toml").exists()
    config = trial.study.config
    study = dataclasses.replace(
        trial.study, config=dataclasses.replace(config, privacy=dataclasses.replace(config.privacy, **hollow))
    )
    (tmp_path / "hollow.toml").write_bytes(study.encode())
    checked = call("study", "check", tmp_path / "hollow.toml", *as_json, code=2)
    assert re.search(says, str(checked.exception))
    assert checked.stdout == ""
