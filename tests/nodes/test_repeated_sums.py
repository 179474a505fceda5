"""A sum that was opened and that the server then lost: it is opened again over the same hospitals, or not at all."""

from contextlib import suppress

import pytest
from deployed import KilledError
from private_trial import LOCAL, PrivateTrial, ServerKilledError, killed_at, of_kind, only_once, verified
from site_trial import NAMES, Folders, FolderWire

import securefed.nodes.server as server_module
from audit.accounting import SampledGaussian
from audit.ledger import Account, BudgetExceededError, Charge, Ledger
from audit.log import read_events
from securefed.errors import RoundAbortedError
from securefed.evidence import RunEvidence
from securefed.nodes.numbering import training_round

pytestmark = pytest.mark.usefixtures("no_replay")

SHARED = {"privacy__mode": "distributed", "privacy__epsilon": 8.0, "training__fam_width": 4, "privacy__spare_rounds": 2}
AWAY = r"over east, north, south may have been opened before.* bring south back and go on"
OTHERS = {"north", "south", "east"}


class Losing(FolderWire):
    """Loses the hospitals of `down` in round 2, where their vectors are asked for or, of `away`, from its beginning."""

    def __init__(self, folders):
        super().__init__(folders)
        self.down, self.away = set(), set()
        self.change.append(self._lose)

    def _lose(self, way, stage, site, round_id, frame):
        late = site in self.down and stage == "MaskedInputCollection"
        if training_round(round_id) == 2 and (late or site in self.away):
            raise KilledError
        return [frame]


def lose_the_sum(trial, wire, monkeypatch):
    """The server dies when the sum of round 2 over all but west was opened and not saved."""
    wire.down = {"west"}
    with monkeypatch.context() as patched:
        patched.setattr(server_module, "save_checkpoint", killed_at(2, server_module.save_checkpoint))
        with pytest.raises(ServerKilledError):
            trial.serve("run", wire)
    wire.down = set()


def die_without_west(trial, wire, killed):
    """The server dies at a message of round 2, in which west is lost."""
    killed.kills = False
    wire.down = {"west"}
    wire.change.append(only_once(killed))
    with pytest.raises(ServerKilledError):
        trial.serve("run", wire)
    wire.down = set()


def spend_all(trial, name):
    """Leave nothing of a hospital's budget that would bear another vector."""
    with Ledger.existing(trial.path(name) / "ledger.sqlite") as ledger, suppress(BudgetExceededError):
        for number in range(100):
            charge = Charge(f"earlier {number}", f"earlier/{number}", SampledGaussian(4.0, 1.0))
            ledger.reserve(Account(name, "a" * 64, "image"), charge)


def attempts(trial):
    """Over whom the sums of round 2 were opened, one attempt after the other."""
    opened = of_kind(read_events(trial.root / "run" / "audit.jsonl"), "opening")
    return [set(event.fields["survivors"]) for event in opened if event.fields["round"] == 2]


@pytest.mark.parametrize("settings", [{}, LOCAL, SHARED], ids=["none", "local", "distributed"])
def test_a_hospital_that_was_not_in_the_sum_is_left_out_of_its_repetition(tmp_path, monkeypatch, settings):
    trial = PrivateTrial(tmp_path, rounds=3, **settings)
    with Folders(trial) as folders:
        wire = Losing(folders)
        lose_the_sum(trial, wire, monkeypatch)
        trial.serve("run", wire)
    assert attempts(trial) == [OTHERS, OTHERS]
    events = read_events(trial.root / "run" / "audit.jsonl")
    repeated, last = of_kind(events, "round_completed")[2:4]
    assert repeated.fields["dropouts"] == {"west": "AdvertiseKeys"}
    assert "west" not in repeated.fields["bytes"]
    assert set(last.fields["survivors"]) == set(NAMES)
    verified(trial, "run")


