"""The steps that measure a hospital's mean feature: what one record moves, the noise, and what it is good for."""

import dataclasses

import numpy as np
import pytest
import torch

from clients.method.settings import SettingsError
from clients.privacy import PrivacySettings, PrivateHospital, Randomness
from clients.privacy.centring import Centring, clipped_vectors
from tests.clients.privacy.test_private_hospital import SETTINGS, TEXT, WIDTH, Counting, make_site, parameters, start

QUIET = PrivacySettings(sampling_rate=1.0, noise_multipliers=(0.0,), normaliser=60.0, centring_steps=2)
GROUPS = dataclasses.replace(QUIET, clip_norms=(0.5, 2.0), noise_multipliers=(3.0, 5.0))


def rows(count=60, width=WIDTH):
    generator = torch.Generator().manual_seed(4)
    near = 2.0 + torch.randn(count, width, generator=generator)
    return torch.nn.functional.normalize(near, dim=1)


def measured(privacy, features, units=None, source=None):
    centring = Centring(privacy, features.shape[1])
    for _ in range(privacy.centring_steps):
        centring.measure(
            features, torch.arange(len(features)) if units is None else units, source or Randomness.of_a_seed(1)
        )
    return centring


def make(privacy=QUIET, settings=SETTINGS, **more):
    return PrivateHospital(make_site(), TEXT, 100.0, settings, privacy, None, **more)


def test_one_unit_moves_what_is_measured_by_one():
    """Images of any length, images that are broken, and patients with many images."""
    features = rows()
    for row in (features[:1], -features[:1], 1e6 * features[:1], 0 * features[:1], torch.full((1, WIDTH), np.nan)):
        moved = float(clipped_vectors(row, torch.zeros(1, dtype=torch.int64)).norm())
        assert moved <= 1 + 1e-12
    assert float(clipped_vectors(features[:1], torch.zeros(1, dtype=torch.int64)).norm()) == pytest.approx(1, abs=1e-6)
    of_patients = clipped_vectors(features, torch.arange(60) // 6)
    assert of_patients.shape == (10, WIDTH + 1)
    assert of_patients.norm(dim=1).tolist() == pytest.approx([1.0] * 10)


def test_the_noise_of_the_measured_sum_is_that_of_the_steps():
    """For two groups the noise of one mechanism with the multiplier that their events are accounted with."""
    features = rows(width=400)
    for privacy in (dataclasses.replace(QUIET, noise_multipliers=(3.0,)), GROUPS):
        noise = torch.cat(
            [
                measured(privacy, features, source=Randomness.of_the_system())._total
                - measured(
                    dataclasses.replace(privacy, noise_multipliers=(0.0,) * len(privacy.clip_norms)), features
                )._total
                for _ in range(100)
            ]
        )
        claimed = sum(z**-2 for z in privacy.noise_multipliers) ** -0.5 * privacy.centring_steps**0.5
        assert float(noise.std()) / claimed == pytest.approx(1, abs=6.5 / (2 * noise.numel()) ** 0.5)


def test_without_noise_the_mean_is_the_mean():
    features = rows()
    found = measured(QUIET, features).mean()
    torch.testing.assert_close(found, features.mean(0), rtol=1e-5, atol=1e-6)
    rare = dataclasses.replace(QUIET, sampling_rate=0.5)  # a sample was handed in; nothing is divided by the rate
    torch.testing.assert_close(measured(rare, features[::2]).mean(), features[::2].mean(0), rtol=1e-5, atol=1e-6)


def test_under_noise_the_mean_is_shrunk_and_never_longer_than_a_feature():
    features = rows(300, 64)
    true = features.mean(0)
    some = measured(dataclasses.replace(QUIET, noise_multipliers=(4.0,)), features).mean()
    assert float((some - true).norm()) < 0.5 * float(true.norm())
    for multiplier in (30.0, 1e4):
        for seed in range(20):
            drowned = measured(
                dataclasses.replace(QUIET, noise_multipliers=(multiplier,)), features, source=Randomness.of_a_seed(seed)
            ).mean()
            assert float(drowned.norm()) <= 1 + 1e-6
            assert torch.isfinite(drowned).all()
    assert not measured(dataclasses.replace(QUIET, noise_multipliers=(1e4,)), features).mean().any()
    assert not Centring(QUIET, WIDTH).mean().any()
    nobody = torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.int64)
    assert not measured(QUIET, *nobody).mean().any()


def test_a_count_of_images_of_the_size_of_its_noise_gives_no_mean():
    """Two steps at multiplier 10: the count has a standard deviation of 28.3; up to twice that tells nothing."""
    centring = Centring(dataclasses.replace(QUIET, noise_multipliers=(10.0,)), WIDTH)
    for count, is_known in ((50.0, False), (56.0, False), (57.0, True), (-60.0, False)):
        total = np.append(np.full(WIDTH, 1e3), count / 2)
        centring.load_state({"centre.total": total, "centre.steps": np.array(2)})
        assert bool(centring.mean().any()) == is_known


def test_measuring_steps_move_nothing_and_come_first():
    hospital = make(dataclasses.replace(QUIET, noise_multipliers=(2.0,)))
    moved = [np.abs(hospital.train_round(start(), number)).max() for number in (1, 2, 3)]
    assert moved[:2] == [0.0, 0.0]
    assert moved[2] > 0


