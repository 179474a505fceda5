"""A hospital's private step: noise as claimed, nothing that gets around it, and faults that the tests would see."""

import dataclasses

import numpy as np
import pytest
import torch

from clients.method.layout import flatten, initial_vector, shared_parameters
from clients.method.settings import SettingsError, TrainingSettings
from clients.privacy import PrivacySettings, PrivateHospital, Randomness, centring
from clients.privacy import hospital as hospital_module
from clients.privacy.clipping import Group
from clients.privacy.ghost import GhostLinear
from clients.privacy.replay import SensitivityError
from tests.clients.method import test_hospital
from tests.clients.method.test_hospital import CLASSES, TEXT, WIDTH
from tests.clients.privacy.slow_clipping import example_losses, unit_by_unit_sum

SETTINGS = dataclasses.replace(
    TrainingSettings.default(),
    prior_adjustment=0.0,
    feature_dropout=0.0,
    mlp_dropout=0.0,
    fam_width=8,
    fam_logit_scale=10.0,
    learn_thresholds=False,
    mlp_layers=0,
    mlp_input="image",
    fam_learning_rate=0.1,
    mlp_learning_rate=0.05,
    learning_rate_decay=1.0,
    weight_decay=0.0,
    ensemble="entropy",
)


class Counting(Randomness):
    drawn = ()

    def gaussian(self, size, out=None):
        self.drawn = (*self.drawn, size)
        return super().gaussian(size, out)


DEFAULT = PrivacySettings()


def make_site(count=60, seed=0):
    return test_hospital.make_site("a", seed, count)


def make(privacy=DEFAULT, site=None, settings=SETTINGS, patients=None, **more):
    return PrivateHospital(site or make_site(), TEXT, 100.0, settings, privacy, patients, **more)


def start(settings=SETTINGS):
    return initial_vector(WIDTH, settings, 0)


def parameters(hospital):
    model = hospital._private_model
    return flatten(shared_parameters(model.fam, model.mlp))


def one_step(privacy, source, *, site=None, settings=SETTINGS, hospital=None):
    """All parameters after one step minus before, divided by the learning rates: minus (sum + noise) / normaliser."""
    hospital = hospital or make(privacy, site, settings)
    hospital._load_shared(start(settings))
    before = parameters(hospital)
    hospital.train_round(start(settings), 1, source)
    moved = torch.from_numpy(parameters(hospital) - before).double()
    fam = len(start(settings))
    return moved[:fam] / -settings.fam_learning_rate, moved[fam:] / -settings.mlp_learning_rate


def deviations(privacy, repeats=60):
    """Standard deviation of (noisy sum - true sum), over the claimed one, for FAM and MLP."""
    quiet = dataclasses.replace(privacy, noise_multipliers=(0.0,) * len(privacy.noise_multipliers))
    exact = one_step(quiet, Randomness.of_a_seed(1))
    hospital = make(privacy)
    fresh = hospital.private_state()
    drawn = []
    for _ in range(repeats):
        hospital.load_private_state(fresh)
        drawn.append(one_step(privacy, Randomness.of_the_system(), hospital=hospital))
    claimed = [c * z for c, z in zip(privacy.clip_norms, privacy.noise_multipliers, strict=True)]
    claimed = claimed * 2 if len(claimed) == 1 else claimed
    noise = [
        torch.stack([d[part] for d in drawn]) * privacy.normaliser - exact[part] * privacy.normaliser for part in (0, 1)
    ]
    return [float(n.std()) / c for n, c in zip(noise, claimed, strict=True)], noise


EVERYBODY = PrivacySettings(sampling_rate=1.0, clip_norms=(0.5,), noise_multipliers=(3.0,), normaliser=10.0)
GROUPS = dataclasses.replace(EVERYBODY, clip_norms=(0.5, 2.0), noise_multipliers=(3.0, 5.0))


@pytest.mark.parametrize("privacy", [EVERYBODY, GROUPS], ids=["together", "groups"])
def test_the_noise_is_what_is_claimed_and_white(privacy):
    """Within 1 % for FAM and MLP; no coordinate, and no two of them, stand out."""
    repeats = 400
    ratios, noise = deviations(privacy, repeats)
    for ratio, part in zip(ratios, noise, strict=True):
        assert part.numel() > 15_000  # the estimate's own standard deviation is below 0.6 %
        assert ratio == pytest.approx(1, abs=max(0.01, 6.5 / (2 * part.numel()) ** 0.5))
        by_coordinate = part.std(0) / part.std()
        assert float((by_coordinate - 1).abs().max()) < 6.5 / (2 * repeats) ** 0.5
        white = part / part.std()
        assert abs(float((white[:, 1:] * white[:, :-1]).mean())) < 6.5 / part.numel() ** 0.5
        assert abs(float((white[1:] * white[:-1]).mean())) < 6.5 / part.numel() ** 0.5


