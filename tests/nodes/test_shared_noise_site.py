"""Noise in shares in a deployment: every hospital is charged before its vector leaves."""

import json

import pytest
from site_trial import NAMES, Folders, FolderWire, call

from audit.accounting import Repeated, mechanism_of, upper_epsilon
from audit.ledger import check_ledger, run_in_ledgers
from audit.log import read_events
from securefed.deploy.errors import DeploymentError
from securefed.nodes.numbering import training_round
from securefed.site.folder import SiteFolder
from tests.nodes.private_trial import (
    PrivateTrial,
    ServerKilledError,
    hello,
    of_kind,
    only_once,
    verified,
)

pytestmark = pytest.mark.usefixtures("no_replay")


# ---------------------------------------------------------------------------------------------------- noise in shares


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
def test_a_study_with_noise_in_shares_charges_every_ledger_before_a_vector_leaves(tmp_path, mode):
    unit = "hospital" if mode == "hospital" else "image"
    settings = {"privacy__mode": mode, "privacy__epsilon": 8.0, "training__fam_width": 4, "privacy__unit": unit}
    trial = PrivateTrial(tmp_path, unit=unit, **settings)
    said = call("study", "show", trial.root / "study.toml").output
    assert "against whoever sees only sums" in said
    assert "Against one who opens single vectors" in said
    assert "and more with every round that is begun again." in said
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
    run = run_in_ledgers("run", trial.study.digest)
    for name in NAMES:
        own = [Repeated(spent.charge.mechanism) for spent in trial.charges(name)]
        assert upper_epsilon(own, 1e-5) >= upper_epsilon(server, 1e-5) * (1 - 1e-9)
        checks = verified(trial, "run", ledger=trial.path(name) / "ledger.sqlite")
        assert checks["ledger"].startswith("2 charges of the log agree")
        assert check_ledger(trial.path(name) / "ledger.sqlite", {run: trial.private_log(name)}).startswith("2")
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
    run = run_in_ledgers("run", trial.study.digest)
    for name in NAMES:
        checks = verified(trial, "run", ledger=trial.path(name) / "ledger.sqlite")
        assert checks["ledger"].startswith("2 charges of the log agree")  # of three: which is in a sum, nobody says
        releases = [spent.charge.release_id for spent in trial.charges(name)]
        assert releases == [f"{run}/1/vector 1/{name}", f"{run}/2/vector 1/{name}", f"{run}/2/vector 2/{name}"]
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


def test_a_hospital_whose_vectors_are_used_up_says_so_before_a_round(tmp_path):
    """Both were paid in round 1, which a killed server began twice: round 2 cannot be."""
    settings = {"privacy__mode": "distributed", "privacy__epsilon": 8.0, "training__fam_width": 4}
    trial = PrivateTrial(tmp_path, **settings)

    def killed(way, stage, site, number):
        return (way, stage, number) == ("down", "ConsistencyCheck", 1)

    killed.kills = False
    with Folders(trial) as folders:
        for _ in range(2):
            wire = FolderWire(folders)
            wire.change.append(only_once(killed))
            with pytest.raises(ServerKilledError):
                trial.serve("run", wire)
    said = call("site", "check", trial.path("west"), code=1).output
    assert "2 of 2 vectors paid, last head: round 0 of 2; rounds that were begun again have used up the others" in said
    trial.approve("west")
    with Folders(trial) as folders:
        wire = FolderWire(folders)
        with pytest.raises(DeploymentError, match="west: budget: 2 of 2 vectors paid, last head: round 0 of 2"):
            trial.serve("run", wire)
        assert {stage for stage, *_ in wire.log} == {"Hello"}


def test_vectors_that_are_all_paid_when_a_study_has_ended_are_as_they_should_be(tmp_path):
    settings = {"privacy__mode": "distributed", "privacy__epsilon": 8.0, "training__fam_width": 4}
    trial = PrivateTrial(tmp_path, **settings)
    with Folders(trial) as folders:
        trial.serve("run", FolderWire(folders))
        hello(trial, folders)
    assert "2 of 2 vectors paid, last head: round 2 of 2" in call("site", "check", trial.path("west")).output
