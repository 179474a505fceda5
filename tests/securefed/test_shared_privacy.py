"""Runs whose hospitals add noise in shares: exact, calibrated, charged before the sum is opened, stopped in time."""

import dataclasses
import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import load_file

from audit.accounting import Adjacency, Gaussian, Repeated, rdp_epsilon, upper_epsilon
from audit.ledger import Budget, BudgetExceededError, BudgetLine, Ledger, Policy
from audit.log import read_events
from audit.verify import verify_run
from clients.encoders import export_features
from protocols.entropy import system_entropy
from protocols.errors import PolicyError
from protocols.roster import IdentityKey, Roster
from protocols.stages import ThreatModel
from securefed import simulation
from securefed.aggregation import Aggregator
from securefed.config import config_from_mapping, load_config
from securefed.errors import ConfigError, TargetEpsilonError
from securefed.nodes.simulated import SimulatedSites
from securefed.noisy import MomentumStep, NoisySite
from securefed.privacy.shared_hospitals import SummingHospitals
from securefed.simulation import resume_run, simulate
from securefed.sum_terms import SumTerms
from tests.securefed.conftest import WIDTH, bundle

SITES = [f"site{number}" for number in range(5)]
LOST = {"drop": ["site1@2:MaskedInputCollection", "site3@3:Unmasking"]}


@pytest.fixture
def config(small_run):
    def make(mode="distributed", rounds=3, **privacy):
        sections = {key: privacy.pop(key) for key in ("simulation", "secure_aggregation") if key in privacy}
        given = {"mode": mode, **({} if "noise_multiplier" in privacy else {"epsilon": 8.0}), **privacy}
        return small_run(
            privacy=given, federation={"rounds": rounds, "device": "cpu"}, training={"fam_width": 4}, **sections
        )

    return make


@pytest.fixture
def small_run(features_file):
    def make(**sections):
        source = f"features:{features_file}"
        return config_from_mapping({"data": {"source": source}, "encoder": {"name": source}, **sections})

    return make


def kinds(folder, *names):
    return [event for event in read_events(folder / "audit.jsonl") if event.kind in names]


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


# ------------------------------------------------------------------------------------------------- what is recorded


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
def test_a_run_ends_below_its_epsilon_and_its_record_gives_the_same(config, tmp_path, mode):
    run = simulate(config(mode, simulation=LOST), output=tmp_path / "run")
    privacy = run.summary["privacy"]
    assert 0 < privacy["epsilon"] <= 8
    assert privacy["claim"].startswith("CLAIMED")
    assert privacy["unit"] == ("hospital" if mode == "hospital" else "image")
    assert privacy["epsilon_by_adversary"]["aggregate_only"] == privacy["epsilon"]
    assert privacy["epsilon_by_adversary"]["aggregation_broken"] > privacy["epsilon"]
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json").require()
    stated = {
        (e.fields["view"], e.fields.get("colluders", 0)): e.fields["upper"] for e in kinds(run.folder.path, "epsilon")
    }
    assert stated["aggregate-only", 0] == privacy["epsilon"]


def test_a_sum_is_charged_with_the_shares_that_arrived_before_it_is_opened(config, tmp_path):
    run = simulate(config(simulation=LOST), output=tmp_path / "run")
    order = [event.kind for event in kinds(run.folder.path, "round_started", "privacy_event", "round_completed")]
    assert order == ["round_started", "privacy_event", "round_completed"] * 3
    events = kinds(run.folder.path, "privacy_event")
    assert [event.fields["mechanism"]["shares"] for event in events] == [5, 4, 5]
    totals = [event.fields["mechanism"]["shares"] * event.fields["mechanism"]["share_variance"] for event in events]
    assert totals == pytest.approx([totals[0]] * 3)  # xnoise: exact for every number of losses
    (claim,) = kinds(run.folder.path, "privacy_claim")
    assert claim.fields["values"]["dropout_noise"] == "xnoise"


def test_conservative_shares_are_charged_as_they_arrive(config, tmp_path):
    run = simulate(config(dropout_noise="conservative", simulation=LOST), output=tmp_path / "run")
    mechanisms = [event.fields["mechanism"] for event in kinds(run.folder.path, "privacy_event")]
    assert [mechanism["shares"] for mechanism in mechanisms] == [5, 4, 5]
    assert len({mechanism["share_variance"] for mechanism in mechanisms}) == 1
    assert run.summary["privacy"]["epsilon"] < 8  # more noise than needed where nobody is lost


