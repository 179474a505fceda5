"""Private hospitals that train in one batched computation: each gets what it gets on its own, and noise of its own."""

import dataclasses
import weakref

import numpy as np
import pytest
import torch

from clients.method.layout import initial_vector
from clients.method.parts import build_model
from clients.privacy import PrivacySettings, PrivateHospital, Randomness, stack, step
from clients.privacy.descent import NoisyDescent
from clients.privacy.fleet import PrivateFleet
from clients.privacy.stack import StackedClipping
from tests.clients.privacy.test_private_hospital import SETTINGS, TEXT, WIDTH, Counting, make_site

SIZES = (60, 7, 0, 1, 33)
"""A whole data set, a small one, none, one image, and another."""

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
GROUPS = {"clip_norms": (0.5, 0.2), "noise_multipliers": (0.4, 0.7)}
PRIVACY = PrivacySettings(
    sampling_rate=0.4, clip_norms=(0.5,), noise_multipliers=(0.4,), steps=3, normaliser=5.0, centring_steps=0
)
MASKED = {"learn_thresholds": True, "mlp_layers": 1, "mlp_input": "both"}
SETTING_CASES = {
    "private profile": {},
    "masked": MASKED,
    "bias kept": {**MASKED, "mask_bias": False},
    "masked, group norm": {**MASKED, "mlp_layers": 2, "mlp_norm": "group", "mlp_width": 128},
    "masked, no norm": {**MASKED, "mlp_norm": "none"},
    "group norm": {"mlp_layers": 1, "mlp_norm": "group", "mlp_width": 128},
    "layer norm": {"mlp_layers": 2, "mlp_norm": "layer"},
    "no norm": {"mlp_layers": 1, "mlp_norm": "none"},
    "weight decay": {"weight_decay": 0.1},
    "no momentum": {"adam_beta1": 0.0},
    "residual": {"fam_form": "residual"},
}
PRIVACY_CASES = {
    "together": {},
    "groups": GROUPS,
    "one-way": {"coupling": "one-way"},
    "patients": {"unit": "patient", **GROUPS},
    "centred": {"centring_steps": 2, **GROUPS},
    "everybody": {"sampling_rate": 1.0},
}


def settings_of(**changes):
    return dataclasses.replace(SETTINGS, **changes)


def start(settings):
    return initial_vector(WIDTH, settings, 0)


def in_double(hospital):
    """The same hospital with all that it trains in double precision."""
    hospital._bench.model.double()
    hospital._private = {name: tensor.double() for name, tensor in hospital._private.items()}
    hospital._train = hospital._train[0].double(), hospital._train[1]
    hospital._descent = NoisyDescent(hospital._privacy, hospital._settings, hospital._trained())
    hospital._momentum = hospital._descent.momentum
    hospital._clippings.clear()
    return hospital


def make_hospitals(
    settings, privacy, dtype=torch.float32, method="fedmedclip", device="cpu", sizes=SIZES, copies=False
):
    made = []
    for number, count in enumerate(sizes):
        site = make_site(count, seed=number)
        site.site = f"site{number}"
        patients = [f"p{image // 4}" for image in range(count)]
        digests = [f"d{image // (1 + number % 2)}" for image in range(count)] if copies else None
        hospital = PrivateHospital(
            site, TEXT, 100.0, settings, privacy, patients, method, device=device, digests=digests
        )
        made.append(in_double(hospital) if dtype == torch.float64 else hospital)
    return made


def make_fleet(settings, privacy, dtype=torch.float32, memory=None, method="fedmedclip", device="cpu"):
    model = build_model(TEXT, 100.0, settings, method, "", 0, device).to(dtype)
    return PrivateFleet(model, method, privacy, memory)


def source(number, round_number):
    return Randomness.of_a_seed(1, number, round_number)


