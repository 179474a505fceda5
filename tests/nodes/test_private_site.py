"""Differential privacy in a deployment: each hospital pays from its own ledger, once a release, whatever is asked."""

import json

import pytest
from deployed import KilledError
from site_trial import NAMES, Folders, FolderWire, call

import securefed.nodes.server as server_module
from audit.accounting import Repeated, upper_epsilon
from audit.ledger import check_ledger, run_in_ledgers
from audit.log import read_events
from audit.report import build_report, render
from clients.privacy import PrivateHospital
from securefed.nodes.numbering import training_round
from securefed.site.opening import open_site
from tests.nodes.private_trial import (
    LOCAL,
    PrivateTrial,
    ServerKilledError,
    killed_at,
    of_kind,
    only_once,
    verified,
)

pytestmark = pytest.mark.usefixtures("no_replay")


# --------------------------------------------------------------------------------------------------------------- local


def test_a_private_study_states_an_epsilon_that_every_ledger_and_log_gives(tmp_path):
    trial = PrivateTrial(tmp_path, **LOCAL)
    for command in ("check", "show"):
        said = call("study", command, trial.root / "study.toml").output
        assert "local, image level, add-or-remove-one, delta 1e-05. CLAIMED" in said
        assert "cost a hospital epsilon 7.9" in said or "cost a hospital epsilon 8" in said
        assert "Every hospital charges its own ledger before it sends anything" in said
    with Folders(trial) as folders:
        summary = trial.serve("run", FolderWire(folders))
    stated = summary["privacy"]
    assert stated["claim"].startswith("CLAIMED: training images")
    assert 7.9 < stated["epsilon"] <= 8
    events = of_kind(read_events(trial.root / "run" / "audit.jsonl"), "privacy_event")
    assert len(events) == 2 * len(NAMES)
    run = run_in_ledgers("run", trial.study.digest)
    for name in NAMES:
        charges = trial.charges(name)
        assert [spent.state for spent in charges] == ["committed"] * 2
        own = [Repeated(spent.charge.mechanism, spent.charge.repetitions) for spent in charges]
        assert upper_epsilon(own, 1e-5) == pytest.approx(stated["epsilon"], rel=1e-6)
        verified(trial, "run", ledger=trial.path(name) / "ledger.sqlite")
        log = trial.private_log(name)
        assert check_ledger(trial.path(name) / "ledger.sqlite", {run: log}).startswith("2 charges")
        kinds = [event.kind for event in log]
        assert kinds == ["run_started", "privacy_claim", *["charge", "privacy_event", "charge"] * 2]
        kept = json.loads((trial.path(name) / "runs" / "run" / "summary.json").read_text())
        assert kept["privacy"]["epsilon"] == pytest.approx(stated["epsilon"], rel=1e-6)
        assert any("stay at the hospitals" in text for text in kept["privacy"]["unprotected"])
    assert not list((trial.root / "run").rglob("release.safetensors"))
    told = [path.read_bytes() for path in (trial.root / "run").rglob("*") if path.is_file()]
    for name in NAMES:
        fingerprint = json.loads((trial.path(name) / "data.json").read_text())["fingerprint"]
        assert not any(fingerprint.encode() in content for content in told)
        assert (trial.path(name) / "data.key").stat().st_mode & 0o777 == 0o600
    report = build_report(trial.root / "run")
    (budget,) = [line for line in report["verdicts"] if line["subject"] == "Privacy budget"]
    assert budget["sentence"].startswith("Each hospital charges a ledger of its own")
    assert "Charged to a ledger at each hospital" in render(report, "registry").decode()
    mine = ("--ledger", trial.path("north") / "ledger.sqlite", "--output", trial.root / "mine")
    call("audit", "report", trial.root / "run", *mine)
    report = json.loads((trial.root / "mine" / "report.json").read_bytes())
    (budget,) = [line for line in report["verdicts"] if line["subject"] == "Privacy budget"]
    assert (budget["verdict"], budget["sentence"].partition("; ")[2]) == (
        "NOT CLAIMED",
        "that of north was compared and agrees, no other was.",
    )
    standings = {entry["name"]: entry["in_ledger"] for entry in report["hospitals"] if "in_ledger" in entry}
    assert list(standings) == ["north"]
    assert standings["north"]["spent"] == pytest.approx(stated["epsilon"], rel=1e-6)