def test_epsilon_against_colluders_meets_the_target_and_is_stated(config, tmp_path):
    run = simulate(config(max_colluders=1), output=tmp_path / "run")
    views = run.summary["privacy"]["epsilon_by_adversary"]
    assert views["aggregate_only"] < views["colluders"]["1"] <= 8 < views["aggregation_broken"]
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json").require()


def test_discrete_gaussian_noise_is_charged_as_such(config, tmp_path):
    run = simulate(config(mechanism="discrete-gaussian"), output=tmp_path / "run")
    (mechanism, *_) = [event.fields["mechanism"] for event in kinds(run.folder.path, "privacy_event")]
    assert mechanism["type"] == "discrete-gaussian"
    assert run.summary["privacy"]["epsilon"] <= 8


def test_nothing_is_opened_where_the_charge_cannot_be_recorded(config, tmp_path, monkeypatch):
    def fails(self, number, survivors):
        raise OSError("disk full")

    monkeypatch.setattr("securefed.privacy.shared_run.SharedPrivacy.before_opening", fails)
    asked = []
    monkeypatch.setattr("protocols.client.survivors_signed.SurvivorsSigned._handle", lambda *a: asked.append(a))
    with pytest.raises(OSError, match="disk full"):
        simulate(config(), output=tmp_path / "run")
    assert asked == []
    assert kinds(tmp_path / "run", "round_completed") == []


def test_neither_scores_nor_clamp_counts_leave_with_a_noisy_sum(config, tmp_path):
    run = simulate(config(), output=tmp_path / "run")
    assert run.summary["config"]["federation"]["select"] == "last"
    described = kinds(run.folder.path, "protocol_described")[0].fields
    assert described["values"]["vector_length"] == described["dimension"]  # no coordinate more
    assert all("clamped" not in event.fields for event in kinds(run.folder.path, "round_completed"))


def test_ten_hospitals_state_epsilon_of_the_sum_and_of_one_share(tmp_path):
    """Ten shares: the sum has ten times the variance of one, and both are in summary and log."""
    path = tmp_path / "ten.safetensors"
    export_features(bundle(sites=10, train=12), path)
    tree = {
        "data": {"source": f"features:{path}"},
        "encoder": {"name": f"features:{path}"},
        "privacy": {"mode": "distributed", "noise_multiplier": 4.0},
        "training": {"fam_width": 4},
        "federation": {"rounds": 2, "device": "cpu"},
    }
    run = simulate(config_from_mapping(tree), output=tmp_path / "run")
    views = run.summary["privacy"]["epsilon_by_adversary"]
    whole, share = ([Repeated(Gaussian(z), 2)] for z in (4.0, 4.0 / 10**0.5))
    assert views["aggregate_only"] == pytest.approx(rdp_epsilon(whole, 1e-5), rel=0.01)
    assert views["aggregation_broken"] == pytest.approx(rdp_epsilon(share, 1e-5), rel=0.03)
    stated = {event.fields["view"]: event.fields["upper"] for event in kinds(tmp_path / "run", "epsilon")}
    assert stated == {"aggregate-only": views["aggregate_only"], "aggregation-broken": views["aggregation_broken"]}
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json").require()


# ------------------------------------------------------------------------------------------------------- who pays


