"""Hospitals with differential privacy on several cores: what they train does not depend on how many work at once."""

import threading

import pytest

from securefed import simulation
from securefed.config import config_from_mapping
from securefed.hospitals import Hospitals
from securefed.privacy.shared_hospitals import SummingHospitals
from securefed.simulation import simulate

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


def test_hospitals_that_pay_as_they_train_do_so_one_by_one(config):
    assert simulation._charged_one_by_one(config("local"))
    assert simulation._charged_one_by_one(config("hospital", noise="system", ledger="spent.sqlite"))
    assert not simulation._charged_one_by_one(config("hospital"))