def train_both_ways(
    settings, privacy, *, dtype=torch.float32, memory=None, method="fedmedclip", rounds=2, sizes=SIZES, copies=False
):
    """(updates of the last round, private states), hospital by hospital: of one by one, and of the fleet."""
    vector, ways = start(settings), []
    alone = make_hospitals(settings, privacy, dtype, method, sizes=sizes, copies=copies)
    for number in range(1, rounds + 1):
        updates = [h.train_round(vector, number, source(k, number)) for k, h in enumerate(alone)]
    ways.append((updates, [h.private_state() for h in alone]))
    together, fleet = (
        make_hospitals(settings, privacy, dtype, method, sizes=sizes, copies=copies),
        make_fleet(settings, privacy, dtype, memory, method),
    )
    for number in range(1, rounds + 1):
        trainees = [h.private_trainee(source(k, number)) for k, h in enumerate(together)]
        trained = fleet.train(vector, trainees, number)
        updates = [h.adopt_private(t, vector, number) for h, t in zip(together, trained, strict=True)]
    ways.append((updates, [h.private_state() for h in together]))
    return ways


def assert_same(alone, together, tolerance):
    """The momentum in the states is that of all that was trained, in full precision."""
    assert len(alone[0]) == len(together[0])
    for expected, got in zip(alone[0], together[0], strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    for expected, got in zip(alone[1], together[1], strict=True):
        assert expected.keys() == got.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_copies_at_some_hospitals_are_one_image_each_in_a_fleet_too(dtype):
    """In a fleet those without copies have the margin for rounding that norms over several images have."""
    privacy = dataclasses.replace(PRIVACY, **GROUPS)
    assert_same(*train_both_ways(settings_of(), privacy, dtype=dtype, copies=True), max(TOLERANCE[dtype], 1e-5))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("changes", SETTING_CASES.values(), ids=SETTING_CASES.keys())
def test_each_hospital_trains_as_on_its_own(changes, dtype):
    privacy = dataclasses.replace(PRIVACY, **GROUPS)
    assert_same(*train_both_ways(settings_of(**changes), privacy, dtype=dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("method", ["fedmedclip", "fedclip"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("changes", PRIVACY_CASES.values(), ids=PRIVACY_CASES.keys())
def test_each_hospital_takes_the_private_steps_that_it_takes_on_its_own(changes, dtype, method):
    privacy = dataclasses.replace(PRIVACY, **changes)
    if method == "fedclip" and len(privacy.clip_norms) == 2:
        privacy = dataclasses.replace(privacy, clip_norms=(0.5,), noise_multipliers=(0.4,))
    settings = settings_of(mlp_to_fam=False) if privacy.coupling == "one-way" else SETTINGS
    assert_same(*train_both_ways(settings, privacy, dtype=dtype, method=method), TOLERANCE[dtype])


@pytest.mark.parametrize("level", ["image", "patient"])
def test_learned_thresholds_of_patients_and_images_in_parts(monkeypatch, level):
    """Samples of more rows than are stepped together, of different numbers of parts."""
    monkeypatch.setattr(step, "ROWS_AT_A_TIME", 8)
    privacy = dataclasses.replace(PRIVACY, unit=level, sampling_rate=0.7, **GROUPS)
    assert_same(*train_both_ways(settings_of(**MASKED), privacy, dtype=torch.float64), 1e-10)


def test_hospitals_that_were_away_while_others_measured_train_with_what_they_have():
    """Of four measuring steps one has done none, one those of the first round, one all of them."""
    privacy = dataclasses.replace(PRIVACY, noise_multipliers=(0.1,), centring_steps=4)
    hospitals, vector = make_hospitals(SETTINGS, privacy, sizes=(30, 20, 25)), start(SETTINGS)
    for k, rounds in ((1, (1,)), (2, (1, 2))):
        for number in rounds:
            hospitals[k].train_round(vector, number, source(k, number))
    states = [h.private_state() for h in hospitals]
    assert [int(state["centre.steps"]) for state in states] == [0, 3, 4]
    results = []
    for together in (False, True):
        hospitals = make_hospitals(SETTINGS, privacy, sizes=(30, 20, 25))
        for hospital, state in zip(hospitals, states, strict=True):
            hospital.load_private_state(state)
        if together:
            trainees = [h.private_trainee(source(k, 3)) for k, h in enumerate(hospitals)]
            trained = make_fleet(SETTINGS, privacy).train(vector, trainees, 3)
            updates = [h.adopt_private(t, vector, 3) for h, t in zip(hospitals, trained, strict=True)]
        else:
            updates = [h.train_round(vector, 3, source(k, 3)) for k, h in enumerate(hospitals)]
        results.append((updates, [h.private_state() for h in hospitals]))
    assert_same(*results, 1e-5)
    assert [int(state["centre.steps"]) for state in results[1][1]] == [0, 3, 4]


def test_where_memory_is_short_fewer_train_at_a_time_with_the_same_result():
    assert_same(*train_both_ways(SETTINGS, PRIVACY, dtype=torch.float64, memory=1), 1e-10)


def test_when_the_memory_runs_out_half_as_many_begin_anew_with_the_same_samples_and_noise(monkeypatch):
    """In the second step, when samples and noise were drawn already: the release must be that of the first try."""
    right, calls = StackedClipping.__call__, []
    alive, given_back = weakref.WeakSet(), []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(not alive))

    def scarce(self, samples, centres):
        calls.append(len(samples))
        alive.add(self)
        if len(samples) > 2 and len(calls) > 1:
            raise torch.OutOfMemoryError("none left")
        right(self, samples, centres)

    monkeypatch.setattr(StackedClipping, "__call__", scarce)
    assert_same(*train_both_ways(SETTINGS, PRIVACY, dtype=torch.float64, rounds=1), 1e-10)
    assert calls[:2] == [5, 5]
    assert max(calls[2:]) == 2
    assert given_back == [True]


def test_one_hospital_that_does_not_fit_is_an_error(monkeypatch):
    def none_left(*_):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(StackedClipping, "__call__", none_left)
    with pytest.raises(torch.OutOfMemoryError):
        train_both_ways(SETTINGS, PRIVACY, sizes=(5,), rounds=1)


def test_a_vector_of_another_length_is_refused():
    hospital = make_hospitals(SETTINGS, PRIVACY, sizes=(5,))[0]
    with pytest.raises(ValueError, match="shape"):
        make_fleet(SETTINGS, PRIVACY).train(np.zeros(7, np.float32), [hospital.private_trainee()], 1)


def test_clipped_sums_are_those_of_each_hospital():
    privacy = PrivacySettings(
        sampling_rate=0.5, clip_norms=(0.3,), noise_multipliers=(0.0,), coupling="one-way", steps=1, normaliser=1.0
    )
    hospitals, vector = make_hospitals(SETTINGS, privacy), start(SETTINGS)
    expected = [h.clipped_sum(vector, 1, source(k, 1)).vector for k, h in enumerate(hospitals)]
    trainees = [h.private_trainee(source(k, 1)) for k, h in enumerate(hospitals)]
    for memory in (None, 1):
        for trainee in trainees:
            trainee.source.rewind()
        got = make_fleet(SETTINGS, privacy, memory=memory).clipped_sums(vector, trainees)
        for one, other in zip(expected, got, strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)
    assert not expected[2].any()  # no images


# ------------------------------------------------------------------------------------------------- the noise


def noise_of(privacy, repeats, sizes=(40, 0, 3)):
    """(noise drawn, claimed deviation) of FAM and MLP: float64[repeats, hospitals, n], in units of a sum."""
    quiet = dataclasses.replace(privacy, noise_multipliers=(0.0,) * len(privacy.noise_multipliers))
    hospitals, vector = make_hospitals(SETTINGS, quiet, sizes=sizes), start(SETTINGS)

    def moved(settings, draw):
        trainees = [h.private_trainee(draw()) for h in hospitals]
        trained = make_fleet(SETTINGS, settings).train(vector, trainees, 1)
        fam = np.stack([t.vector for t in trained]).astype(np.float64)
        mlp = np.stack([np.concatenate([t.private[n].numpy().ravel() for n in own]) for t in trained])
        return fam / -SETTINGS.fam_learning_rate, mlp.astype(np.float64) / -SETTINGS.mlp_learning_rate

    own = [name for name in hospitals[0]._private if name.startswith("mlp.")]
    exact = moved(quiet, Randomness.of_the_system)
    drawn = [moved(privacy, Randomness.of_the_system) for _ in range(repeats)]
    return [np.stack([d[part] - exact[part] for d in drawn]) * privacy.normaliser for part in (0, 1)]


def test_the_noise_of_every_hospital_is_what_is_claimed_and_its_own():
    """Deviation, whiteness over coordinates, hospitals and repetitions; bounds have false-alarm rates below 1e-9."""
    privacy = dataclasses.replace(PRIVACY, sampling_rate=1.0, steps=1, clip_norms=(0.5, 2.0), noise_multipliers=(3, 5))
    for noise, claimed in zip(noise_of(privacy, 60), (1.5, 10.0), strict=True):
        count = noise[:, 0].size
        for hospital in range(3):
            ratio = noise[:, hospital].std() / claimed
            assert ratio == pytest.approx(1, abs=max(0.01, 6.5 / (2 * count) ** 0.5))
        white = noise / noise.std()
        for a, b in (
            (white[:, 0], white[:, 1]),
            (white[:, 1], white[:, 2]),
            (white[1:], white[:-1]),
            (white[..., 1:], white[..., :-1]),
        ):
            assert abs((a * b).mean()) < 6.5 / a.size**0.5


@pytest.mark.parametrize("fault", ["a tenth", "shared by hospitals", "clip norm left out"])
def test_faults_of_the_noise_would_be_seen(monkeypatch, fault):
    privacy = dataclasses.replace(PRIVACY, sampling_rate=1.0, steps=1, clip_norms=(0.5, 2.0), noise_multipliers=(3, 5))
    if fault == "a tenth":
        monkeypatch.setattr(stack, "fill_with_noise", lambda memory, of: memory.copy_(of.gaussian(len(memory)) / 10))
    elif fault == "shared by hospitals":
        shared = Randomness.of_the_system().gaussian(1 << 16)
        monkeypatch.setattr(stack, "fill_with_noise", lambda memory, of: memory.copy_(shared[: len(memory)]))
    else:
        monkeypatch.setattr(stack, "fill_with_noise", lambda memory, of: memory.copy_(of.gaussian(len(memory)) / 0.5))
    noise = noise_of(privacy, 20)
    ratios = [part.std() / claimed for part, claimed in zip(noise, (1.5, 10.0), strict=True)]
    white = noise[0] / noise[0].std()
    correlated = abs((white[:, 0] * white[:, 1]).mean()) > 0.5
    assert correlated or any(abs(ratio - 1) > 0.05 for ratio in ratios)


def test_draws_do_not_depend_on_the_data_or_on_who_else_is_in_the_fleet():
    seen = []
    for sizes in ((60,), (61, 3), (0, 60), (60, 60, 60)):
        hospitals = make_hospitals(SETTINGS, PRIVACY, sizes=sizes)
        hospitals[0]._train[0][:1] = float("nan")
        trainees = [h.private_trainee(Counting.of_a_seed(3)) for h in hospitals]
        make_fleet(SETTINGS, PRIVACY).train(start(SETTINGS), trainees, 1)
        seen += [trainee.source.drawn for trainee in trainees]
    assert set(seen) == {seen[0]}
    assert len(seen[0]) % PRIVACY.steps == 0


# ------------------------------------------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("changes", PRIVACY_CASES.values(), ids=PRIVACY_CASES.keys())
@pytest.mark.parametrize("shape", ["private profile", "masked", "masked, group norm", "no norm"])
def test_a_gpu_trains_the_fleet_as_the_processor_does(shape, changes):
    if "centring_steps" in changes and SETTING_CASES[shape].get("learn_thresholds"):
        pytest.skip("centred steps need layers that keep all rows")
    privacy, settings = dataclasses.replace(PRIVACY, **changes), settings_of(**SETTING_CASES[shape], mlp_to_fam=False)
    if privacy.coupling == "one-way":
        settings = dataclasses.replace(settings, distillation="off")
    vector, results = start(settings), []
    for device in ("cpu", "cuda"):
        hospitals = make_hospitals(settings, privacy, device=device)
        trainees = [h.private_trainee(source(k, 1)) for k, h in enumerate(hospitals)]
        trained = make_fleet(settings, privacy, device=device).train(vector, trainees, 1)
        results.append([h.adopt_private(t, vector, 1) for h, t in zip(hospitals, trained, strict=True)])
    for here, there in zip(*results, strict=True):
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)