def budgets(path, epsilon, unit="image"):
    signer = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    budget = Budget(epsilon, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
    with Ledger(path) as ledger:
        ledger.install(Policy({BudgetLine(site, unit): budget for site in SITES}))
    return str(path)


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
def test_every_hospital_pays_for_its_vector_before_it_leaves(config, tmp_path, monkeypatch, mode):
    path = budgets(tmp_path / "ledger.sqlite", 9.0, "hospital" if mode == "hospital" else "image")
    encode, paid = NoisySite.encode, []

    def watched(self, number, *args):
        with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
            paid.append((len(ledger.charges()), {spent.state for spent in ledger.charges()}))
        return encode(self, number, *args)

    monkeypatch.setattr(NoisySite, "encode", watched)
    run = simulate(config(mode, ledger=path, simulation=LOST), output=tmp_path / "run")
    # site1 is lost in round 2 before it has sent its vector, and pays for none
    assert paid == [(count, {"committed"}) for count in range(1, 15)]
    verify_run(tmp_path / "run", roster=tmp_path / "run" / "roster.json", ledger=tmp_path / "ledger.sqlite").require()
    with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
        composition = ledger.composition(BudgetLine("site0", "hospital" if mode == "hospital" else "image"))
    assert run.summary["privacy"]["epsilon"] <= upper_epsilon(composition, 1e-5) * (1 + 1e-9) <= 8 * (1 + 1e-9)
    with pytest.raises(BudgetExceededError):
        simulate(config(mode, ledger=path), output=tmp_path / "second")
    assert kinds(tmp_path / "second", "round_started") == []


def test_a_ledger_may_be_charged_the_share(config, tmp_path):
    path = budgets(tmp_path / "ledger.sqlite", 60.0)
    run = simulate(config(ledger=path, charge="share"), output=tmp_path / "run")
    with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
        spent = upper_epsilon(ledger.composition(BudgetLine("site0", "image")), 1e-5)
    assert spent == pytest.approx(run.summary["privacy"]["epsilon_by_adversary"]["aggregation_broken"])
    assert spent > run.summary["privacy"]["epsilon"]


def test_a_round_that_ends_before_its_sum_could_be_opened_has_no_event_and_is_paid_again(config, tmp_path, monkeypatch):
    """The log states sums: none was opened. A hospital cannot know that, and its ledger counts both vectors."""
    path = budgets(tmp_path / "ledger.sqlite", 20.0)
    exchange = SimulatedSites.exchange

    def cut(self, stage, requests, **more):
        if stage == "ConsistencyCheck" and not getattr(cut, "done", False):
            cut.done = True
            raise KeyboardInterrupt
        return exchange(self, stage, requests, **more)

    monkeypatch.setattr(SimulatedSites, "exchange", cut)
    with pytest.raises(KeyboardInterrupt):
        simulate(config(ledger=path, spare_rounds=1), output=tmp_path / "run")
    run = resume_run(tmp_path / "run")
    rounds = [event.fields["round"] for event in kinds(tmp_path / "run", "privacy_event")]
    assert rounds == [1, 2, 3]
    assert run.summary["privacy"]["epsilon"] <= 8
    with Ledger.existing(tmp_path / "ledger.sqlite") as ledger:
        of_one = [spent.charge.release_id for spent in ledger.charges() if spent.account.hospital == "site0"]
    assert of_one == [f"run/{number}/vector {k}/site0" for number, k in ((1, 1), (1, 2), (2, 1), (3, 1))]


# ------------------------------------------------------------------------------------------------ stopping, refusing


def test_a_round_that_would_exceed_the_target_is_refused_before_anything_is_sent(config, tmp_path):
    with pytest.raises(TargetEpsilonError) as refused:
        simulate(config(rounds=9, epsilon=8.0, noise_multiplier=1.5), output=tmp_path / "run")
    completed = len(kinds(tmp_path / "run", "round_completed"))
    assert refused.value.exit_code == 4
    assert refused.value.round_number == completed + 1
    assert 1 <= completed < 9
    assert len(kinds(tmp_path / "run", "privacy_event")) == completed
    assert len(kinds(tmp_path / "run", "round_started")) == completed
    (event,) = kinds(tmp_path / "run", "refused")
    assert event.fields["epsilon"] > 8


@pytest.mark.parametrize(
    ("privacy", "key"),
    [
        ({"max_colluders": 4}, "privacy.max_colluders"),
        ({"dropout_noise": "xnoise", "mechanism": "discrete-gaussian"}, "privacy.dropout_noise"),
        ({"dropout_noise": "xnoise", "noise": "seeded"}, "privacy.dropout_noise"),
        ({"dropout_noise": "xnoise", "secure_aggregation": {"enabled": False}}, "privacy.dropout_noise"),
        ({"ledger": "ledger.sqlite", "secure_aggregation": {"enabled": False}}, "privacy.charge"),
        ({"secure_aggregation": {"compression": "ring:4,subspace:0.125"}}, "secure_aggregation.compression"),
        ({"ring_bits": 15}, "privacy.ring_bits"),
        ({"mechanism": "laplace"}, "privacy.mechanism"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(config, tmp_path, privacy, key):
    with pytest.raises(ConfigError) as refused:
        simulate(config(**privacy), output=tmp_path / "run")
    assert refused.value.key == key


def test_a_whole_hospital_as_the_unit_is_said_to_be_poor(config, tmp_path):
    notes = []

    class Listening(simulation.Observer):
        def noted(self, text):
            notes.append(text)

    simulate(config("hospital"), output=tmp_path / "run", observer=Listening())
    assert any("Few hospitals cannot hide one of them" in note for note in notes)


# -------------------------------------------------------------------------------------------------- exactness, resume


@pytest.mark.parametrize("mode", ["distributed", "hospital"])
@pytest.mark.parametrize("losses", [{}, LOST], ids=["whole", "losses"])
def test_the_same_model_with_and_without_masks_given_the_same_noise(config, tmp_path, mode, losses):
    """Seeded noise, conservative shares: the masks change no bit."""
    digests = set()
    for enabled in (True, False):
        given = config(mode, noise="seeded", simulation=losses, secure_aggregation={"enabled": enabled})
        run = simulate(given, output=tmp_path / str(enabled))
        digests.add(run.summary["fam_sha256"])
        assert run.summary["privacy"]["claim"].startswith("NOT CLAIMED")
        verify_run(tmp_path / str(enabled), roster=tmp_path / str(enabled) / "roster.json").require()
    assert len(digests) == 1


def test_the_mlp_that_a_hospital_has_trained_is_the_one_that_is_kept(config, tmp_path):
    """Not the one that it began with: states are what is stored, resumed from and evaluated."""
    run = simulate(config(), output=tmp_path / "run")
    kept = load_file(run.folder.site("site0") / "mlp.safetensors")
    hospitals = SummingHospitals(bundle(), load_config(run.folder.config), "cpu", {})
    fresh = hospitals.private_states()["site0"]
    learned = [name for name in kept if name.endswith("weight") and not np.array_equal(kept[name], fresh[name])]
    assert learned, sorted(kept)


def test_fresh_noise_gives_another_model(config, tmp_path):
    digests = {simulate(config(rounds=1), output=tmp_path / str(i)).summary["fam_sha256"] for i in range(2)}
    assert len(digests) == 2


def test_in_clear_nothing_is_claimed(config, tmp_path):
    run = simulate(config(secure_aggregation={"enabled": False}), output=tmp_path / "run")
    assert run.summary["privacy"]["claim"].startswith("NOT CLAIMED: vectors were sent in clear")


def test_an_interrupted_run_goes_on_with_its_velocity(config, tmp_path, monkeypatch):
    given = config(noise="seeded")
    whole = simulate(given, output=tmp_path / "whole").summary["fam_sha256"]
    saved = simulation.save_checkpoint

    def interrupting(folder, checkpoint):
        saved(folder, checkpoint)
        if checkpoint.current.number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "save_checkpoint", interrupting)
    with pytest.raises(KeyboardInterrupt):
        simulate(given, output=tmp_path / "parts")
    monkeypatch.setattr(simulation, "save_checkpoint", saved)
    assert resume_run(tmp_path / "parts").summary["fam_sha256"] == whole


def test_a_round_that_is_opened_again_is_charged_again(config, tmp_path, monkeypatch):
    """Fresh noise in the second attempt: it is another release, and the target counts both."""
    completed = simulation.RunEvidence.round_completed

    def interrupting(self, number, *args):
        if number == 2 and not getattr(interrupting, "done", False):
            interrupting.done = True
            raise KeyboardInterrupt
        return completed(self, number, *args)

    monkeypatch.setattr(simulation.RunEvidence, "round_completed", interrupting)
    with pytest.raises(KeyboardInterrupt):
        simulate(config(), output=tmp_path / "run")
    with pytest.raises(TargetEpsilonError):
        resume_run(tmp_path / "run")
    rounds = [event.fields["round"] for event in kinds(tmp_path / "run", "privacy_event")]
    assert rounds == [1, 2, 2]


# ------------------------------------------------------------------------------------------------------ the two ends


def test_a_vector_that_is_not_finite_counts_as_zero(config):
    given = config("hospital", noise_multiplier=2.0)
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


def test_a_site_refuses_a_round_that_could_be_opened_over_fewer_shares_than_the_noise_is_sized_for(config):
    """Ten hospitals, threshold 7: a server that asks for sums over 6 would get six sevenths of the noise."""
    identities = {f"site{number:02d}": IdentityKey.generate(system_entropy) for number in range(10)}
    for dropout_noise in ("conservative", "xnoise"):
        terms = SumTerms(config(dropout_noise=dropout_noise, noise_multiplier=2.0), Roster.of(identities), WIDTH, 3)
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