@pytest.mark.parametrize("fault", ["a tenth of the noise", "clip norm left out", "no noise on the MLP", "reused noise"])
def test_faults_of_the_noise_are_seen(monkeypatch, fault):
    """Each fault is injected; the calibration above would have failed with it."""
    right = Randomness.gaussian
    if fault == "a tenth of the noise":
        monkeypatch.setattr(Randomness, "gaussian", lambda self, size, *_: right(self, size) / 10)
    elif fault == "clip norm left out":
        monkeypatch.setattr(Randomness, "gaussian", lambda self, size, *_: right(self, size) / EVERYBODY.clip_norms[0])
    elif fault == "no noise on the MLP":
        fam = sum(p.numel() for p in make()._private_model.mlp.parameters())
        sizes = {p.numel() for p in make()._private_model.mlp.parameters()}
        assert fam
        monkeypatch.setattr(
            Randomness, "gaussian", lambda self, size, *_: right(self, size) * (0.0 if size in sizes else 1.0)
        )
    else:
        monkeypatch.setattr(Randomness, "gaussian", lambda self, size, *_: torch.linspace(-1.7, 1.7, size))
    ratios, noise = deviations(EVERYBODY, 20)
    spread = noise[0].std(0)
    seen = any(abs(ratio - 1) > 0.05 for ratio in ratios) or float(spread.max()) < 1e-3
    assert seen


def test_a_clip_that_is_off_is_seen(monkeypatch):
    """One record more moves the noiseless sum by no more than the clip; with the clip off by far more."""

    def influence():
        quiet = dataclasses.replace(EVERYBODY, noise_multipliers=(0.0,), normaliser=1.0)
        small, large = make_site(60), make_site(60)
        large.train.features = np.concatenate([large.train.features, -large.train.features[:1]])
        large.train.labels = np.concatenate([large.train.labels, (large.train.labels[:1] + 1) % CLASSES])
        a, b = (torch.cat(one_step(quiet, Randomness.of_a_seed(1), site=s)) for s in (small, large))
        return float((a - b).norm()) / EVERYBODY.clip_norms[0]

    assert influence() == pytest.approx(1.0, abs=1e-3)
    monkeypatch.setattr(torch.Tensor, "clamp", lambda self, **_: torch.ones_like(self))
    with pytest.raises(SensitivityError):  # the replay sees it before anything is trained
        influence()
    monkeypatch.setattr(PrivateHospital, "_replay_a_step", lambda self: None)
    assert influence() > 2


def test_what_a_step_divides_by_is_a_constant_and_an_empty_step_is_a_step():
    """No record: the step is noise of the same size; Opacus' engine would take normaliser and steps from the data."""
    nobody = make_site(60)
    nobody.train.features, nobody.train.labels = nobody.train.features[:0], nobody.train.labels[:0]
    hospital = make(EVERYBODY, nobody)
    fresh, drawn = hospital.private_state(), []
    for _ in range(80):
        hospital.load_private_state(fresh)
        drawn.append(torch.cat(one_step(EVERYBODY, Randomness.of_the_system(), hospital=hospital)))
    moved = torch.cat(drawn)
    claimed = EVERYBODY.clip_norms[0] * EVERYBODY.noise_multipliers[0] / EVERYBODY.normaliser
    assert float(moved.std()) / claimed == pytest.approx(1, abs=6.5 / (2 * moved.numel()) ** 0.5)


def test_control_flow_does_not_depend_on_the_data():
    """The same draws are taken from the stream with a record more, with a broken record and with none sampled."""
    privacy = dataclasses.replace(EVERYBODY, steps=3, sampling_rate=0.5)
    seen = []
    for site in (make_site(60), make_site(61), make_site(0)):
        if len(site.train.labels) == 61:
            site.train.features[0] = np.nan
        source = Counting.of_a_seed(3)
        make(privacy, site).train_round(start(), 1, source)
        seen.append(source.drawn)
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) % 3 == 0


def test_a_broken_record_spoils_nothing():
    site = make_site(60)
    site.train.features[5] = np.nan
    hospital = make(EVERYBODY, site)
    assert np.isfinite(hospital.train_round(start(), 1)).all()
    assert np.isfinite(parameters(hospital)).all()


