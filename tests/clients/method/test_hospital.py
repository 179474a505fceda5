"""A hospital trains, resumes, predicts, and gives nothing away but its update."""

import dataclasses
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from clients.method.hospital import Hospital, make_fleet, workbenches
from clients.method.layout import initial_vector, vector_layout
from clients.method.parts import build_model
from clients.method.settings import METHODS, SettingsError, TrainingSettings
from clients.method.stored import predict_stored

CLASSES, WIDTH = 3, 16
PROFILES = {"default": TrainingSettings.default(), "paper": TrainingSettings.paper()}


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_site(name="a", seed=0, count=70):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))

    def rows(n):
        labels = np.arange(n) % CLASSES
        return SimpleNamespace(features=unit(centres[labels] + 0.5 * rng.normal(size=(n, WIDTH))), labels=labels)

    return SimpleNamespace(site=name, train=rows(count), val=rows(21), test=rows(21))


TEXT = unit(np.random.default_rng(5).normal(size=(CLASSES, WIDTH)))


def make_hospital(settings=PROFILES["default"], method="fedmedclip", name="a", seed=0, count=70):
    return Hospital(make_site(name, count=count), TEXT, 100.0, settings, method, seed)


def start(settings=PROFILES["default"], method="fedmedclip", seed=0):
    return initial_vector(WIDTH, settings, seed, method, CLASSES)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_predicts(method, profile):
    settings = PROFILES[profile]
    hospital, vector = make_hospital(settings, method), start(settings, method)
    for number in (1, 2):
        update = hospital.train_round(vector, number)
        assert update.dtype == np.float32
        assert update.shape == vector.shape
        vector = vector + update
    parts = hospital.predict(vector, "test")
    assert "ensemble" in parts
    for probabilities in parts.values():
        assert probabilities.shape == (21, CLASSES)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    stored = predict_stored(
        vector, hospital.private_state(), hospital.site.test.features, TEXT, 100.0, settings, method
    )
    assert stored.keys() == parts.keys()
    for part, probabilities in stored.items():
        np.testing.assert_array_equal(probabilities, parts[part])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_resumed_run_equals_an_uninterrupted_one(profile):
    settings = PROFILES[profile]
    whole, vector = make_hospital(settings), start(settings)
    vector = vector + whole.train_round(vector, 1)
    resumed = make_hospital(settings)
    resumed.load_private_state(whole.private_state())
    np.testing.assert_array_equal(resumed.train_round(vector, 2), whole.train_round(vector, 2))
    np.testing.assert_array_equal(resumed.predict(vector)["ensemble"], whole.predict(vector)["ensemble"])


def test_a_shared_mlp_with_batch_norm_predicts_the_same_after_a_restart():
    settings, method = dataclasses.replace(PROFILES["default"], mlp_norm="batch"), "fedavg-mlp"
    whole, vector = make_hospital(settings, method), start(settings, method)
    for number in (1, 2):
        vector = vector + whole.train_round(vector, number)
        resumed = make_hospital(settings, method)
        resumed.load_private_state(whole.private_state())
        np.testing.assert_equal(resumed.predict(vector, "val"), whole.predict(vector, "val"))


def test_the_vector_is_the_fam_and_nothing_else():
    names = [name for name, _ in vector_layout(512, TrainingSettings.paper())]
    assert names == [f"fam.{layer}.{part}" for layer in ("first", "second") for part in ("weight", "bias", "threshold")]
    assert len(initial_vector(512, TrainingSettings.paper(), 0)) == 526_336
    assert not any(name.startswith("fam.") for name in make_hospital().private_state())


@pytest.mark.parametrize("method", ["fedmedclip", "fedavg-mlp", "fedclip"])
def test_a_place_that_did_not_train_gets_the_fam_alone(method):
    settings = PROFILES["default"]
    hospital, vector = make_hospital(settings, method), start(settings, method)
    vector = vector + hospital.train_round(vector, 1)
    parts = predict_stored(vector, {}, hospital.site.test.features, TEXT, 100.0, settings, method)
    assert parts.keys() == {"fam", "ensemble"}
    np.testing.assert_array_equal(parts["fam"], parts["ensemble"])
    assert predict_stored(
        start(settings, "local"), {}, hospital.site.test.features, TEXT, 100.0, settings, "local"
    ).keys() == {"ensemble"}


@pytest.mark.parametrize("profile", PROFILES)
def test_results_do_not_depend_on_other_hospitals_or_their_order(profile):
    settings = PROFILES[profile]
    vector = start(settings)
    alone = make_hospital(settings, name="b").train_round(vector, 3)
    hospitals = {name: make_hospital(settings, name=name) for name in ("c", "a", "b")}
    updates = {name: hospital.train_round(vector, 3) for name, hospital in hospitals.items()}
    np.testing.assert_array_equal(updates["b"], alone)
    assert (updates["a"] != updates["b"]).any()


@pytest.mark.parametrize("method", ["fedmedclip", "fedclip", "fedavg-mlp", "local"])
@pytest.mark.parametrize("profile", PROFILES)
def test_hospitals_that_share_a_workbench_train_and_predict_as_with_one_each(method, profile):
    settings, vector = PROFILES[profile], start(PROFILES[profile], method)
    shared = workbenches(TEXT, 100.0, settings, method, "cpu")
    results = []
    for benches in (None, shared):
        cohort = [
            Hospital(make_site(name, seed, count), TEXT, 100.0, settings, method, 0, benches=benches)
            for seed, (name, count) in enumerate({"a": 70, "b": 41, "c": 0}.items())
        ]
        for number in (1, 2):
            updates = [hospital.train_round(vector, number) for hospital in cohort]
            predictions = [hospital.predict(vector + update) for hospital, update in zip(cohort, updates, strict=True)]
        results.append((updates, predictions, [hospital.private_state() for hospital in cohort]))
    np.testing.assert_equal(results[0], results[1])


