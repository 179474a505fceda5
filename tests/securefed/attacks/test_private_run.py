"""From a private run to the verdict of its audit: honest noise stays below the claim, noise that is cut does not."""

import pytest

from audit.report import build_report
from audit.verify import verify_run
from clients.encoders import export_features
from clients.privacy import Randomness
from securefed.attacks import attack_run
from securefed.config import config_from_mapping
from securefed.simulation import simulate
from tests.securefed.attacks.test_attacks import wide_bundle


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    export_features(wide_bundle(), path)
    return config_from_mapping(
        {
            "data": {"source": f"features:{path}"},
            "encoder": {"name": f"features:{path}"},
            "federation": {"rounds": 5, "device": "cpu"},
            "privacy": {"mode": "local", "noise_multiplier": 4.0, "steps": 10, "sampling_rate": 1.0},
        }
    )


def audited(config, tmp_path):
    run = simulate(config, output=tmp_path / "run", cache_dir=tmp_path / "cache").folder.path
    (found,) = attack_run(run, attacks=("epsilon",), cache_dir=tmp_path / "cache")
    assert verify_run(run, report=True).is_verified
    report = build_report(run)
    return found, report["claim"]["epsilon"], {line["subject"]: line["verdict"] for line in report["verdicts"]}


def test_an_honest_private_run_is_bounded_below_its_claim(config, tmp_path):
    found, claimed, verdicts = audited(config, tmp_path)
    assert claimed == pytest.approx(8.60, abs=0.01)
    assert found.values["canaries"] >= 5000
    assert 1 < found.values["epsilon_lower"] < claimed
    assert verdicts["Differential privacy"] == verdicts["Attacks tried"] == "PASS"


def test_a_private_run_whose_noise_is_secretly_cut_tenfold_fails(config, tmp_path, monkeypatch):
    honest = Randomness.gaussian
    monkeypatch.setattr(Randomness, "gaussian", lambda self, size, *_: honest(self, size) / 10)
    found, claimed, verdicts = audited(config, tmp_path)
    assert claimed == pytest.approx(8.60, abs=0.01)
    assert found.values["epsilon_lower"] > claimed
    assert found.outcome == "FAIL"
    assert verdicts["Differential privacy"] == verdicts["Attacks tried"] == "FAIL"