def test_class_counts_are_nowhere():
    """The state that a private hospital keeps is the same whatever the labels, but for the noisy training itself."""
    one, other = make_site(60), make_site(60)
    other.train.labels = np.zeros_like(other.train.labels)
    states = [make(EVERYBODY, site).private_state() for site in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("field", ["prior_adjustment", "class_balance", "feature_dropout"])
def test_settings_that_count_or_share_are_refused(field):
    with pytest.raises(SettingsError) as refused:
        make(settings=dataclasses.replace(SETTINGS, **{field: 0.5}))
    assert refused.value.field == field


def test_methods_without_private_training_are_refused():
    with pytest.raises(SettingsError, match="no private training"):
        make(method="fedavg-mlp")


def test_clipped_sum_is_the_sum_of_the_fams_clipped_gradients():
    privacy = PrivacySettings(sampling_rate=1.0, clip_norms=(0.3,), noise_multipliers=(0.0,), coupling="one-way")
    hospital = make(privacy)
    given = hospital.clipped_sum(start(), 1)
    assert given.clip_norm == 0.3
    assert given.vector.dtype == np.float64
    assert given.vector.shape == start().shape
    model = hospital._private_model
    features, labels = hospital._rows()
    slow = unit_by_unit_sum(
        [Group(tuple(model.fam.parameters()), 0.3)],
        example_losses(model, fam_alone=True),
        features,
        labels,
        torch.arange(len(labels)),
    )
    expected = torch.cat([gradient.reshape(-1) for gradient in slow.gradients[0]]).numpy()
    np.testing.assert_allclose(given.vector, expected, rtol=1e-4, atol=1e-5)


def test_clipped_sum_has_sensitivity_one_clip_and_ignores_the_mlp():
    privacy = PrivacySettings(sampling_rate=1.0, clip_norms=(0.3,), noise_multipliers=(0.0,), coupling="one-way")
    small, large = make_site(60), make_site(60)
    large.train.features = np.concatenate([large.train.features, -large.train.features[:1]])
    large.train.labels = np.concatenate([large.train.labels, [0]])
    a, b = (make(privacy, site).clipped_sum(start(), 1).vector for site in (small, large))
    assert np.linalg.norm(a - b) == pytest.approx(0.3, rel=1e-3)
    other = make(privacy)
    with torch.no_grad():
        for parameter in other._private_model.mlp.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(other.clipped_sum(start(), 1).vector, make(privacy).clipped_sum(start(), 1).vector)


def test_what_the_mlp_learns_beside_a_clipped_sum_is_kept():
    privacy = PrivacySettings(sampling_rate=1.0, clip_norms=(0.3,), noise_multipliers=(0.0,), coupling="one-way")
    hospital = make(privacy, settings=dataclasses.replace(SETTINGS, mlp_learning_rate=0.02, mlp_to_fam=False))
    before = hospital.private_state()["mlp.head.weight"].copy()
    for number in range(1, 30):
        hospital.clipped_sum(start(), number)
        hospital.train_mlp(number)
        hospital.load_private_state(hospital.private_state())  # as a run does that goes on from a checkpoint
    assert np.abs(hospital.private_state()["mlp.head.weight"] - before).max() > 0.1
    assert hospital.evaluate(start(), "test")["mlp"].accuracy > 0.9


def test_one_way_the_fam_learns_nothing_from_the_mlp_and_the_mlp_learns():
    privacy = PrivacySettings(sampling_rate=1.0, noise_multipliers=(1.0,), coupling="one-way", steps=2)
    settings = dataclasses.replace(SETTINGS, mlp_layers=1, mlp_input="both", mlp_to_fam=True)
    updates, learned = [], []
    for shift in (0.0, 1.0):
        hospital = make(privacy, settings=settings)
        with torch.no_grad():
            for parameter in hospital._private_model.mlp.parameters():
                parameter.add_(shift)
        before = parameters(hospital)[len(start(settings)) :]
        updates.append(hospital.train_round(start(settings), 1, Randomness.of_a_seed(4)))
        learned.append(parameters(hospital)[len(start(settings)) :] - before)
    np.testing.assert_array_equal(updates[0], updates[1])
    assert all(np.abs(moved).max() > 0 for moved in learned)


def test_patients_are_sampled_whole_and_every_image_needs_one(monkeypatch):
    privacy = dataclasses.replace(EVERYBODY, unit="patient", sampling_rate=0.5, noise_multipliers=(0.0,))
    names = [f"p{index // 6}" for index in range(60)]
    hospital = make(privacy, patients=names)
    seen = []
    right = PrivateHospital._sum

    def watched(self, groups, features, labels, units):
        seen.append(sorted(units.tolist()))
        return right(self, groups, features, labels, units)

    monkeypatch.setattr(PrivateHospital, "_sum", watched)
    for number in range(8):
        hospital.train_round(start(), number + 1)
    monkeypatch.setattr(PrivateHospital, "_sum", right)
    assert all(units.count(unit) == 6 for units in seen for unit in units)
    assert len({tuple(units) for units in seen}) > 1
    for patients in (None, [None] * 60, names[:-1]):
        with pytest.raises(ValueError, match="patient"):
            make(privacy, patients=patients)


def test_a_resumed_hospital_goes_on_with_its_momentum():
    privacy = dataclasses.replace(EVERYBODY, noise_multipliers=(0.5,))
    straight = make(privacy)
    vector = start() + straight.train_round(start(), 1, Randomness.of_a_seed(1))
    expected = straight.train_round(vector, 2, Randomness.of_a_seed(2))
    first = make(privacy)
    first.train_round(start(), 1, Randomness.of_a_seed(1))
    resumed = make(privacy)
    resumed.load_private_state(first.private_state())
    np.testing.assert_array_equal(resumed.train_round(vector, 2, Randomness.of_a_seed(2)), expected)


def test_a_state_without_momentum_starts_without_any():
    """Also in a hospital that has trained: nothing of what it did before stays behind."""
    privacy = dataclasses.replace(EVERYBODY, noise_multipliers=(0.5,))
    trained, fresh = make(privacy), make(privacy)
    vector = start() + trained.train_round(start(), 1, Randomness.of_a_seed(1))
    state = {name: value for name, value in trained.private_state().items() if not name.startswith("momentum.")}
    assert len(state) < len(trained.private_state())
    for hospital in (trained, fresh):
        hospital.load_private_state(state)
    expected = fresh.train_round(vector, 2, Randomness.of_a_seed(2))
    np.testing.assert_array_equal(trained.train_round(vector, 2, Randomness.of_a_seed(2)), expected)


def test_without_noise_private_training_learns():
    privacy = PrivacySettings(sampling_rate=1.0, noise_multipliers=(0.0,), steps=1, normaliser=60.0)
    hospital, vector = make(privacy), start()
    for number in range(1, 40):
        vector = vector + hospital.train_round(vector, number)
    assert hospital.evaluate(vector, "test")["ensemble"].accuracy > 0.8


def test_settings_are_checked():
    for wrong in (
        {"clip_norms": (1.0, 1.0)},
        {"clip_norms": (0.0,)},
        {"noise_multipliers": (-1.0,)},
        {"sampling_rate": 0.0},
        {"steps": 0},
        {"normaliser": 0.0},
        {"unit": "hospital"},
        {"coupling": "one-way", "clip_norms": (1.0, 1.0), "noise_multipliers": (1.0, 1.0)},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 (the message names the field)
            PrivacySettings(**wrong)


@pytest.mark.parametrize("of", ["image", "patient"])
def test_every_kind_of_step_is_replayed_by_its_unit(monkeypatch, of):
    """Training steps, those around a mean, and those that measure it; a fault of one of them is seen at the start."""
    settings = dataclasses.replace(EVERYBODY, unit=of, centring_steps=1)
    patients = [f"p{n % 7}" for n in range(60)]
    asked, honest = [], hospital_module.require_sensitivity
    with monkeypatch.context() as patch:
        patch.setattr(hospital_module, "require_sensitivity", lambda *given: asked.append(given) or honest(*given))
        assert make(settings, patients=patients).replayed
    assert [given[1][0].clip_norm for given in asked] == [0.5, 0.5, 1.0]
    assert {given[4] is None for given in asked} == {of == "image"}
    clipped, norms = centring.clipped_vectors, GhostLinear.squared_norms
    with monkeypatch.context() as patch:
        patch.setattr(centring, "clipped_vectors", lambda x, units: 2 * clipped(x, units))
        with pytest.raises(SensitivityError):
            make(settings, patients=patients)
    with monkeypatch.context() as patch:
        patch.setattr(GhostLinear, "squared_norms", lambda s, u: norms(s, u) / (1 if s._centre is None else 9))
        with pytest.raises(SensitivityError):
            make(settings, patients=patients)
        assert make(dataclasses.replace(settings, centring_steps=0), patients=patients).replayed


def test_the_fam_stays_where_it_is_while_the_mlp_learns_beside_layers_that_switch_rows_off():
    """Memory for a gradient that is never made moved it: by whatever had lain there, features of images among it."""
    settings = dataclasses.replace(SETTINGS, learn_thresholds=True, mlp_layers=1, mlp_width=8)
    privacy = PrivacySettings(coupling="one-way", clip_norms=(1.0,), noise_multipliers=(0.0,), sampling_rate=1e-9)
    hospital = make(privacy, settings=settings)
    for number in (1, 2):
        torch.full((2, 8, WIDTH), 7.0)  # lies there when it is free again
        assert not hospital.train_round(start(settings), number, Randomness.of_a_seed(number)).any()
