"""Excess noise through the protocol: exact for every number of losses, and a server cannot have more removed."""

import itertools
from functools import partial

import numpy as np
import pytest

import protocols.server.unmasking as server_unmasking
from protocols import (
    DecodeError,
    ReconstructionError,
    SurvivorSetError,
    ThreatModel,
    TooFewSurvivorsError,
)
from protocols.client.machine import ClientMachine
from protocols.client.noise_shares import return_noise
from protocols.messages import (
    ConsistencyCheckReply,
    NoisyMaskedInputRequest,
    NoisyShareKeysReply,
    NoisyUnmaskingReply,
    UnmaskingRequest,
    decode_message,
    encode_message,
)
from protocols.messages.consistency import SurvivorSet
from protocols.messages.noise_shares import DealtNoise
from protocols.secret_values import NoiseSeed, NoiseShare, SelfMaskShare
from protocols.simulator import Alter, Recorder, rewrite
from protocols.stages import Stage
from protocols.traffic import expected_traffic
from protocols.transport import Patience
from tests.protocols.hostile_server import at, flip, made_from_now_on
from tests.protocols.noise.checks import WrongNoiseError, check_deviation, check_white
from tests.protocols.noise.federation import NoisyFederation, excess_federation

CLIENTS, MIN_SURVIVORS = 7, 4
BEFORE_MASKING = [Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS, Stage.MASKED_INPUT_COLLECTION]
LIMIT = 1 << 24


def residual(federation: NoisyFederation, result) -> np.ndarray:
    true = sum(federation.vector(name).astype(float) for name in result.survivors)
    return federation.codec.decode_sum(result.total, len(result.survivors)) - true


# --------------------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize(("lost", "colluders"), [(0, 0), (1, 0), (2, 0), (3, 0), (2, 1)])
def test_what_is_left_has_the_agreed_deviation_for_every_number_of_losses(lost, colluders):
    """Within 1 % (65,536 coordinates in four rounds), white; with no loss, with some, with as many as can be borne."""
    found = []
    federation = excess_federation(CLIENTS, MIN_SURVIVORS, dimension=1 << 16, colluders=colluders)
    stages = itertools.cycle(BEFORE_MASKING)
    drops = dict(zip(federation.names[:lost], (stage.value for stage in stages), strict=False))
    for number in range(1, 5):
        result = federation.run(drops=drops, number=number)
        assert len(result.survivors) == CLIENTS - lost
        found.append(residual(federation, result))
    noise = np.concatenate(found)
    survivors = CLIENTS - lost
    claimed = np.sqrt(survivors / (survivors - colluders))  # of noise multiplier 1 and clip norm 1
    assert federation.codec.plan.deviation(survivors) == pytest.approx(claimed)
    check_deviation(noise, claimed)
    check_white(noise)


@pytest.mark.parametrize("after", [Stage.CONSISTENCY_CHECK, Stage.UNMASKING])
def test_a_client_that_is_lost_after_masking_is_in_the_sum_and_its_excess_is_removed(after):
    federation = excess_federation(CLIENTS, MIN_SURVIVORS, dimension=1 << 15)
    result = federation.run(drops={federation.names[2]: after.value, federation.names[4]: after.value})
    assert len(result.survivors) == CLIENTS
    check_deviation(residual(federation, result), federation.codec.plan.deviation(CLIENTS), 0.03)


def test_the_total_is_exactly_signals_and_the_components_that_stay(monkeypatch):
    """Integer by integer: nothing but the components above the number of losses has left."""
    federation = excess_federation(CLIENTS, MIN_SURVIVORS, dimension=200)
    added: dict[tuple[str, int], np.ndarray] = {}
    signals: dict[str, np.ndarray] = {}

    def contribute(context):
        codec, name = federation.codec, context.client
        seeds = [NoiseSeed(seed.expose()) for seed in context.excess]
        encoded = NoisyFederation.contribute(federation, context)
        noise = [codec.component(k, seed) for k, seed in enumerate(seeds, start=1)]
        added.update({(name, k): value for k, value in enumerate(noise, start=1)})
        signals[name] = encoded.lanes(62).astype(np.int64) - sum(noise)
        return encoded

    for name in federation.names:
        federation.machines[name] = federation.machine(name, contribute=contribute)
    result = federation.run(drops={federation.names[0]: "ShareKeys", federation.names[6]: "MaskedInputCollection"})
    expected = sum(signals[name] + added[name, 1] + added[name, 2] for name in result.survivors)
    size = 1 << federation.codec.plan.ring_bits
    assert np.array_equal((result.total.integers() - expected) % size, np.zeros(200, np.int64))