def test_a_hospital_that_was_away_while_others_measured_trains_as_without_measuring():
    """No round has some hospitals send zeros and others what they have trained."""
    privacy = dataclasses.replace(QUIET, noise_multipliers=(2.0,))
    away = make(privacy).train_round(start(), 3, Randomness.of_a_seed(1))
    never = make(dataclasses.replace(privacy, centring_steps=0)).train_round(start(), 3, Randomness.of_a_seed(1))
    np.testing.assert_array_equal(away, never)
    resumed, other = make(privacy), make(privacy)
    resumed.load_private_state(other.private_state())
    np.testing.assert_array_equal(resumed.train_round(start(), 3, Randomness.of_a_seed(1)), never)


@pytest.mark.parametrize(("centring", "steps"), [(2, 1), (5, 3), (6, 3), (0, 2)])
def test_the_first_steps_of_the_first_rounds_measure(centring, steps):
    privacy = dataclasses.replace(QUIET, centring_steps=centring, steps=steps)
    measuring = [privacy.measuring_steps(number) for number in range(1, 5)]
    assert sum(measuring) == centring
    assert measuring == sorted(measuring, reverse=True)
    assert max(measuring) <= steps


def test_a_measuring_step_draws_the_same_whatever_the_data():
    seen = []
    for site in (make_site(60), make_site(0)):
        source = Counting.of_a_seed(3)
        PrivateHospital(site, TEXT, 100.0, SETTINGS, GROUPS).train_round(start(), 1, source)
        seen.append(source.drawn)
    assert seen == [(WIDTH + 1, WIDTH + 1)] * 2


@pytest.mark.parametrize("changes", [{}, {"mlp_layers": 1, "mlp_input": "both", "mlp_width": 8}], ids=["image", "both"])
def test_an_unclipped_centred_step_is_the_plain_step_in_other_coordinates(changes):
    """Noise off and clip out of reach: W moves as in the centred model, and W x + b moves as W (x - m) + b' does."""
    settings = dataclasses.replace(SETTINGS, **changes)
    plain = dataclasses.replace(QUIET, clip_norms=(1e9,), centring_steps=0)
    features = torch.from_numpy(make_site().train.features)
    moves = {}
    for name, privacy in (("plain", plain), ("centred", dataclasses.replace(plain, centring_steps=1))):
        hospital = make(privacy, settings)
        if privacy.centring_steps:
            hospital.train_round(start(settings), 1)
        hospital._load_shared(start(settings))
        before = {key: p.detach().clone() for key, p in hospital._trained()}
        hospital.train_round(start(settings), 2)
        moves[name] = {key: (p.detach() - before[key]) for key, p in hospital._trained()}
    mean, gain = features.mean(0), hospital._private_model.fam.gain
    weight, bias = moves["plain"]["fam.first.weight"], moves["plain"]["fam.first.bias"]
    shifted = weight - torch.outer(bias, gain * mean)
    torch.testing.assert_close(moves["centred"]["fam.first.weight"], shifted, rtol=1e-3, atol=1e-4)
    expected = bias - shifted @ (gain * mean)
    torch.testing.assert_close(moves["centred"]["fam.first.bias"], expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        moves["centred"]["fam.second.weight"], moves["plain"]["fam.second.weight"], rtol=1e-3, atol=1e-5
    )


def test_a_resumed_hospital_keeps_its_mean_and_its_count():
    privacy = dataclasses.replace(QUIET, noise_multipliers=(0.5,), centring_steps=2)
    straight = make(privacy)
    vectors = [straight.train_round(start(), number, Randomness.of_a_seed(number)) for number in (1, 2, 3)]
    first = make(privacy)
    first.train_round(start(), 1, Randomness.of_a_seed(1))
    second = make(privacy)
    second.load_private_state(first.private_state())
    second.train_round(start(), 2, Randomness.of_a_seed(2))
    third = make(privacy)
    third.load_private_state(second.private_state())
    np.testing.assert_array_equal(third.train_round(start(), 3, Randomness.of_a_seed(3)), vectors[2])
    np.testing.assert_array_equal(parameters(third), parameters(straight))


def test_centring_helps_where_features_share_a_direction():
    """Three classes in one narrow cone, under much noise: 0.7 without measuring, nearly 1 with it (four runs each)."""
    site = make_site(240)
    for part in (site.train, site.test, site.val):
        shifted = part.features + 6 * TEXT[0]
        part.features = (shifted / np.linalg.norm(shifted, axis=1, keepdims=True)).astype(np.float32)
    accuracy = {}
    for steps in (0, 2):
        scores = []
        for seed in range(4):
            privacy = PrivacySettings(
                sampling_rate=1.0,
                clip_norms=(1.0, 1.0),
                noise_multipliers=(20.0, 20.0),
                steps=20,
                centring_steps=steps,
            )
            hospital = PrivateHospital(site, TEXT, 100.0, SETTINGS, privacy)
            vector = start() + hospital.train_round(start(), 1, Randomness.of_a_seed(seed))
            scores.append(hospital.evaluate(vector, "test")["mlp"].accuracy)
        accuracy[steps] = np.mean(scores)
    assert accuracy[2] > accuracy[0] + 0.1


def test_layers_that_switch_rows_off_are_refused():
    with pytest.raises(SettingsError, match="centred"):
        make(settings=dataclasses.replace(SETTINGS, learn_thresholds=True))


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="centring"):
        PrivacySettings(centring_steps=-1)
