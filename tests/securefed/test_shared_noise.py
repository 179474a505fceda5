"""The noise in shares itself: exact under masks, resumed with its velocity, as good as one trainer's."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file

from audit.log import read_events
from audit.verify import verify_run
from protocols.entropy import system_entropy
from protocols.errors import PolicyError
from protocols.roster import IdentityKey, Roster
from protocols.stages import ThreatModel
from securefed import simulation
from securefed.aggregation import Aggregator
from securefed.checkpoint import Checkpoints
from securefed.config import config_from_mapping, load_config
from securefed.errors import TargetEpsilonError
from securefed.nodes.simulated import SimulatedSites
from securefed.noisy import MomentumStep, NoisySite
from securefed.privacy.shared_hospitals import SummingHospitals
from securefed.simulation import resume_run, simulate
from securefed.sum_terms import SumTerms
from tests.securefed.conftest import WIDTH, bundle

SITES = [f"site{number}" for number in range(5)]
LOST = {"drop": ["site1@2:MaskedInputCollection", "site3@3:Unmasking"]}


# -------------------------------------------------------------------------------------------------- exactness, resume


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
@pytest.mark.parametrize("losses", [{}, LOST], ids=["whole", "losses"])
def test_the_same_model_with_and_without_masks_given_the_same_noise(noise_in_shares, tmp_path, mode, losses):
    """Seeded noise, conservative shares: the masks change no bit."""
    digests = set()
    for enabled in (True, False):
        given = noise_in_shares(mode, noise="seeded", simulation=losses, secure_aggregation={"enabled": enabled})
        run = simulate(given, output=tmp_path / str(enabled))
        digests.add(run.summary["fam_sha256"])
        assert run.summary["privacy"]["claim"].startswith("NOT CLAIMED")
        verify_run(tmp_path / str(enabled), roster=tmp_path / str(enabled) / "roster.json").require()
    assert len(digests) == 1


def test_the_mlp_that_a_hospital_has_trained_is_the_one_that_is_kept(noise_in_shares, tmp_path):
    """Not the one that it began with: states are what is stored, resumed from and evaluated."""
    run = simulate(noise_in_shares(), output=tmp_path / "run")
    kept = load_file(run.folder.site("site0") / "mlp.safetensors")
    hospitals = SummingHospitals(bundle(), load_config(run.folder.config), "cpu", {})
    fresh = hospitals.private_states()["site0"]
    learned = [name for name in kept if name.endswith("weight") and not np.array_equal(kept[name], fresh[name])]
    assert learned, sorted(kept)


def test_fresh_noise_gives_another_model(noise_in_shares, tmp_path):
    digests = {simulate(noise_in_shares(rounds=1), output=tmp_path / str(i)).summary["fam_sha256"] for i in range(2)}
    assert len(digests) == 2


def test_in_clear_nothing_is_claimed(noise_in_shares, tmp_path):
    run = simulate(noise_in_shares(secure_aggregation={"enabled": False}), output=tmp_path / "run")
    assert run.summary["privacy"]["claim"].startswith("NOT CLAIMED: vectors were sent in clear")


def test_an_interrupted_run_goes_on_with_its_velocity(noise_in_shares, tmp_path, monkeypatch):
    given = noise_in_shares(noise="seeded")
    whole = simulate(given, output=tmp_path / "whole").summary["fam_sha256"]
    finish = Checkpoints.finish

    def interrupting(self, checkpoint):
        assert finish(self, checkpoint), "a private run has a checkpoint after every round"
        if checkpoint.current.number == 2:
            raise KeyboardInterrupt
        return True

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "finish", interrupting)
        with pytest.raises(KeyboardInterrupt):
            simulate(given, output=tmp_path / "parts")
    assert resume_run(tmp_path / "parts").summary["fam_sha256"] == whole


def test_a_round_that_is_opened_again_is_charged_again(noise_in_shares, tmp_path, monkeypatch):
    """Fresh noise in the second attempt: it is another release, and the target counts both."""
    completed = simulation.RunEvidence.round_completed

    def interrupting(self, number, *args):
        if number == 2 and not getattr(interrupting, "done", False):
            interrupting.done = True
            raise KeyboardInterrupt
        return completed(self, number, *args)

    monkeypatch.setattr(simulation.RunEvidence, "round_completed", interrupting)
    with pytest.raises(KeyboardInterrupt):
        simulate(noise_in_shares(), output=tmp_path / "run")
    with pytest.raises(TargetEpsilonError):
        resume_run(tmp_path / "run")
    rounds = [
        event.fields["round"]
        for event in read_events(tmp_path / "run" / "audit.jsonl")
        if event.kind == "privacy_event"
    ]
    assert rounds == [1, 2, 2]


# ------------------------------------------------------------------------------------------------------ the two ends


def test_a_vector_that_is_not_finite_counts_as_zero(noise_in_shares):
    given = noise_in_shares("hospital", noise_multiplier=2.0)
    identities = {site: IdentityKey.generate(system_entropy) for site in SITES}
    terms = SumTerms(given, Roster.of(identities), WIDTH, 3)
    site = terms.channels.noisy.site("site0")
    assert isinstance(site, NoisySite)
    from securefed.compression import Contribution

    codec = terms.channels.noisy.codec()
    broken = np.full(terms.initial_vector.size, np.nan, np.float32)
    site.encode(1, codec.digest, Contribution(broken, 0.0), [_seed()] * codec.plan.excess)


def _seed():
    from protocols.secret_values import NoiseSeed

    return NoiseSeed(bytes(32))


def test_a_site_refuses_a_round_that_could_be_opened_over_fewer_shares_than_the_noise_is_sized_for(noise_in_shares):
    """Ten hospitals, threshold 7: a server that asks for sums over 6 would get six sevenths of the noise."""
    identities = {f"site{number:02d}": IdentityKey.generate(system_entropy) for number in range(10)}
    for dropout_noise in ("conservative", "xnoise"):
        terms = SumTerms(
            noise_in_shares(dropout_noise=dropout_noise, noise_multiplier=2.0), Roster.of(identities), WIDTH, 3
        )
        parameters = terms.parameters(terms.channels.noisy.codec(), 1)
        assert parameters.min_survivors == terms.noise.request.min_survivors == 7
        terms.policy().check(parameters, terms.roster)
        fewer = dataclasses.replace(
            parameters,
            threat_model=ThreatModel.SEMI_HONEST,
            threshold=6,
            min_survivors=6,
            excess=4 if parameters.excess else 0,
        )
        lenient = dataclasses.replace(terms.policy(), min_threshold=3)
        with pytest.raises(PolicyError, match="min_survivors"):
            lenient.check(fewer, terms.roster)


def test_the_step_is_sgd_with_momentum_on_public_constants():
    step = MomentumStep(learning_rate=0.5, decay=0.5, momentum=0.9, weight_decay=0.1, divisor=4.0)
    vector, velocity = np.array([1.0, -2.0]), np.array([0.1, 0.2])
    update, moved = step(np.array([4.0, 8.0]), vector, velocity, 3)
    np.testing.assert_allclose(moved, [1.09, 2.18])
    np.testing.assert_allclose(update, -0.125 * moved - 0.0125 * vector)


def test_central_training_with_the_same_noise_is_as_good(tmp_path):
    """Ten hospitals with shares of Skellam noise, and one trainer with all images and Gaussian noise of that sigma."""
    rounds, z = 12, 3.0
    data = bundle(sites=10, train=40)
    tree = {
        "privacy": {"mode": "distributed", "noise_multiplier": z, "normaliser": 20.0},
        "federation": {"rounds": rounds, "device": "cpu", "method": "fedclip"},
        "training": {"fam_width": 4},
        "secure_aggregation": {"enabled": False},  # the same integers, in half the time
    }
    config = config_from_mapping(tree)
    identities = {site.site: IdentityKey.generate(system_entropy) for site in data.sites}
    terms = SumTerms(config, Roster.of(identities), WIDTH, 3)
    channel = terms.channels.noisy
    reached = {"shares": [], "central": []}
    for seed in range(3):
        hospitals = SummingHospitals(data, config, "cpu", {}, 1)
        nodes = SimulatedSites(identities, terms, hospitals)
        aggregator = Aggregator(terms, nodes, nodes, verifier=nodes.verifier)
        vector = terms.initial_vector
        for number in range(1, rounds + 1):
            vector = (vector + aggregator.open_round(number, vector).mean_update).astype(np.float32)
        reached["shares"].append(_accuracy(hospitals, vector))
        rng, step = np.random.default_rng(seed), channel.server()._step
        central, velocity = terms.initial_vector, np.zeros(terms.initial_vector.size)
        for number in range(1, rounds + 1):
            total = sum(hospitals.train(site.site, central, number).astype(float) for site in data.sites)
            total += rng.normal(0, z * config.privacy.clip_norm, total.size)
            update, velocity = step(total, central.astype(float), velocity, number)
            central = (central + update).astype(np.float32)
        reached["central"].append(_accuracy(hospitals, central))
    start = _accuracy(hospitals, terms.initial_vector)
    shares, trainer = (float(np.mean(values)) for values in reached.values())
    assert shares > start + 0.05, "nothing was learned"
    # 200 test images, three runs each: a difference of means above 0.12 would be six standard errors.
    assert abs(shares - trainer) < 0.12, reached


def _accuracy(hospitals, vector):
    parts = [hospitals.predict(site, vector, "test")["fam"].argmax(axis=1) for site in hospitals.sites]
    labels = [hospitals._hospitals[site].site.test.labels for site in hospitals.sites]
    return float(np.mean(np.concatenate(parts) == np.concatenate(labels)))
