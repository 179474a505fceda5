"""Differential privacy in a deployment: each hospital pays from its own ledger, once a release, whatever is asked."""

import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deployed import KilledError
from test_site import NAMES, Folders, FolderWire, Trial, call

import securefed.nodes.server as server_module
from audit.accounting import Adjacency, Repeated, mechanism_of, upper_epsilon
from audit.ledger import Budget, BudgetLine, Ledger, Policy, check_ledger
from audit.log import read_events
from audit.report import build_report, render
from audit.verify import verify_run
from clients.privacy import PrivateHospital
from securefed.errors import RoundAbortedError, TargetEpsilonError
from securefed.nodes.control import ControlStage, decode_reply, encode_request
from securefed.nodes.numbering import training_round
from securefed.site.folder import SiteFolder
from securefed.site.opening import open_site, terms_of
from securefed.study import read_study

LOCAL = {"privacy__mode": "local", "privacy__epsilon": 8.0}


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    monkeypatch.setattr("securefed.outcome.draw_plots", lambda folder, chosen_round: None)


@pytest.fixture(autouse=True)
def _no_replay(monkeypatch):
    """What tests/clients/privacy tests takes most of the time of such small hospitals."""
    monkeypatch.setattr(PrivateHospital, "_replay_a_step", lambda self: None)


