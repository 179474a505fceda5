"""Private hospitals of a simulation trained together: the same releases, each paid for before any of them is made."""

from functools import partialmethod
from types import SimpleNamespace

import numpy as np
import pytest

from audit.ledger import BudgetExceededError, Ledger
from audit.verify import verify_run
from clients.method.layout import initial_vector
from clients.privacy import PrivateHospital
from clients.privacy.fleet import PrivateFleet
from securefed.model_file import load_model
from securefed.privacy.hospitals import PrivateHospitals
from securefed.privacy.releases import ReleaseStore
from securefed.privacy.shared_hospitals import SummingHospitals
from securefed.simulation import resume_run
from tests.securefed.conftest import WIDTH, bundle
from tests.securefed.test_private_simulation import LOCAL, SITES, budgets, events_of, run

SEEDED = {**LOCAL, "noise": "seeded"}
SHARED = {"mode": "distributed", "noise": "seeded", "epsilon": 8.0}


@pytest.fixture
def together(monkeypatch):
    """Simulations train as on a GPU; the calls of the fleet: (round, hospitals, privacy events on disk so far)."""
    calls, seen = [], SimpleNamespace(log=None)
    train = PrivateFleet.train

    def watched(self, vector, trainees, number):
        events = seen.log.read_text().count('"privacy_event"') if seen.log else 0
        calls.append((number, len(trainees), events))
        return train(self, vector, trainees, number)

    monkeypatch.setattr(PrivateFleet, "train", watched)
    monkeypatch.setattr(PrivateHospitals, "__init__", partialmethod(PrivateHospitals.__init__, together=True))
    monkeypatch.setattr(PrivateHospital, "train_round", lambda *_: pytest.fail("trained by itself"))
    return SimpleNamespace(calls=calls, seen=seen)


@pytest.mark.parametrize("changes", [{}, {"clip_norm": 1.0}, {"coupling": "one-way"}], ids=str)
def test_a_run_is_that_of_hospitals_one_by_one(small_run, tmp_path, request, changes):
    config = small_run(privacy={**SEEDED, **changes})
    alone = run(config, tmp_path, "alone")
    request.getfixturevalue("together")
    fleet = run(config, tmp_path, "fleet")
    a, b = (load_model(result.folder).vector for result in (alone, fleet))
    assert np.abs(a - initial_vector(WIDTH, config.training, config.federation.seed)).max() > 5e-3
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-5)
    charged = [[event.fields for event in events_of(r.folder.path, "privacy_event")] for r in (alone, fleet)]
    names = [[(e["round"], e["hospital"], e["mechanism"]) for e in events] for events in charged]
    assert names[0] == names[1]
    assert fleet.summary["privacy"] == alone.summary["privacy"]
    assert verify_run(fleet.folder.path).is_verified


def test_all_that_take_part_are_charged_before_any_is_trained(small_run, tmp_path, together):
    """On disk, at the moment at which the fleet begins."""
    together.seen.log = tmp_path / "run" / "audit.jsonl"
    run(small_run(privacy=LOCAL), tmp_path)
    assert together.calls == [(1, 5, 5), (2, 5, 10), (3, 5, 15)]


def test_a_hospital_that_is_lost_before_it_trains_is_neither_charged_nor_trained(small_run, tmp_path, together):
    drops = ["site1@2:Unmasking", "site4@3:MaskedInputCollection"]
    result = run(small_run(privacy=LOCAL, simulation={"drop": drops}), tmp_path)
    assert [call[:2] for call in together.calls] == [(1, 5), (2, 5), (3, 4)]
    counts = dict.fromkeys(SITES, 0)
    for event in events_of(result.folder.path, "privacy_event"):
        counts[event.fields["hospital"]] += 1
    assert counts == {"site0": 3, "site1": 3, "site2": 3, "site3": 3, "site4": 2}
    assert verify_run(result.folder.path).is_verified


