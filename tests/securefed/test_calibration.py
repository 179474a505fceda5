"""Calibration of every mode through whole rounds: noise is what is claimed and white; each known fault is caught."""

import dataclasses

import numpy as np
import pytest
import torch

import securefed.privacy.hospitals as local_module
from clients.encoders import FeatureBundle
from clients.privacy import PrivateHospital, Randomness
from clients.privacy.replay import SensitivityError
from protocols.entropy import ReproducibleEntropy, system_entropy
from protocols.errors import OutOfRangeError
from protocols.noise import NoisyCodec
from protocols.noise.tables import noise_table
from protocols.roster import IdentityKey, Roster
from protocols.secret_values import NoiseSeed
from securefed.aggregation import Aggregator
from securefed.compression import Contribution
from securefed.config import config_from_mapping
from securefed.nodes.simulated import SimulatedSites
from securefed.privacy.hospitals import PrivateHospitals
from securefed.privacy.shared_hospitals import SummingHospitals
from securefed.sum_terms import SumTerms
from tests.protocols.noise.checks import (
    WrongNoiseError,
    check_deviation,
    check_independent,
    check_seed_entropy,
    check_white,
)
from tests.securefed.conftest import bundle

SITES = [f"site{number}" for number in range(5)]
SHARED = ("distributed", "hospital")
MODES = ("local", *SHARED)


class Given:
    """Hospitals that give the same known vectors in every round."""

    def __init__(self, dimension, norm):
        rng = np.random.default_rng(5)
        self.vectors = {}
        for site in SITES:
            vector = rng.standard_normal(dimension)
            self.vectors[site] = (norm * vector / np.linalg.norm(vector)).astype(np.float32)

    def expect(self, number, sites):
        pass

    def train(self, site, received, number):
        return self.vectors[site]

    def score(self, site, received):
        raise AssertionError("nothing is scored under differential privacy")


def residuals(mode, rounds=4, width=1400, sites=None, **changes):
    """Noise of opened sums through nodes, masks, server and channel; and its claimed standard deviation."""
    privacy = {"mode": mode, "noise_multiplier": 2.0, "clip_norm": 0.5, **changes}
    if mode == "distributed":
        privacy["normaliser"] = 8.0
    training = {"fam_width": 24, "adam_beta1": 0.0, "weight_decay": 0.0, "fam_learning_rate": 1.0}
    lost = ["site2@2:MaskedInputCollection", "site0@3:ShareKeys", "site4@4:Unmasking"]
    tree = {
        "privacy": privacy,
        "training": {**training, "learning_rate_decay": 1.0},
        "simulation": {"drop": lost},
        "federation": {"rounds": rounds},
    }
    config = config_from_mapping(tree)
    identities = {site: IdentityKey.generate(system_entropy) for site in SITES}
    terms = SumTerms(config, Roster.of(identities), width, 3)
    plan = terms.noise
    given = Given(terms.initial_vector.size, 0.4 if mode == "hospital" else 4.0)
    nodes = SimulatedSites(identities, terms, given)
    if sites is not None:
        sites(nodes)
    aggregator = Aggregator(terms, nodes, nodes, verifier=nodes.verifier)
    vector, found = terms.initial_vector, []
    for number in range(1, rounds + 1):
        opened = aggregator.open_round(number, vector)
        count = len(opened.survivors)
        true = sum(given.vectors[site].astype(float) for site in opened.survivors)
        total = opened.mean_update * (count if mode == "hospital" else -privacy["normaliser"] * len(SITES))
        found.append((total - true) / plan.deviation(count))
        vector = (vector + np.float32(1e-3)).astype(np.float32)  # another model: other sums may be opened over it
    return found


WIDE = 520
"""Features so wide that the FAM of two rounds and three hospitals has enough coordinates for 1 %."""


def wide_bundle() -> FeatureBundle:
    """Three hospitals of the small federation, with features padded by zeros."""

    def padded(rows):
        return np.pad(rows, ((0, 0), (0, WIDE - rows.shape[1])))

    small, sites = bundle(sites=3, train=8), []
    for site in small.sites:
        parts = {
            part: dataclasses.replace(getattr(site, part), features=padded(getattr(site, part).features))
            for part in ("train", "val", "test")
        }
        sites.append(dataclasses.replace(site, **parts))
    text = padded(small.text_features)
    return dataclasses.replace(small, embed_dim=WIDE, text_features=text, sites=tuple(sites))


class PaidByNobody:
    """Every release is made."""

    def release_id(self, site, number, model_digest):
        return f"{site}/{number}"

    def release(self, site, number, release_id, make):
        return make()

    def settle(self, site, number, release_id):
        raise AssertionError("nothing is kept here")