class PrivateTrial(Trial):
    """Four hospitals, each with a ledger of its own; `budgets` says what some of them have instead of 9."""

    def __init__(self, root, unit="image", budgets=None, **settings):
        self._budgets, self._unit = budgets or {}, unit
        super().__init__(root, **settings)

    def approve(self, name, *args, **more):
        if not (self.path(name) / "ledger.sqlite").exists():
            self.budget(name, self._budgets.get(name, 9.0))
        return super().approve(name, *args, **more)

    def budget(self, name, epsilon):
        signer = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
        path = self.path(name) / "ledger.sqlite"
        with Ledger(path) as ledger:
            budget = Budget(epsilon, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
            ledger.install(Policy({BudgetLine(name, self._unit): budget}))

    def charges(self, name):
        with Ledger.existing(self.path(name) / "ledger.sqlite") as ledger:
            return ledger.charges()

    def private_log(self, name):
        (path,) = (self.path(name) / "privacy").glob("*/audit.jsonl")
        return read_events(path)


def of_kind(events, kind):
    return [event for event in events if event.kind == kind]


def verified(trial, run, **more):
    heads = [trial.path(name) / "heads" / f"{run}.jsonl" for name in NAMES]
    found = verify_run(trial.root / run, roster=trial.root / "roster.json", heads=heads, **more)
    assert found.is_verified, found.failed


def only_once(act):
    """A wire's change that acts on the first request of which `act` says so, by returning True."""
    done = []

    def change(way, stage, site, round_id, frame):
        if not done and act(way, stage, site, training_round(round_id)):
            done.append(True)
            raise KilledError if act.kills else ServerKilledError
        return [frame]

    return change


class ServerKilledError(Exception):
    """The server's process is gone."""


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
    for name in NAMES:
        charges = trial.charges(name)
        assert [spent.state for spent in charges] == ["committed"] * 2
        own = [Repeated(spent.charge.mechanism, spent.charge.repetitions) for spent in charges]
        assert upper_epsilon(own, 1e-5) == pytest.approx(stated["epsilon"], rel=1e-6)
        verified(trial, "run", ledger=trial.path(name) / "ledger.sqlite")
        log = trial.private_log(name)
        assert check_ledger(trial.path(name) / "ledger.sqlite", {"run": log}).startswith("2 charges")
        kinds = [event.kind for event in log]
        assert kinds == ["run_started", "privacy_claim", *["charge", "privacy_event", "charge"] * 2]
        kept = json.loads((trial.path(name) / "runs" / "run" / "summary.json").read_text())
        assert kept["privacy"]["epsilon"] == pytest.approx(stated["epsilon"], rel=1e-6)
        assert any("stay at the hospitals" in text for text in kept["privacy"]["unprotected"])
    assert not list((trial.root / "run").rglob("release.safetensors"))
    report = build_report(trial.root / "run")
    (budget,) = [line for line in report["verdicts"] if line["subject"] == "Privacy budget"]
    assert budget["sentence"].startswith("Each hospital charges a ledger of its own")
    assert "Charged to a ledger at each hospital" in render(report, "registry").decode()


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
                patched.setattr(server_module, "save_checkpoint", _killed_at(2, server_module.save_checkpoint))
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


def _killed_at(number, right):
    def save(folder, checkpoint):
        if checkpoint.current.number == number:
            raise ServerKilledError
        return right(folder, checkpoint)

    return save


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


def spend(trial, name):
    from audit.accounting import SampledGaussian
    from audit.ledger import Account, Charge

    with Ledger.existing(trial.path(name) / "ledger.sqlite") as ledger:
        charge = Charge("earlier", "earlier/1", SampledGaussian(1.0, 1.0))
        ledger.reserve(Account(name, "a" * 64, "image"), charge)


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
    assert [spent.charge.run_id for spent in trial.charges("west")] == ["run", "earlier"]


def test_a_server_that_asks_for_more_than_the_study_gets_nothing(tmp_path):
    """Another run of the same study, under another name: its rounds were spent, and the release is not made."""
    trial = PrivateTrial(tmp_path, budgets=dict.fromkeys(NAMES, 50.0), **LOCAL)
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        trial.serve("run", wire)
        with pytest.raises(RoundAbortedError):
            trial.serve("again", wire)
    for name in NAMES:
        assert len(trial.charges(name)) == 2
    refused = of_kind(read_events(trial.root / "again" / "audit.jsonl"), "refused")
    assert {e.fields["hospital"] for e in refused} == set(NAMES)
    assert all("above the target 8" in e.fields["reason"] for e in refused)


def test_a_site_may_have_a_new_process_for_every_message(tmp_path):
    """Books and last release are found again in its folder: each release is paid for and made once."""
    trial = PrivateTrial(tmp_path, **LOCAL)
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
        assert [spent.state for spent in trial.charges(name)] == ["committed"] * 2
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
    assert "is no ledger" in said
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


def hello(trial, folders):
    from securefed.nodes.site_run import CONTROL_VERSION

    fields = {"version": CONTROL_VERSION, "software": "x", "run_id": "run", "study": trial.digest,
              "roster": trial.study.roster.digest}  # fmt: skip
    for name in NAMES:
        decode_reply(
            ControlStage.HELLO, folders.nodes[name].handle("Hello", encode_request(ControlStage.HELLO, fields))
        )


# ---------------------------------------------------------------------------------------------------- noise in shares


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
def test_a_study_with_noise_in_shares_charges_every_ledger_before_a_vector_leaves(tmp_path, mode):
    unit = "hospital" if mode == "hospital" else "image"
    settings = {"privacy__mode": mode, "privacy__epsilon": 8.0, "training__fam_width": 4, "privacy__unit": unit}
    trial = PrivateTrial(tmp_path, unit=unit, **settings)
    said = call("study", "show", trial.root / "study.toml").output
    assert "against whoever sees only sums" in said
    assert "Against one who opens single vectors" in said
    left = []

    def watch(way, stage, site, round_id, frame):
        if (way, stage) == ("up", "MaskedInputCollection"):
            left.append((site, len(trial.charges(site)) == training_round(round_id)))
        return [frame]

    with Folders(trial) as folders:
        wire = FolderWire(folders)
        wire.change.append(watch)
        summary = trial.serve("run", wire)
    assert len(left) == 2 * len(NAMES)
    assert all(charged for _, charged in left)
    stated = summary["privacy"]
    assert stated["claim"].startswith("CLAIMED")
    assert 0 < stated["epsilon"] <= 8 < stated["epsilon_by_adversary"]["aggregation_broken"]
    events = of_kind(read_events(trial.root / "run" / "audit.jsonl"), "privacy_event")
    assert len(events) == 2
    server = [Repeated(mechanism_of(e.fields["mechanism"]), e.fields["repetitions"]) for e in events]
    for name in NAMES:
        own = [Repeated(spent.charge.mechanism) for spent in trial.charges(name)]
        assert upper_epsilon(own, 1e-5) >= upper_epsilon(server, 1e-5) * (1 - 1e-9)
        verified(trial, "run", ledger=trial.path(name) / "ledger.sqlite")
        assert check_ledger(trial.path(name) / "ledger.sqlite", {"run": trial.private_log(name)}).startswith("2")
        kept = json.loads((trial.path(name) / "runs" / "run" / "summary.json").read_text())
        assert kept["privacy"]["epsilon"] >= stated["epsilon"] * (1 - 1e-9)


def test_a_vector_that_left_twice_is_paid_twice_and_spare_rounds_bear_it(tmp_path):
    """The server dies before the sum is opened: a hospital cannot know, so that its ledger counts both vectors."""
    settings = {"privacy__mode": "distributed", "privacy__epsilon": 8.0, "training__fam_width": 4}
    trial = PrivateTrial(tmp_path, privacy__spare_rounds=1, **settings)

    def killed(way, stage, site, number):
        return (way, stage, number) == ("down", "ConsistencyCheck", 2)

    killed.kills = False
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        wire.change.append(only_once(killed))
        with pytest.raises(ServerKilledError):
            trial.serve("run", wire)
        summary = trial.serve("run", wire)
    for name in NAMES:
        releases = [spent.charge.release_id for spent in trial.charges(name)]
        assert releases == [f"run/1/vector 1/{name}", f"run/2/vector 1/{name}", f"run/2/vector 2/{name}"]
    assert summary["privacy"]["epsilon"] <= 8
    assert summary["rounds_completed"] == 2


def test_a_share_can_be_charged_in_place_of_the_sum(tmp_path):
    import dataclasses

    from securefed.site.settings import read_settings

    settings = {"privacy__mode": "distributed", "privacy__epsilon": 8.0, "training__fam_width": 4}
    trial = PrivateTrial(tmp_path, budgets={"west": 40.0}, **settings)
    folder = SiteFolder.open(trial.path("west"))
    before = read_settings(folder.settings)
    policy = dataclasses.replace(before.policy, charge="share")
    folder.write(folder.settings, dataclasses.replace(before, policy=policy).encode())
    with Folders(trial) as folders:
        trial.serve("run", FolderWire(folders))
    costs = {name: upper_epsilon([Repeated(s.charge.mechanism) for s in trial.charges(name)], 1e-5) for name in NAMES}
    assert trial.charges("west")[0].charge.mechanism.shares == 1
    assert costs["west"] > costs["north"] * 1.5