@pytest.mark.parametrize("method", METHODS)
def test_a_hospital_adopts_what_a_fleet_has_trained_for_it(method):
    settings, vector = PROFILES["default"], start(method=method)
    alone, member = make_hospital(settings, method), make_hospital(settings, method)
    fleet = make_fleet(TEXT, 100.0, settings, method, "cpu")
    trainee = member.trainee(1)
    assert (fleet is None) == (trainee is None) == (method in ("zero-shot", "linear-probe"))
    if fleet is not None and trainee is not None:
        update = member.adopt(fleet.train(vector, [trainee], 1)[0])
        np.testing.assert_allclose(update, alone.train_round(vector, 1), rtol=0, atol=1e-5)
        for part, probabilities in alone.predict(vector).items():
            np.testing.assert_allclose(member.predict(vector)[part], probabilities, rtol=0, atol=1e-4)


def test_local_keeps_its_fam_at_home():
    settings = PROFILES["default"]
    hospital = make_hospital(settings, "local")
    nothing = start(settings, "local")
    before = hospital.predict(nothing)["fam"]
    assert hospital.train_round(nothing, 1).shape == (0,)
    assert (hospital.predict(nothing)["fam"] != before).any()
    assert "fam.first.weight" in hospital.private_state()


def test_a_site_without_images_sends_an_update_of_zeros():
    hospital = make_hospital(count=0)
    assert not hospital.train_round(start(), 1).any()


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("zero-shot", "linear-probe")])
def test_training_reads_the_features_where_they_lie_and_leaves_them_alone(method):
    site = make_site()
    before = site.train.features.copy()
    hospital = Hospital(site, TEXT, 100.0, PROFILES["default"], method, 0)
    assert np.shares_memory(hospital.trainee(1).features.numpy(), site.train.features)
    hospital.train_round(start(method=method), 1)
    assert np.array_equal(site.train.features, before)


def test_features_that_cannot_be_written_to_are_trained_on_like_others():
    site = make_site()
    site.train.features.flags.writeable = False
    hospital = Hospital(site, TEXT, 100.0, PROFILES["default"], "fedmedclip", 0)
    assert np.array_equal(hospital.train_round(start(), 1), make_hospital().train_round(start(), 1))


def test_a_state_of_other_settings_is_refused():
    state = make_hospital(PROFILES["paper"]).private_state()
    with pytest.raises(ValueError, match="private state does not fit"):
        make_hospital().load_private_state(state)
    state = make_hospital().private_state()
    state["mlp.head.bias"] = state["mlp.head.bias"][1:]
    with pytest.raises(ValueError, match=r"mlp.head.bias has shape"):
        make_hospital().load_private_state(state)


@pytest.mark.parametrize("method", METHODS)
def test_features_that_are_given_are_predicted_like_those_of_a_split(method):
    hospital, vector = make_hospital(method=method), start(method=method)
    hospital.train_round(vector, 1)
    given = hospital.predict(vector, hospital.site.val.features)
    np.testing.assert_equal(given, hospital.predict(vector, "val"))


def test_metrics_of_a_split():
    hospital = make_hospital()
    metrics = hospital.evaluate(start(), "val")
    assert metrics.keys() == {"fam", "mlp", "ensemble"}
    assert metrics["mlp"].num_images == 21


def test_an_unknown_method_is_refused():
    with pytest.raises(SettingsError, match="fedsgd"):
        make_hospital(method="fedsgd")


def test_products_on_a_gpu_are_in_single_precision_whatever_the_environment_says(tf32):
    build_model(TEXT, 100.0, TrainingSettings.default(), "fedmedclip", "a", 0, "cpu")
    assert tf32() == (True, True)
    with suppress(AssertionError, RuntimeError):  # there may be no GPU
        build_model(TEXT, 100.0, TrainingSettings.default(), "fedmedclip", "a", 0, "cuda")
    assert tf32() == (False, False)


@pytest.mark.gpu
def test_a_gpu_trains_the_same():
    settings = dataclasses.replace(PROFILES["default"], feature_dropout=0.0, mlp_dropout=0.0, batch_size=70)
    updates = []
    for device in ("cpu", "cuda"):
        hospital = Hospital(make_site(), TEXT, 100.0, settings, "fedmedclip", 0, device)
        updates.append(hospital.train_round(start(settings), 1))
        assert hospital.predict(start(settings) + updates[-1])["ensemble"].shape == (21, CLASSES)
    np.testing.assert_allclose(updates[0], updates[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["fedmedclip", "fedavg-mlp"])
def test_what_was_fitted_to_one_model_is_not_used_for_another(method):
    hospital, first = make_hospital(method=method), start(method=method)
    second = first + 3 * hospital.train_round(first, 1)
    hospital.predict(first, "test")
    anew = make_hospital(method=method)
    anew.load_private_state(hospital.private_state())
    expected, found = anew.predict(second, "test"), hospital.predict(second, "test")
    for part, probabilities in expected.items():
        np.testing.assert_array_equal(found[part], probabilities)
    assert any(not np.array_equal(hospital.predict(first, "test")[part], found[part]) for part in found)