def test_the_set_stands_in_the_record_before_any_share_that_opens_its_sum_is_asked_for(tmp_path):
    """Killed while shares come in: the log has no end of the round, and hospitals have opened its sum."""
    trial = PrivateTrial(tmp_path)

    def killed(way, stage, site, number):
        return (way, stage, site, number) == ("up", "Unmasking", "south", 2)

    with Folders(trial) as folders:
        wire = Losing(folders)
        die_without_west(trial, wire, killed)
        trial.serve("run", wire)
    assert attempts(trial) == [OTHERS, OTHERS]
    verified(trial, "run")


def test_noise_in_shares_is_not_paid_for_a_sum_that_no_hospital_would_open(tmp_path, monkeypatch):
    """Without south the sum would be another one: nobody is asked for a vector until it is back."""
    trial = PrivateTrial(tmp_path, **SHARED)
    with Folders(trial) as folders:
        wire = Losing(folders)
        lose_the_sum(trial, wire, monkeypatch)
        paid = {name: len(trial.charges(name)) for name in NAMES}
        wire.away = {"south"}
        for _ in range(3):
            with pytest.raises(RoundAbortedError, match=AWAY):
                trial.serve("run", wire)
        assert {name: len(trial.charges(name)) for name in NAMES} == paid
        wire.away = set()
        trial.serve("run", wire)
    assert attempts(trial) == [OTHERS, OTHERS]
    verified(trial, "run")


def test_a_hospital_of_the_sum_that_cannot_pay_again_is_not_waited_for(tmp_path, monkeypatch):
    """Three others are there, and enough for any other sum."""
    trial = PrivateTrial(tmp_path, **SHARED)
    with Folders(trial) as folders:
        wire = Losing(folders)
        lose_the_sum(trial, wire, monkeypatch)
        spend_all(trial, "south")
        with pytest.raises(RoundAbortedError, match="but south cannot pay for another"):
            trial.serve("run", wire)


def test_a_hospital_of_the_sum_that_is_lost_again_is_named(tmp_path, monkeypatch):
    """The others refuse a sum without it, as they must; west would be asked in vain."""
    trial = PrivateTrial(tmp_path)
    with Folders(trial) as folders:
        wire = Losing(folders)
        lose_the_sum(trial, wire, monkeypatch)
        wire.down = {"south"}
        with pytest.raises(RoundAbortedError, match="bring south back and go on"):
            trial.serve("run", wire)
        wire.down = set()
        trial.serve("run", wire)
    assert attempts(trial) == [OTHERS, OTHERS]
    verified(trial, "run")


def test_a_server_that_does_not_know_of_the_sum_says_who_refuses_and_why(tmp_path, monkeypatch):
    trial = PrivateTrial(tmp_path)
    with Folders(trial) as folders:
        wire = Losing(folders)
        lose_the_sum(trial, wire, monkeypatch)
        with monkeypatch.context() as patched:
            patched.setattr(RunEvidence, "opened_before", lambda *_: ())
            said = r"east, north, south opened a sum over this model and other hospitals before.* stop the node"
            with pytest.raises(RoundAbortedError, match=said):
                trial.serve("run", wire)
        trial.serve("run", wire)
    verified(trial, "run")


def test_a_sum_that_nobody_opened_binds_nobody_where_vectors_cost_nothing(tmp_path):
    """The server dies as it asks for the first share; then south is gone for good, and west is back."""
    trial = PrivateTrial(tmp_path, rounds=3)

    def killed(way, stage, _site, number):
        return (way, stage, number) == ("down", "Unmasking", 2)

    with Folders(trial) as folders:
        wire = Losing(folders)
        die_without_west(trial, wire, killed)
        wire.change.append(gone_for_good("south"))
        trial.serve("run", wire)
    assert attempts(trial) == [OTHERS, {"east", "north", "west"}]


def gone_for_good(name):
    """A hospital whose power is off from now on."""

    def lose(_way, _stage, site, _round_id, frame):
        if site == name:
            raise KilledError
        return [frame]

    return lose