def test_a_ledger_that_was_put_back_is_noticed(tmp_path):
    trial = PrivateTrial(tmp_path, budgets=dict.fromkeys(NAMES, 50.0), **LOCAL)
    ledger = trial.path("west") / "ledger.sqlite"
    kept = ledger.read_bytes()
    with Folders(trial) as folders:
        trial.serve("run", FolderWire(folders))
    assert "2 charges of 1 logs agree" in call("site", "check", trial.path("west")).output
    for path in trial.path("west").glob("ledger.sqlite*"):
        path.unlink()
    ledger.write_bytes(kept)
    ledger.chmod(0o600)
    assert "ledger and private log differ" in call("site", "check", trial.path("west"), code=1).output


def test_the_simulation_runs_the_same_steps(tmp_path):
    """ADR 12: the class that charges, keeps and re-sends at a deployed site is the one of a simulation."""
    from securefed.privacy.hospitals import PrivateHospitals

    trial = PrivateTrial(tmp_path, **LOCAL)
    with Folders(trial) as folders:
        hospital = folders.nodes["north"].node._trainer
        assert isinstance(hospital._hospitals(), PrivateHospitals)


def test_another_hospital_is_away_in_each_of_the_rounds_that_begin_with_the_first_model(tmp_path):
    """Two rounds measure and leave the model as it is; a study does not wait for the hospitals of its first sum."""
    trial = PrivateTrial(tmp_path, rounds=4, **LOCAL, privacy__centring_steps=2)
    away = {1: "west", 2: "east", 3: "south"}

    def lose(way, stage, site, round_id, frame):
        if stage == "MaskedInputCollection" and away.get(training_round(round_id)) == site:
            raise KilledError
        return [frame]

    with Folders(trial) as folders:
        wire = FolderWire(folders)
        wire.change.append(lose)
        trial.serve("run", wire)
    rounds = of_kind(read_events(trial.root / "run" / "audit.jsonl"), "round_completed")
    assert [set(NAMES) - set(event.fields["survivors"]) for event in rounds] == [{"west"}, {"east"}, {"south"}, set()]
    verified(trial, "run")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_server_has_the_same_bits_sent_again_and_charged_once(tmp_path, monkeypatch, when):
    """Killed in round 2, before its sum is opened or after it, and started again: nothing is trained or paid twice."""
    trial, trained = PrivateTrial(tmp_path, **LOCAL), []
    right = PrivateHospital.train_round

    def counting(self, vector, number, randomness=None):
        trained.append((self.site.site, number))
        return right(self, vector, number, randomness)

    monkeypatch.setattr(PrivateHospital, "train_round", counting)
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        if when == "before":

            def killed(way, stage, site, number):
                return (way, stage, number) == ("down", "ConsistencyCheck", 2)

            killed.kills = False
            wire.change.append(only_once(killed))
            with pytest.raises(ServerKilledError):
                trial.serve("run", wire)
        else:
            with monkeypatch.context() as patched:
                patched.setattr(server_module, "save_checkpoint", killed_at(2, server_module.save_checkpoint))
                with pytest.raises(ServerKilledError):
                    trial.serve("run", wire)
        summary = trial.serve("run", wire)
    assert len(trained) == len(set(trained)) == 2 * len(NAMES)
    for name in NAMES:
        assert [spent.state for spent in trial.charges(name)] == ["committed"] * 2
        verified(trial, "run", ledger=trial.path(name) / "ledger.sqlite")
    events = of_kind(read_events(trial.root / "run" / "audit.jsonl"), "privacy_event")
    assert len({event.fields["release_id"] for event in events}) == len(events) == 2 * len(NAMES)
    assert 7.9 < summary["privacy"]["epsilon"] <= 8


def test_a_site_killed_between_training_and_sending_sends_what_it_has_paid_for(tmp_path, monkeypatch):
    """Its process dies before it answers; the repeated round gets the same bits from its folder."""
    trial, made = PrivateTrial(tmp_path, **LOCAL), []
    right = PrivateHospital.train_round

    def counting(self, vector, number, randomness=None):
        made.append((self.site.site, number, right(self, vector, number, randomness)))
        return made[-1][2]

    monkeypatch.setattr(PrivateHospital, "train_round", counting)

    with Folders(trial) as folders:
        wire = FolderWire(folders)

        def killed(way, stage, site, number):
            if (way, stage, site, number) != ("up", "MaskedInputCollection", "west", 1):
                return False
            folders.nodes["west"].close()
            folders.nodes["west"] = open_site(trial.path("west"))
            return True

        killed.kills = False
        wire.change.append(only_once(killed))
        with pytest.raises(ServerKilledError):
            trial.serve("run", wire)
        trial.serve("run", wire)
    assert len([entry for entry in made if entry[:2] == ("west", 1)]) == 1
    assert len(trial.charges("west")) == 2
