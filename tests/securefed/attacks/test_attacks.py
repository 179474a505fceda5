"""Attacks on runs: a claim that does not hold is refuted, protection shows, and all of it enters the signed record."""

import json

import numpy as np
import pytest

import clients.privacy.hospital
import clients.privacy.step
from audit.accounting import (
    DiscreteGaussian,
    Gaussian,
    GroupedSampledGaussian,
    Repeated,
    SampledGaussian,
    Skellam,
    mechanism_fields,
    upper_epsilon,
)
from audit.history import read_history
from audit.log import EventLog, read_events
from audit.report import build_report, render
from audit.verify import verify_run
from clients.encoders import FeatureBundle
from clients.method.layout import initial_vector
from clients.privacy import PrivateHospital, Randomness
from securefed.attacks import attack_run, record_findings
from securefed.attacks.canaries import AuditedHospital
from securefed.attacks.findings import Finding
from securefed.attacks.inversion import invert_gradients
from securefed.attacks.members import infer_members
from securefed.attacks.privacy import audit_privacy
from securefed.attacks.run import recorded_noise
from securefed.config import config_from_mapping
from securefed.errors import ConfigError
from securefed.simulation import simulate
from tests.securefed.conftest import CLASSES, unit

WIDTH = 80
"""Square of it: coordinates for canaries."""


def wide_bundle(sites=4):
    import clients.encoders as encoders

    rng = np.random.default_rng(4)
    centres = rng.normal(size=(len(CLASSES), WIDTH))

    def split(site, name, count):
        labels = rng.integers(0, len(CLASSES), count)
        features = unit(centres[labels] + 1.6 * rng.normal(size=(count, WIDTH)))
        return encoders.LabelledFeatures(
            features, labels.astype(np.int64), tuple(f"{site}/{name}/{n}" for n in range(count))
        )

    made = [
        encoders.SiteFeatures(f"site{n}", **{name: split(n, name, 30) for name in ("train", "val", "test")})
        for n in range(sites)
    ]
    return FeatureBundle(
        classes=CLASSES,
        prompts=tuple((name,) for name in CLASSES),
        embed_dim=WIDTH,
        text_features=unit(centres),
        logit_scale=50.0,
        sites=tuple(made),
        global_site=None,
        encoder_name="test",
        encoder_digest="0" * 64,
        data_fingerprint="0" * 64,
        images_encoded=0,
        cache_hits=0,
        encode_seconds=0.0,
    )


@pytest.fixture(scope="module")
def bundle():
    return wide_bundle()


PRIVATE = {
    "privacy": {"mode": "local", "noise_multiplier": 4.0, "steps": 25, "sampling_rate": 1.0},
    "training": {"prior_adjustment": 0.0, "class_balance": 0.0, "feature_dropout": 0.0, "mlp_norm": "layer"},
}


def private_history(tmp_path, mechanism, *, mode="local", rounds=2, steps=25, unit="image", released=None):
    """A log of so many rounds; those of `released` (None for all) have a release of site0, the others one of site1."""
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "r", "operation": "simulation"}) as log:
        claim = {"mode": mode, "claim": "CLAIMED", "reason": "test", "unit": unit, "delta": 1e-5}
        log.append("privacy_claim", {**claim, "adjacency": "add-or-remove-one"})
        for number in range(1, rounds + 1):
            site = "site0" if released is None or number in released else "site1"
            log.append("round_started", {"round": number, "cohort": [site], "model_digest": "ab" * 32})
            made = mechanism[number - 1] if isinstance(mechanism, list) else mechanism
            noise = {"mechanism": mechanism_fields(made), "repetitions": steps}
            log.append("privacy_event", {**noise, "hospital": site, "round": number})
            completed = {"round": number, "cohort": [site], "survivors": [site], "dropouts": {}, "bytes": {}}
            log.append("round_completed", {**completed, "aggregate_digest": "cd" * 32})
        return read_history(log.events)


def audited(bundle, history, config=None, canaries=5000):
    config = config or config_from_mapping(PRIVATE)
    initial = initial_vector(WIDTH, config.training, 0)
    coins = Randomness.of_a_seed(11, "audit")
    (found,) = audit_privacy(config, bundle, history, initial, site="site0", canaries=canaries, coins=coins)
    return found


def test_an_honest_training_is_bounded_below_its_claim(bundle, tmp_path):
    found = audited(bundle, private_history(tmp_path, Gaussian(4.0)))
    claimed = upper_epsilon([Repeated(Gaussian(4.0), 50)], 1e-5)
    assert found.outcome == "PASS"
    assert found.values["epsilon_claimed"] == claimed
    assert 2 < found.values["epsilon_lower"] < claimed
    assert found.values["canaries"] == 5000
    assert 0.8 < found.values["auroc"] < 0.95  # Phi(sqrt(50) / 4 / sqrt(2)) = 0.894