def test_semi_honest_rounds_remove_the_same():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS, dimension=1 << 15)
    federation.threat_model = ThreatModel.SEMI_HONEST
    result = federation.run(drops={federation.names[3]: "MaskedInputCollection"})
    check_deviation(residual(federation, result), federation.codec.plan.deviation(CLIENTS - 1), 0.03)


def test_bytes_are_those_of_the_formula():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    result, parameters = federation.run(), federation.parameters()
    expected = expected_traffic(
        CLIENTS,
        parameters.neighbours,
        parameters.threshold,
        parameters.threat_model,
        parameters.vector_length,
        parameters.ring_bits,
        len(b"a simulated global model"),
        parameters.excess,
    )
    for stage, traffic in expected.items():
        for way, size in (("down", traffic.down), ("up", traffic.up)):
            rows = [f for f in result.frames if (f.client, f.stage, f.direction) == ("site-000", stage.value, way)]
            assert sum(row.bytes for row in rows) == size, (stage, way)


# ------------------------------------------------------------------------------------- what a server may not have


def test_clients_return_shares_of_exactly_the_components_that_leave():
    """[M-39] With D clients of the cohort outside the survivor set, a client MUST return of each survivor the shares of
    the noise seeds D + 1 to e and of no other, and of a lost client none.
    """
    for lost in range(CLIENTS - MIN_SURVIVORS + 1):
        federation, recorder = excess_federation(CLIENTS, MIN_SURVIVORS), Recorder()
        drops = dict.fromkeys(federation.names[:lost], "MaskedInputCollection")
        federation.run(recorder, drops=drops)
        dealt = recorder.find("ShareKeys", "site-006", "up")
        _, dealing = decode_message(NoisyShareKeysReply, dealt, LIMIT)
        assert len(dealing.seed_commitments) == 3
        _, reply = decode_message(NoisyUnmaskingReply, recorder.find("Unmasking", "site-005", "up"), LIMIT)
        assert reply.removed == 3 - lost
        assert set(reply.noise) == set(range(lost, CLIENTS))
        assert all(len(shares) == 3 - lost for shares in reply.noise.values())


def test_the_shares_that_are_returned_are_the_last_ones():
    parameters = excess_federation(CLIENTS, MIN_SURVIVORS).parameters()
    held = {owner: tuple(NoiseShare(bytes([owner, k]) + bytes(34)) for k in (1, 2, 3)) for owner in range(CLIENTS)}
    returned = return_noise(held, SurvivorSet.of(CLIENTS, {0, 2, 3, 4, 6}), parameters)
    assert {owner: [share.expose()[1] for share in shares] for owner, shares in returned.items()} == {
        owner: [3] for owner in (0, 2, 3, 4, 6)
    }


def at_unmasking(federation, drops):
    """A round that stops before Unmasking: the server's requests and all signatures over the true survivor set."""
    recorder, server = Recorder(), federation.server()
    transport = federation.transport(recorder, drops=drops)
    for stage in server.stages[:-1]:
        replies, _ = transport.exchange(stage.value, server.requests(stage.value), round_id=1, patience=Patience())
        for client, reply in replies:
            server.absorb(stage.value, {client: reply})
        server.conclude(stage.value)
    signatures = {
        federation.names.index(name): decode_message(ConsistencyCheckReply, frame, LIMIT)[1].signature
        for stage, name, way, frame in recorder.transcript
        if (stage, way) == ("ConsistencyCheck", "up")
    }
    return server, signatures


def test_a_server_that_counts_a_lost_client_as_a_survivor_gets_nothing():
    """With the larger set one component more would leave, and the noise would be too small."""
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    server, signatures = at_unmasking(federation, {federation.names[0]: "MaskedInputCollection"})
    everybody = SurvivorSet.of(CLIENTS, set(range(CLIENTS)))
    frame = encode_message(UnmaskingRequest(everybody, signatures), 1, server.session_id)
    for name in federation.names[1:]:
        with pytest.raises(SurvivorSetError):
            federation.machines[name].handle("Unmasking", frame)