class Nowhere:
    """Keeps no release."""

    def save(self, *_):
        pass

    def load(self, *_):
        return None


def local_config(**privacy):
    private = {"mode": "local", "noise_multiplier": 2.0, "clip_norm": 0.5, "normaliser": 8.0, "coupling": "one-way"}
    training = {"fam_width": 64, "adam_beta1": 0.0, "weight_decay": 0.0, "fam_learning_rate": 1.0}
    return config_from_mapping({"privacy": {**private, **privacy}, "training": training, "federation": {"rounds": 2}})


def local_residuals(monkeypatch, fault=lambda: None):
    """Noise of each hospital's release in two rounds, in units of what is claimed: [hospital, round]."""
    monkeypatch.setattr(PrivateHospital, "_replay_a_step", lambda self: None)
    config, data = local_config(), wide_bundle()
    hospitals = PrivateHospitals(data, config, "cpu", {}, PaidByNobody(), Nowhere())
    quiet_step = dataclasses.replace(
        local_module.step_settings(config.privacy, config.federation.rounds), noise_multipliers=(0.0,)
    )
    quiet = local_module.private_sites(data, config, "cpu", {}, quiet_step)
    terms = SumTerms(config, Roster.of({s: IdentityKey.generate(system_entropy) for s in hospitals.sites}), WIDE, 3)
    vector = terms.initial_vector
    true = {site: quiet[site].train_round(vector, 1, Randomness.of_the_system()) for site in hospitals.sites}
    fault()
    unit = -config.privacy.normaliser / (config.privacy.noise_multiplier * config.privacy.clip_norm)
    return [
        [unit * (hospitals.train(site, vector, 1).astype(float) - true[site]) for _ in range(2)]
        for site in hospitals.sites
    ]


def everything(mode, monkeypatch, fault=None, **changes):
    """All residuals of a mode, in units of what is claimed, and two that must have nothing in common.

    `fault(mode)` injects what is wrong; for the modes with shares it may return what to do to the nodes.
    """
    if mode == "local":
        found = local_residuals(monkeypatch, (lambda: fault(mode)) if fault else (lambda: None))
        parts = [each for hospital in found for each in hospital]
        return parts, (parts[0], parts[3])
    sites = fault(mode) if fault else None
    found = residuals(mode, sites=sites, **changes)
    return found, (found[0], found[3])


def check_all(parts, pair):
    for part in parts:  # of one hospital, or of one sum: 3 % of each, 1 % of all
        check_deviation(part, 1.0, 0.03)
    check_deviation(np.concatenate(parts), 1.0)
    check_white(np.concatenate(parts))
    check_independent(*pair)


@pytest.mark.parametrize("dropout_noise", ["xnoise", "conservative"])
@pytest.mark.parametrize("mode", SHARED)
def test_what_the_server_opens_has_the_claimed_noise_with_and_without_losses(mode, dropout_noise, monkeypatch):
    """Within 1 % over four rounds of 67,000 coordinates, three of them with a loss at different stages."""
    check_all(*everything(mode, monkeypatch, dropout_noise=dropout_noise))


def test_what_a_hospital_releases_in_the_mode_local_has_the_claimed_noise(monkeypatch):
    check_all(*everything("local", monkeypatch))


# ------------------------------------------------------------------------------------------------ injected faults


@pytest.mark.parametrize("mode", MODES)
def test_a_tenth_of_the_noise_is_caught(mode, monkeypatch):
    def fault(_mode):
        right = Randomness.gaussian
        monkeypatch.setattr(Randomness, "gaussian", lambda self, size, *_: right(self, size) / 10)
        monkeypatch.setattr("protocols.noise.codec.noise_table", lambda kind, v: noise_table(kind, v / 100))

    with pytest.raises(WrongNoiseError, match="standard deviation"):
        check_all(*everything(mode, monkeypatch, fault))


@pytest.mark.parametrize("mode", MODES)
def test_a_scale_that_is_left_out_is_caught(mode, monkeypatch):
    """Clip norm or grid: noise in other units than what it is added to."""

    def fault(_mode):
        right = Randomness.gaussian
        monkeypatch.setattr(Randomness, "gaussian", lambda self, size, *_: right(self, size) / 0.5)
        component = NoisyCodec.component

        def unscaled(codec, number, seed):
            return np.rint(component(codec, number, seed) / codec.plan.scale).astype(np.int64)

        monkeypatch.setattr(NoisyCodec, "component", unscaled)

    with pytest.raises(WrongNoiseError, match="standard deviation"):
        check_all(*everything(mode, monkeypatch, fault))