def test_noise_that_is_secretly_cut_tenfold_fails(bundle, tmp_path, monkeypatch):
    honest = Randomness.gaussian
    monkeypatch.setattr(Randomness, "gaussian", lambda self, size, *_: honest(self, size) / 10)
    found = audited(bundle, private_history(tmp_path, Gaussian(4.0)))
    assert found.outcome == "FAIL"
    assert found.values["epsilon_lower"] > 10.9 > found.values["epsilon_claimed"]
    assert "does not hold" in found.reason


def test_sampling_that_is_not_what_was_accounted_fails(bundle, tmp_path, monkeypatch):
    """The log accounts for steps that sample 1 % and the training takes everybody."""
    history = private_history(tmp_path, SampledGaussian(1.0, 0.01))
    assert audited(bundle, history).outcome == "PASS"
    monkeypatch.setattr(clients.privacy.hospital, "sampled_rows", lambda units, rate, source: np.arange(len(units)))
    assert audited(bundle, history).outcome == "FAIL"


def test_clipping_to_more_than_what_was_accounted_fails(bundle, tmp_path, monkeypatch):
    """The replay at the start would refuse it; here nobody replays."""
    honest = clients.privacy.step.clip_factors
    monkeypatch.setattr(PrivateHospital, "_replay_a_step", lambda hospital: None)
    monkeypatch.setattr(clients.privacy.step, "clip_factors", lambda squares, norm: honest(squares, 10 * norm))
    assert audited(bundle, private_history(tmp_path, Gaussian(4.0))).outcome == "FAIL"


def test_few_canaries_are_said_to_show_little(bundle, tmp_path):
    found = audited(bundle, private_history(tmp_path, Gaussian(4.0)), canaries=100)
    assert "hardly anything could have been found" in found.reason


def test_as_many_rounds_are_watched_as_the_hospital_released(bundle, tmp_path):
    """It was lost in all others: what it never sent is no leak, and the rounds keep their numbers."""
    history = private_history(tmp_path, Gaussian(4.0), rounds=12, released=(3,))
    rounds = []
    honest = AuditedHospital.train_round
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuditedHospital, "train_round", lambda h, v, n, r: rounds.append(n) or honest(h, v, n, r))
        found = audited(bundle, history)
    assert rounds == [3]
    assert found.outcome == "PASS"
    assert found.values["epsilon_lower"] < found.values["epsilon_claimed"]
    assert found.values["epsilon_claimed"] == upper_epsilon([Repeated(Gaussian(4.0), 25)], 1e-5)


def test_what_cannot_be_audited_is_said(bundle, tmp_path):
    found = audited(bundle, private_history(tmp_path, Gaussian(4.0), mode="hospital", unit="hospital"))
    assert (found.outcome, found.setting) == ("MEASURED", "not tried")
    (tmp_path / "b").mkdir()
    found = audited(bundle, private_history(tmp_path / "b", Gaussian(4.0), unit="patient"))
    assert found.setting == "not tried"
    assert "this run is of the mode local at patient level" in found.reason


@pytest.mark.parametrize(
    ("mechanism", "released", "told"),
    [
        (Gaussian(4.0), (), "site0 released nothing in this run; name a hospital that did with --site"),
        ([Gaussian(4.0), Gaussian(5.0)], None, "the noise of site0 changes from one release to another"),
    ],
)
def test_a_hospital_without_one_noise_is_not_tried(bundle, tmp_path, mechanism, released, told):
    found = audited(bundle, private_history(tmp_path, mechanism, released=released))
    assert (found.outcome, found.setting) == ("MEASURED", "not tried")
    assert told in found.reason


def test_the_feature_is_read_off_a_bare_update_and_not_off_a_masked_one(bundle):
    config = config_from_mapping({})
    found = invert_gradients(config, bundle, initial_vector(WIDTH, config.training, 0), noise_multiplier=1.0)
    cosines = {finding.setting.split(",")[0] + finding.setting[-20:]: finding.values["cosine"] for finding in found}
    clear, masked, opened, private, blind = cosines.values()
    assert clear > 0.999
    assert abs(masked) < 6 / np.sqrt(WIDTH)
    assert abs(private) < 6 / np.sqrt(WIDTH)
    assert opened < clear
    assert blind < 0.9
    assert [finding.outcome for finding in found] == ["MEASURED", "PASS", "MEASURED", "MEASURED", "MEASURED"]