def test_a_client_does_not_answer_twice():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    server, _ = at_unmasking(federation, {})
    requests = server.requests("Unmasking")
    name = federation.names[1]
    federation.machines[name].handle("Unmasking", requests[name])
    with pytest.raises(Exception, match="AdvertiseKeys"):
        federation.machines[name].handle("Unmasking", requests[name])


def test_removing_everything_whatever_was_lost_is_caught(monkeypatch):
    """The weakened build: clients return all components. The noise is too small, and calibration says so."""
    monkeypatch.setattr(
        "protocols.client.received_shares.return_noise",
        lambda held, survivors, parameters: {o: s for o, s in held.items() if o in survivors.positions},
    )
    monkeypatch.setattr(
        "protocols.client.received_shares.NoisyUnmaskingReply",
        lambda plain, removed, noise: NoisyUnmaskingReply(plain, 3, noise),
    )
    remove = server_unmasking.NoiseRemoval.__init__

    def greedy(self, session, dealings, survivors):
        remove(self, session, dealings, survivors)
        self.components = range(1, 4)
        self._shares = {(owner, component): {} for owner in self._owners for component in self.components}

    monkeypatch.setattr(server_unmasking.NoiseRemoval, "__init__", greedy)
    federation = excess_federation(CLIENTS, MIN_SURVIVORS, dimension=1 << 15)
    result = federation.run(drops={federation.names[0]: "MaskedInputCollection"})
    with pytest.raises(WrongNoiseError, match="standard deviation"):
        check_deviation(residual(federation, result), federation.codec.plan.deviation(CLIENTS - 1), 0.03)


# ------------------------------------------------------------------------------------------- shares and their checks


def wrong_shares(frame, of=range(CLIENTS)):
    def change(reply):
        spoilt = {
            owner: tuple(NoiseShare(bytes(36)) for _ in shares) if owner in of else shares
            for owner, shares in reply.noise.items()
        }
        return NoisyUnmaskingReply(reply.plain, reply.removed, spoilt)

    return rewrite(frame, NoisyUnmaskingReply, change)


def test_a_holder_that_returns_wrong_shares_is_named_and_the_round_ends_well():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS, dimension=1 << 15)
    liar = federation.names[3]
    result = federation.run(Alter("Unmasking", "up", wrong_shares, liar))
    assert {rejection.client for rejection in result.rejections} == {liar}
    check_deviation(residual(federation, result), federation.codec.plan.deviation(CLIENTS), 0.03)


def test_too_few_right_shares_end_the_round():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    liars = [Alter("Unmasking", "up", wrong_shares, name) for name in federation.names[:4]]
    with pytest.raises(TooFewSurvivorsError) as caught:
        federation.run(*liars)
    assert (caught.value.survivors, caught.value.required, caught.value.shares_of) == (3, 4, "")


def test_too_few_right_shares_of_one_client_name_it():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    forge = partial(wrong_shares, of=[5])
    liars = [Alter("Unmasking", "up", forge, name) for name in federation.names[:4]]
    with pytest.raises(TooFewSurvivorsError) as caught:
        federation.run(*liars)
    assert (caught.value.survivors, caught.value.required, caught.value.shares_of) == (3, 4, federation.names[5])


def test_a_client_whose_shares_rebuild_another_seed_than_it_committed_to_ends_the_round():
    """[M-40] The server MUST verify every rebuilt noise seed with its commitment, MUST take exactly the components
    D + 1 to e of each survivor out of the sum, and MUST end the round where one cannot be rebuilt.
    """
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)

    def other_commitments(reply):
        return NoisyShareKeysReply(reply.plain, tuple(bytes(32) for _ in reply.seed_commitments), reply.noise)

    change = Alter("ShareKeys", "up", lambda frame: rewrite(frame, NoisyShareKeysReply, other_commitments), "site-002")
    with pytest.raises(ReconstructionError, match="site-002"):
        federation.run(change)


def test_sealed_noise_shares_that_do_not_open_are_reported():
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)

    def spoil(request):
        noise = {d: DealtNoise(n.commitments, bytes(len(n.sealed))) if d == 1 else n for d, n in request.noise.items()}
        return NoisyMaskedInputRequest(request.plain, noise)

    change = Alter(
        "MaskedInputCollection", "down", lambda frame: rewrite(frame, NoisyMaskedInputRequest, spoil), "site-005"
    )
    result = federation.run(change)
    assert result.complaints == {"site-005": ("site-001",)}
    assert len(result.survivors) == CLIENTS


