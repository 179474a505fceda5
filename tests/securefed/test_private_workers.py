"""Hospitals with differential privacy on several cores: what they train does not depend on how many work at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from audit.log import read_events
from audit.verify import verify_run
from clients.privacy import PrivateHospital
from securefed.config import config_from_mapping
from securefed.hospitals import Hospitals
from securefed.privacy.releases import ReleaseStore
from securefed.privacy.shared_hospitals import SummingHospitals
from securefed.simulation import resume_run, simulate
from tests.securefed.test_private_simulation import budgets

TRAINING = {"distributed": SummingHospitals, "hospital": Hospitals}


@pytest.fixture
def config(features_file):
    def make(mode, **privacy):
        source = f"features:{features_file}"
        return config_from_mapping(
            {
                "data": {"source": source},
                "encoder": {"name": source},
                "federation": {"rounds": 2, "device": "cpu"},
                "training": {"fam_width": 4},
                "privacy": {"mode": mode, "noise": "seeded", "epsilon": 8.0, **privacy},
            }
        )

    return make


@pytest.mark.parametrize("mode", TRAINING)
def test_the_model_does_not_depend_on_the_number_of_workers(config, tmp_path, monkeypatch, mode):
    threads = set()
    train = TRAINING[mode].train

    def watched(self, site, received, number):
        threads.add(threading.current_thread())
        return train(self, site, received, number)

    monkeypatch.setattr(TRAINING[mode], "train", watched)
    results = []
    for workers in (1, 3):
        threads.clear()
        run = simulate(config(mode), output=tmp_path / str(workers), cache_dir=tmp_path / "cache", workers=workers)
        results.append({key: run.summary[key] for key in ("fam_sha256", "mean")})
        assert (threading.main_thread() in threads) == (workers == 1)
    assert results[0] == results[1]


def test_hospitals_that_pay_are_charged_in_order_before_any_trains_and_train_at_once(config, tmp_path, monkeypatch):
    """Mode `local`, whose hospitals all pay: one thread charges for all of a round, on disk before the first trains."""
    log, results, records = tmp_path / "3" / "audit.jsonl", [], []
    train, threads, charged = PrivateHospital.train_round, set(), []

    def watched(self, vector, number, randomness=None):
        threads.add(threading.current_thread())
        charged.append((number, log.read_text().count('"privacy_event"') if log.exists() else 0))
        return train(self, vector, number, randomness)

    monkeypatch.setattr(PrivateHospital, "train_round", watched)
    for workers in (1, 3):
        threads.clear()
        charged.clear()
        run = simulate(config("local"), output=tmp_path / str(workers), cache_dir=tmp_path / "cache", workers=workers)
        results.append({key: run.summary[key] for key in ("fam_sha256", "mean", "privacy")})
        events = [event for event in read_events(run.folder.path / "audit.jsonl") if event.kind == "privacy_event"]
        records.append([(event.fields["round"], event.fields["hospital"]) for event in events])
        assert verify_run(run.folder.path).is_verified
    assert results[0] == results[1]
    assert records[0] == records[1]
    assert threading.main_thread() not in threads
    assert sorted(charged) == [(1, 5)] * 5 + [(2, 10)] * 5


def test_a_run_that_dies_while_several_train_pays_for_nothing_twice(config, tmp_path, monkeypatch):
    uncut = simulate(config("local"), output=tmp_path / "uncut", cache_dir=tmp_path / "cache", workers=1)
    save, kept = ReleaseStore.save, []

    def interrupting(self, site, release_id, update, private):
        if release_id.split("/")[1] == "2" and site == "site2":
            raise KeyboardInterrupt
        kept.append(release_id)
        save(self, site, release_id, update, private)

    with monkeypatch.context() as patched:
        patched.setattr(ReleaseStore, "save", interrupting)
        with pytest.raises(KeyboardInterrupt):
            simulate(config("local"), output=tmp_path / "cut", cache_dir=tmp_path / "cache", workers=3)
    before, made = list(kept), []

    def counting(self, site, release_id, update, private):
        made.append(release_id)
        save(self, site, release_id, update, private)

    monkeypatch.setattr(ReleaseStore, "save", counting)
    resumed = resume_run(tmp_path / "cut", cache_dir=tmp_path / "cache", workers=3)
    assert not set(made) & set(before)
    assert len(made) + len(before) == 2 * 5
    events = [event for event in read_events(tmp_path / "cut" / "audit.jsonl") if event.kind == "privacy_event"]
    charged = [event.fields["release_id"] for event in events]
    assert len(charged) == len(set(charged)) == 2 * 5
    assert resumed.summary["fam_sha256"] == uncut.summary["fam_sha256"]
    assert resumed.summary["privacy"] == uncut.summary["privacy"]
    assert verify_run(tmp_path / "cut").is_verified


def test_hospitals_of_one_ledger_work_one_by_one(config, tmp_path, monkeypatch):
    """A ledger belongs to one thread."""
    path = tmp_path / "ledger.sqlite"
    budgets(path, 9.0)
    given, started = config("local", noise="system", ledger=str(path)), []
    pool = ThreadPoolExecutor.__init__
    monkeypatch.setattr(
        ThreadPoolExecutor, "__init__", lambda self, *how, **more: (started.append(how), pool(self, *how, **more))[1]
    )
    simulate(given, output=tmp_path / "paid", cache_dir=tmp_path / "cache", workers=3)
    assert (3,) not in started
    simulate(config("local"), output=tmp_path / "free", cache_dir=tmp_path / "cache", workers=3)
    assert (3,) in started