@pytest.mark.parametrize("only", [True, False], ids=["only one", "all but one"])
@pytest.mark.parametrize("mode", MODES)
def test_noise_at_one_hospital_only_or_at_all_but_one_is_caught(mode, only, monkeypatch):
    def fault(_mode):
        right = PrivateHospital.train_round

        def some(self, vector, number, randomness=None):
            silent = (self.site.site != "site0") if only else (self.site.site == "site0")
            with monkeypatch.context() as patched:
                if silent:
                    patched.setattr(Randomness, "gaussian", lambda self, size, *_: torch.zeros(size))
                return right(self, vector, number, randomness)

        monkeypatch.setattr(PrivateHospital, "train_round", some)

        def forget(nodes):
            for site, node in nodes._nodes.items():
                if (site != "site1") if only else (site == "site1"):
                    codec = node.channel._codec
                    codec.component = lambda _number, _seed, count=codec.vector_length: np.zeros(count, np.int64)

        return forget

    with pytest.raises(WrongNoiseError, match="standard deviation"):
        check_all(*everything(mode, monkeypatch, fault, dropout_noise="conservative"))


@pytest.mark.parametrize("mode", MODES)
def test_noise_that_is_used_twice_is_caught(mode, monkeypatch):
    def fault(_mode):
        always = classmethod(lambda cls: cls(bytes(32), reproducible=True))
        monkeypatch.setattr(Randomness, "of_the_system", always)

        def repeat(nodes):
            for site, node in nodes._nodes.items():
                node.channel._entropy = lambda _, site=site: ReproducibleEntropy(site.encode().ljust(32, b"."))

        return repeat

    parts, pair = everything(mode, monkeypatch, fault, dropout_noise="conservative")
    with pytest.raises(WrongNoiseError, match="correlate"):
        check_independent(*pair)
    check_deviation(np.concatenate(parts), 1.0, 0.03)  # nothing else shows it


def check_key_entropy():
    """Each of the 256 bits of a key of the local noise matters."""
    keys = [bytes(32)] + [(1 << bit).to_bytes(32, "little") for bit in range(256)]
    drawn = {Randomness(key, reproducible=True).uniform(4).tobytes() for key in keys}
    if len(drawn) < len(keys):
        raise WrongNoiseError("not all bits are used")


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_of_32_bits_is_caught(mode, monkeypatch):
    if mode == "local":
        check_key_entropy()
        right = Randomness.__init__

        def folded(self, key, *, reproducible):
            right(self, key[:4] + bytes(28), reproducible=reproducible)

        monkeypatch.setattr(Randomness, "__init__", folded)
        with pytest.raises(WrongNoiseError, match="not all bits"):
            check_key_entropy()
        return
    codec = shared_terms(mode, 64).channels.noisy.codec()
    check_seed_entropy(codec)
    from protocols.noise import codec as codec_module

    draw = codec_module.draw
    monkeypatch.setattr(
        codec_module, "draw", lambda table, seed, count: draw(table, NoiseSeed(seed.expose()[:4] + bytes(28)), count)
    )
    with pytest.raises(WrongNoiseError, match="not all bits"):
        check_seed_entropy(codec)


def shared_terms(mode, width):
    privacy = {"mode": mode, "noise_multiplier": 2.0, "clip_norm": 0.5}
    config = config_from_mapping({"privacy": privacy, "training": {"fam_width": 4}})
    return SumTerms(config, Roster.of({site: IdentityKey.generate(system_entropy) for site in SITES}), width, 3)


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_a_clip_that_is_off_is_caught_where_records_are_the_unit(mode, monkeypatch):
    """The hospital replays a step when it starts, and does not start."""
    monkeypatch.setattr(torch.Tensor, "clamp", lambda self, **_: torch.ones_like(self))
    data, shared = bundle(sites=3, train=8), {"mode": "distributed", "noise_multiplier": 2.0}
    make = {
        "local": lambda: PrivateHospitals(data, local_config(), "cpu", {}, PaidByNobody(), Nowhere()),
        "distributed": lambda: SummingHospitals(
            data, config_from_mapping({"privacy": shared, "training": {"fam_width": 4}}), "cpu", {}
        ),
    }[mode]
    with pytest.raises(SensitivityError):
        make()


def test_a_clip_that_is_off_is_caught_where_the_hospital_is_the_unit(monkeypatch):
    """A vector that is too long is not encoded."""
    terms = shared_terms("hospital", 64)
    site, codec = terms.channels.noisy.site("site0"), terms.channels.noisy.codec()
    long = Contribution(np.ones(terms.initial_vector.size, np.float32), 0.0)
    seeds = [NoiseSeed(bytes(32)) for _ in range(codec.plan.excess)]
    site.encode(1, codec.digest, long, seeds)
    monkeypatch.setattr(NoisyCodec, "clip", lambda self, vector: vector)
    with pytest.raises(OutOfRangeError):
        site.encode(1, codec.digest, long, seeds)