@pytest.mark.parametrize(
    "change",
    [
        lambda reply: NoisyShareKeysReply(reply.plain, reply.seed_commitments[1:], reply.noise),
        lambda reply: NoisyShareKeysReply(
            reply.plain, reply.seed_commitments, {h: n for h, n in reply.noise.items() if h}
        ),
        lambda reply: NoisyShareKeysReply(
            reply.plain,
            reply.seed_commitments,
            {h: DealtNoise(n.commitments[:1], bytes(64) if n.sealed else b"") for h, n in reply.noise.items()},
        ),
    ],
)
def test_a_dealing_of_the_wrong_form_puts_only_its_dealer_out(change):
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    liar = federation.names[1]
    result = federation.run(Alter("ShareKeys", "up", lambda f: rewrite(f, NoisyShareKeysReply, change), liar))
    assert liar not in result.survivors
    assert [type(rejection.error) for rejection in result.rejections] == [DecodeError]


@pytest.mark.parametrize(
    "change",
    [
        lambda reply: NoisyUnmaskingReply(reply.plain, 1, {o: s[:1] for o, s in reply.noise.items()}),
        lambda reply: NoisyUnmaskingReply(reply.plain, 3, {**reply.noise, 0: next(iter(reply.noise.values()))}),
    ],
)
def test_a_reply_for_other_components_or_owners_counts_for_nothing(change):
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    liar = federation.names[2]
    result = federation.run(
        Alter("Unmasking", "up", lambda f: rewrite(f, NoisyUnmaskingReply, change), liar),
        drops={federation.names[0]: "MaskedInputCollection"},
    )
    assert [rejection.client for rejection in result.rejections] == [liar]


# ---------------------------------------------------------------------------------------------- parameters, secrets


def test_seeds_are_erased_at_masking_and_shares_after_unmasking(monkeypatch):
    """[M-41] A client MUST erase its noise seeds when its vector is masked, and the shares that it holds after
    Unmasking.
    """
    secrets = made_from_now_on(monkeypatch)
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    at_unmasking(federation, {})
    made = [secret for secret in secrets if isinstance(secret, NoiseSeed)]
    assert len(made) == CLIENTS * 4
    assert all(seed.is_erased for seed in made)
    state = federation.machines["site-001"]._state
    held = list(state._secrets())
    assert sum(isinstance(secret, NoiseShare) for secret in held) == 3 * CLIENTS
    other = excess_federation(CLIENTS, MIN_SURVIVORS)
    other.run()
    assert all(machine._state is None for machine in other.machines.values())
    federation.machines["site-001"].abandon()
    assert all(secret.is_erased for secret in held)


def test_shares_of_a_dealer_whose_noise_does_not_open_are_erased(monkeypatch):
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    machine, request = at(federation, Stage.MASKED_INPUT_COLLECTION)
    made = made_from_now_on(monkeypatch)
    machine.handle(Stage.MASKED_INPUT_COLLECTION.value, flip(request, len(request) - 1))
    held = {id(secret) for secret in machine._state._secrets()}
    left = [secret for secret in made if not secret.is_erased and id(secret) not in held]
    assert sum(isinstance(secret, SelfMaskShare) for secret in made) == CLIENTS - 1
    assert not left


@pytest.mark.parametrize("stage", [Stage.MASKED_INPUT_COLLECTION, Stage.CONSISTENCY_CHECK, Stage.UNMASKING])
def test_a_client_that_is_stored_between_stages_ends_with_the_same_sum(stage):
    federation = excess_federation(CLIENTS, MIN_SURVIVORS)
    whole = excess_federation(CLIENTS, MIN_SURVIVORS).run().total.integers()
    name = federation.names[1]
    first = federation.machines[name]

    class Stored:
        machine = first

        def answer(self, at, data):
            if at == stage.value:
                self.machine = ClientMachine.load(
                    self.machine.dump(),
                    federation.identities[name],
                    federation.roster,
                    federation.policy,
                    federation.contribute,
                    federation.entropy[name],
                )
            return self.machine.answer(at, data)

    federation.machines[name] = Stored()
    assert np.array_equal(federation.run().total.integers(), whole)