@pytest.mark.parametrize("ledger", [False, True], ids=["no ledger", "ledger"])
def test_an_interrupted_run_sends_what_was_kept_and_makes_only_the_rest_anew(
    small_run, tmp_path, monkeypatch, together, ledger
):
    """Killed in round 2, all of it charged and trained, two releases kept: three are trained again, none is charged."""
    path = tmp_path / "ledger.sqlite"
    if ledger:
        budgets(path, 9.0)
    config = small_run(privacy={**LOCAL, **({"ledger": str(path)} if ledger else {})})
    save, kept = ReleaseStore.save, []

    def interrupting(self, site, release_id, update, private):
        if len(kept) == len(SITES) + 2:
            kept.append(None)
            raise KeyboardInterrupt
        kept.append((site, release_id, update.tobytes()))
        save(self, site, release_id, update, private)

    monkeypatch.setattr(ReleaseStore, "save", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, workers=1)  # with several, those at work end first
    before = [event.fields["release_id"] for event in events_of(tmp_path / "run", "privacy_event")]
    assert len(before) == len(set(before)) == 2 * len(SITES)
    sent, train = {}, PrivateHospitals.train

    def watched(self, site, received, number):
        update = train(self, site, received, number)
        sent[number, site] = update.tobytes()
        return update

    monkeypatch.setattr(PrivateHospitals, "train", watched)
    resumed = resume_run(tmp_path / "run", cache_dir=tmp_path / "cache", workers=1)
    assert [call[:2] for call in together.calls] == [(1, 5), (2, 5), (2, 3), (3, 5)]
    for site, _, update in kept[len(SITES) : len(SITES) + 2]:
        assert sent[2, site] == update
    made = [entry[1] for entry in kept if entry is not None]
    assert len(made) == len(set(made)) == 3 * len(SITES)
    charged = [event.fields["release_id"] for event in events_of(tmp_path / "run", "privacy_event")]
    assert len(charged) == len(set(charged)) == 3 * len(SITES)
    assert 7.9 < resumed.summary["privacy"]["epsilon"] <= 8
    assert verify_run(tmp_path / "run", ledger=path if ledger else None).is_verified
    if ledger:
        with Ledger(path) as book:
            assert {spent.state for spent in book.charges()} == {"committed"}
            assert len(book.charges()) == 3 * len(SITES)


def test_where_a_ledger_refuses_one_hospital_none_is_trained(small_run, tmp_path, monkeypatch, together):
    """Another run spends a hospital's budget between the start, when it was looked at, and the first round."""
    from securefed.privacy.spending import Spending

    path = tmp_path / "ledger.sqlite"
    budgets(path, 9.0)
    config = small_run(privacy={**LOCAL, "ledger": str(path)})
    run(config, tmp_path, "first")
    monkeypatch.setattr(Spending, "check_run", lambda *_, **__: None)
    together.calls.clear()
    with pytest.raises(BudgetExceededError):
        run(config, tmp_path, "second")
    assert not together.calls
    assert not events_of(tmp_path / "second", "privacy_event")
    assert len(events_of(tmp_path / "second", "refused")) == 1


def test_a_site_that_received_another_model_trains_from_that_one(small_run, tmp_path):
    """It is charged for that release too, by itself."""
    charged, config = [], small_run(privacy=SEEDED)
    spending = SimpleNamespace(
        release_id=lambda site, number, digest: f"{number}/{digest}/{site}",
        release=lambda site, number, name, make: (charged.append((site, name)), make())[1],
        settle=lambda *_: None,
    )
    releases = SimpleNamespace(load=lambda *_: None, save=lambda *_: None)

    def charge(site, _, name):
        charged.append((site, name))

    def make(**how):
        return PrivateHospitals(bundle(sites=3), config, "cpu", {}, spending, releases, 1, charge, **how)

    vector = initial_vector(WIDTH, config.training, 0)
    fleet, alone = make(together=True), make(together=False)
    fleet.expect(1, ("site0", "site1"))
    fleet.train("site0", vector, 1)
    assert [site for site, _ in charged] == ["site0", "site1", "site0"]  # the last asks again whether it is charged
    for site, received in (("site1", vector + np.float32(1e-3)), ("site2", vector)):
        np.testing.assert_array_equal(fleet.train(site, received, 1), alone.train(site, received, 1))
    assert charged[3][1] != charged[1][1]


def test_clipped_sums_for_all_are_those_of_each(small_run):
    config = small_run(privacy=SHARED)
    data, paid = bundle(sites=3), []
    alone, fleet = (
        SummingHospitals(data, config, "cpu", {}, 1, lambda *what: paid.append(what), together=how)
        for how in (False, True)
    )
    vector = initial_vector(WIDTH, config.training, 0)
    for number in (1, 2):
        fleet.expect(number, ("site0", "site2"))
        for site in alone.sites:
            paid.clear()
            expected, got = (way.train(site, vector, number) for way in (alone, fleet))
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
            assert paid == [(site, number)] * 2
    a, b = (way.private_states() for way in (alone, fleet))
    for site in alone.sites:
        for name, array in a[site].items():
            np.testing.assert_allclose(b[site][name], array, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.gpu
@pytest.mark.parametrize("privacy", [SEEDED, {**SEEDED, "coupling": "one-way"}, SHARED], ids=str)
def test_a_run_on_a_gpu_is_that_on_the_processor(small_run, tmp_path, privacy):
    here, there = (
        run(small_run(privacy=privacy, federation={"device": device}), tmp_path, device) for device in ("cpu", "cuda")
    )
    a, b = (load_model(result.folder).vector for result in (here, there))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-3)
    assert verify_run(there.folder.path).is_verified
