"""Whole runs on a GPU are those on the processor: in rounds begun ahead, in recorded steps, interrupted and evaluated.

Without dropout, and with all images of a hospital in one batch: the two draw differently.
"""

from dataclasses import replace

import numpy as np
import pytest

from audit.verify import verify_run
from clients.method.layout import initial_vector
from clients.method.settings import TrainingSettings
from securefed.hospitals import Hospitals
from securefed.model_file import load_model
from securefed.prediction import evaluate_run
from securefed.simulation import resume_run
from tests.securefed.conftest import CLASSES, WIDTH, bundle
from tests.securefed.test_simulation import InterruptAfter, run

pytestmark = pytest.mark.gpu

SAME = {"feature_dropout": 0.0, "mlp_dropout": 0.0, "batch_size": 64, "local_epochs": 4}
"""Four steps a round: recorded in the first one, replayed from then on."""


@pytest.mark.parametrize("method", ["fedmedclip", "fedclip", "fedavg-mlp", "local"])
def test_hospitals_say_and_train_the_same(method):
    settings = replace(TrainingSettings.default(), **SAME)
    here, there = (Hospitals(bundle(sites=3), settings, method, 0, device) for device in ("cpu", "cuda"))
    vector = initial_vector(WIDTH, settings, 0, method, len(CLASSES))
    for number in (1, 2, 3):
        there.begin(vector, number)
        a, b = (way.validation_accuracy(vector) for way in (here, there))
        assert a.keys() == b.keys()
        assert all(abs(a[site][part] - b[site][part]) < 0.1 for site in a for part in a[site])
        a, b = (way.keep_ratios(vector) for way in (here, there))
        assert all(b[site] == pytest.approx(a[site], abs=0.05) for site in a)
        updates = [way.train_all(vector, number) for way in (here, there)]
        for site in here.sites:
            np.testing.assert_allclose(updates[1][site], updates[0][site], rtol=0, atol=1e-3)
            scores = [way.predict(site, vector, "test")["ensemble"] for way in (here, there)]
            np.testing.assert_allclose(scores[1], scores[0], rtol=0, atol=1e-2)
        vector = vector + np.mean(list(updates[0].values()), axis=0, dtype=np.float32)


@pytest.mark.parametrize("method", ["fedmedclip", "fedclip", "fedavg-mlp"])
def test_a_run_is_that_on_the_processor_and_evaluated_as_it_was(small_run, tmp_path, method):
    here, there = (
        run(small_run(federation={"method": method, "device": device}, training=SAME), tmp_path, device)
        for device in ("cpu", "cuda")
    )
    a, b = (load_model(result.folder).vector for result in (here, there))
    np.testing.assert_allclose(b, a, rtol=0, atol=3e-3)
    assert verify_run(there.folder.path).is_verified
    for device in ("cpu", "cuda"):
        found = evaluate_run(there.folder.path, "test", device=device)["mean"]["ensemble"]
        assert found["accuracy"] == pytest.approx(there.summary["mean"]["ensemble"]["accuracy"], abs=0.05)


def test_an_interrupted_run_goes_on(small_run, tmp_path):
    config = small_run(federation={"device": "cuda"}, training=SAME)
    whole = run(config, tmp_path, "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, "cut", observer=InterruptAfter(2))
    resumed = resume_run(tmp_path / "cut", cache_dir=tmp_path / "cache")
    a, b = (load_model(result.folder).vector for result in (whole, resumed))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-4)
    assert verify_run(resumed.folder.path).is_verified
