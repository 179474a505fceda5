"""Training that diverges ends a run in the round in which it does, and says where and what to lower."""

from dataclasses import replace

import numpy as np
import pytest

from audit.log import read_events
from audit.verify import Outcome, verify_run
from clients.encoders import LabelledFeatures, load_features
from clients.method.settings import TrainingSettings
from securefed.errors import DivergedError, RoundAbortedError
from securefed.evaluation import evaluate_site
from securefed.hospitals import Hospitals
from securefed.run_folder import read_metric_rows
from securefed.simulation import resume_run, simulate

NOTHING = np.zeros(0, np.float32)


@pytest.mark.parametrize(("method", "part"), [("local", "fam"), ("local", "mlp"), ("fedmedclip", "mlp")])
def test_a_run_ends_in_the_round_in_which_a_model_diverges(small_run, tmp_path, method, part):
    apart = {"distillation": "off", "mlp_to_fam": False}  # the FAM learns nothing from the MLP: its update is finite
    config = small_run(federation={"method": method}, training={f"{part}_learning_rate": 1e20, **apart})
    words = r"diverged at site0, .*site4 in round 1: .*lower training\.fam_learning_rate or .*start a new run"
    with pytest.raises(DivergedError, match=words) as caught:
        simulate(config, output=tmp_path / "run")
    assert caught.value.round_number == 1
    assert read_events(tmp_path / "run" / "audit.jsonl")[-1].kind == "interrupted"
    assert not (tmp_path / "run" / "metrics.csv").exists() or not read_metric_rows(tmp_path / "run" / "metrics.csv")
    failed = [check for check in verify_run(tmp_path / "run").checks if check.outcome is Outcome.FAIL]
    assert failed == []
    with pytest.raises(DivergedError, match="in round 1"):
        resume_run(tmp_path / "run")


def test_a_site_without_validation_images_does_not_diverge_unseen(features_file):
    made = load_features(features_file)
    none = LabelledFeatures(np.zeros((0, made.embed_dim), np.float32), np.zeros(0, np.int64), (), ())
    made = replace(made, sites=tuple(replace(s, val=none) if s.site == "site3" else s for s in made.sites))
    settings = replace(TrainingSettings.default(), fam_learning_rate=1e20, mlp_learning_rate=1e20)
    hospitals = Hospitals(made, settings, "local", 0, "cpu")
    assert hospitals.diverged() == ()
    hospitals.train_all(NOTHING, 1)
    assert hospitals.diverged() == ("site3",)
    hospitals.validation_accuracy(NOTHING)
    assert hospitals.diverged() == hospitals.sites


@pytest.mark.parametrize("enabled", [True, False])
def test_a_round_without_a_sum_because_training_diverged_says_so(small_run, tmp_path, enabled):
    config = small_run(
        federation={"method": "fedclip"},
        training={"fam_learning_rate": 1e20},
        secure_aggregation={"enabled": enabled},
    )
    with pytest.raises(RoundAbortedError, match=r"Training diverged at site0, .*site4, .*start a new run") as caught:
        simulate(config, output=tmp_path / "run")
    assert "--resume" not in str(caught.value)
    assert set(read_events(tmp_path / "run" / "audit.jsonl")[-1].fields["dropouts"]) == set(caught.value.diverged)


def test_lost_sites_are_to_be_brought_back_where_one_of_them_did_not_diverge():
    lost = {"a": "MaskedInputCollection", "b": "ShareKeys"}
    assert "bring the lost sites back" in str(RoundAbortedError(1, "ShareKeys", "", lost, diverged=["a"]))
    assert "simulation.drop" in str(RoundAbortedError(1, "ShareKeys", "", lost, planned=["a", "b"]))
    assert "Training diverged at a," in str(RoundAbortedError(1, "ShareKeys", "", lost, diverged=["a"], planned=["b"]))


def test_a_finished_model_that_predicts_nothing_finite_is_named_by_its_site():
    with pytest.raises(DivergedError, match="diverged at lund: the model predicts NaN"):
        evaluate_site("lund", {"fam": np.full((4, 3), np.nan, np.float32)}, np.zeros(4, np.int64))