def test_noise_in_shares_is_told_of_a_share_and_of_the_sum(bundle, tmp_path):
    """By what the log has: 4 shares of variance 900 on contributions of norm 20, of which 400 cannot be removed."""

    def noise_of(name, *mechanisms):
        with EventLog.create(tmp_path / name, {"run_id": "r", "operation": "simulation"}) as log:
            for mechanism in mechanisms:
                log.append("privacy_event", {"mechanism": mechanism_fields(mechanism), "repetitions": 1})
            return recorded_noise(read_history(log.events))

    assert noise_of("a", Gaussian(1.0), Skellam(100.0, 20.0, 900.0, 4, 1.0, 400.0)) == (1.0, 3.0)
    assert noise_of("b", DiscreteGaussian(9.0, 2.0, 4.0, 4, 7)) == (2.0, 4.0)
    assert noise_of("c", GroupedSampledGaussian((4.0, 5.0), 1.0)) == (4.0, None)
    assert noise_of("d") == (None, None)
    config = config_from_mapping({})
    vector = initial_vector(WIDTH, config.training, 0)
    found = invert_gradients(config, bundle, vector, noise_multiplier=1.0, of_the_sum=3.0)
    told = {finding.setting: finding for finding in found}
    share = told["differential privacy, one share of the noise, noise multiplier 1"]
    opened = told["differential privacy, the sum under noise multiplier 3"]
    assert abs(opened.values["cosine"]) < 6 / np.sqrt(WIDTH) < told["no protection"].values["cosine"]
    assert {share.outcome, opened.outcome} == {"MEASURED"}
    (unknown,) = [f for f in invert_gradients(config, bundle, vector) if f.setting.startswith("differential")]
    assert unknown.setting.endswith("noise multiplier 1 (not of this run)")


def test_a_model_that_remembers_its_training_images_is_found_out(bundle):
    config = config_from_mapping({"federation": {"method": "fedclip"}})
    (fresh,) = infer_members(config, bundle, initial_vector(WIDTH, config.training, 0))
    assert 0.35 < fresh.values["auroc"] < 0.65
    (none,) = infer_members(config, bundle, np.zeros(0, np.float32))
    assert none.setting == "not tried"


def test_a_run_is_attacked_recorded_signed_and_reported(small_run, tmp_path):
    run = simulate(small_run(federation={"rounds": 2}), output=tmp_path / "run", cache_dir=tmp_path / "cache")
    before = len(read_events(run.folder.log))
    findings = attack_run(run.folder.path, attacks=("epsilon", "members", "inversion"), cache_dir=tmp_path / "cache")
    found = verify_run(run.folder.path)
    assert found.is_verified
    assert "not signed" not in next(check.detail for check in found.checks if check.name == "signatures")
    events = read_events(run.folder.log)[before:]
    assert [event.kind for event in events] == ["attack"] * len(findings)
    report = build_report(run.folder.path)
    assert json.loads((run.folder.path / "report.json").read_bytes()) == report
    names = {entry["name"] for entry in report["empirical"]}
    assert names == {"one-run audit", "membership inference", "gradient inversion"}
    (attacks,) = (line for line in report["verdicts"] if line["subject"] == "Attacks tried")
    assert attacks["verdict"] == "PASS"
    assert attacks["sentence"] == (
        "The one attack on a claim did no better than is claimed; 5 measured without a claim, 1 not tried."
    )
    page = render(report, "html").decode()
    assert "True against false positives" in page
    assert "gradient inversion" in page


def test_a_successful_attack_turns_the_verdict(small_run, tmp_path):
    run = simulate(small_run(federation={"rounds": 1}), output=tmp_path / "run")
    values = {"epsilon_lower": 10.9, "epsilon_claimed": 8.6}
    record_findings(run.folder, [Finding("one-run audit", "canaries", "FAIL", values, "refuted")])
    report = build_report(run.folder.path)
    assert {line["subject"]: line["verdict"] for line in report["verdicts"]}["Attacks tried"] == "FAIL"


def test_arguments_that_mean_nothing_are_refused(small_run, tmp_path):
    run = simulate(small_run(federation={"rounds": 1}), output=tmp_path / "run")
    with pytest.raises(ConfigError, match="use epsilon, members"):
        attack_run(run.folder.path, attacks=("espilon",))
    with pytest.raises(ConfigError, match="did not train"):
        attack_run(run.folder.path, attacks=("members",), site="nowhere")


def test_what_is_found_on_training_images_of_a_private_run_is_coarse(small_run, tmp_path):
    """An exact rate over all of them would count them, and confirm the last one that somebody does not know."""
    run = simulate(
        small_run(privacy={"mode": "local", "epsilon": 8.0}, federation={"rounds": 1}), output=tmp_path / "r"
    )
    attack_run(run.folder.path, attacks=("members", "inversion"))
    found = [event.fields for event in read_events(run.folder.log) if event.kind == "attack"]
    assert {entry["name"] for entry in found} == {"membership inference", "gradient inversion"}
    for entry in found:
        numbers = [n for value in entry["values"].values() for n in (value if isinstance(value, list) else [value])]
        assert numbers
        assert numbers == [round(number, 2) for number in numbers]
        assert entry["reason"].endswith("in two decimals only.")
    listed = next(event.fields for event in read_events(run.folder.log) if event.kind == "privacy_claim")["unprotected"]
    assert any("audit attack" in text for text in listed)
