"""Secure aggregation against the hardware's floor and against Flower's SecAgg+, side by side.

    python benchmarks/secure_aggregation.py                  # everything; needs requirements-secure-aggregation.txt
    python benchmarks/secure_aggregation.py --quick          # small vectors, small cohorts, seconds
    python benchmarks/secure_aggregation.py --no-flower --clients 10 100

Each case runs in a process of its own, so that its peak memory is its own; a case that compares with Flower runs both
in the same process, one after the other. Times are processor seconds of one thread (the machine may be shared): the
least of several repetitions for short ones. Ratios are taken within one process.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from protocols.client.machine import ClientMachine
from protocols.codec import FixedPointCodec
from protocols.driver import run_round
from protocols.entropy import ReproducibleEntropy, system_entropy
from protocols.key_agreement import AgreementKey, Endpoint, pairwise_seed, public_key
from protocols.masking import mask
from protocols.pads import Pad
from protocols.parameters import RoundParameters
from protocols.plan import plan
from protocols.policy import ClientPolicy
from protocols.ring import lane_dtype, required_ring_bits
from protocols.roster import IdentityKey, RememberingVerifier, Roster
from protocols.secret_values import MaskKey, PairwiseSeed
from protocols.server.machine import ServerMachine
from protocols.session import SessionKeys
from protocols.shamir import combine, split
from protocols.stages import ThreatModel
from protocols.transport import InProcessTransport
from protocols.vectors import EncodedVector

LENGTH = 526_336
VALUE_BITS = 16
MASKING_NEIGHBOURS = (10, 50, 100)
LARGE = {"neighbours": 106, "threshold": 75, "corrupt": 100, "min_survivors": 900}
"""n = 1000: one in ten colludes, one in ten is lost; a client is exposed with probability below 2**-40."""
AS_SIMULATED = (0.2, 0.1)
"""Colluders and losses that a simulation's ring withstands, shares of the cohort (protocols/plan.py finds the ring)."""
HALF = {"neighbours": 50, "threshold": 30, "corrupt": 9}
"""n = 100 with 50 neighbours, the case that is compared with Flower's 51 shares and threshold 30."""


def spent(action, repetitions=1):
    """Return the least (wall, processor) seconds of an action."""
    walls, cpus = [], []
    for _ in range(repetitions):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


CHUNK = 1 << 18
ZEROS = memoryview(bytes(CHUNK))


def floor(lanes, keys):
    """AES-256-CTR keystreams added to lanes, 256 KiB at a time: what the hardware needs, without anything else."""
    streams = [Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor() for key in keys]
    buffer = bytearray(CHUNK)
    words = np.frombuffer(buffer, dtype=lanes.dtype)
    for start in range(0, len(lanes), len(words)):
        part = lanes[start : start + len(words)]
        plain, keystream = ZEROS[: part.nbytes], words[: len(part)]
        for stream in streams:
            stream.update_into(plain, buffer)
            np.add(part, keystream, out=part)


def masking_case(neighbours, length, repetitions, flower):
    """One client's masking: pads alone, and with the key agreements that make them."""
    bits = required_ring_bits(neighbours + 1, (1 << VALUE_BITS) - 2)
    encoded = EncodedVector(np.full(length, 1000, dtype=np.uint32), (1 << VALUE_BITS) - 2)
    own = AgreementKey(MaskKey(os.urandom(32)))
    here = Endpoint(0, bytes(32), "own")
    peers = [Endpoint(i + 1, public_key(MaskKey(os.urandom(32))), "peer") for i in range(neighbours)]
    session = SessionKeys(bytes(32), bytes(32))
    lanes = np.zeros(length, dtype=lane_dtype(bits))

    def pads():
        seeds = [PairwiseSeed(os.urandom(32)) for _ in range(neighbours + 1)]
        return [Pad(seed, negative=i % 2 == 0) for i, seed in enumerate(seeds)]

    def with_agreement():
        made = [Pad(pairwise_seed(own, here, peer, session), negative=False) for peer in peers]
        mask(encoded, [*made, Pad(PairwiseSeed(os.urandom(32)), negative=False)], bits)

    figures = {"floor": [], "pads": [], "pads and agreement": []}
    for _ in range(repetitions):
        keys, ready = [os.urandom(32) for _ in range(neighbours + 1)], pads()
        figures["floor"].append(spent(lambda keys=keys: floor(lanes, keys))[1])
        figures["pads"].append(spent(lambda ready=ready: mask(encoded, ready, bits))[1])
        figures["pads and agreement"].append(spent(with_agreement)[1])
    result = {what: min(times) for what, times in figures.items()}
    ratios = [a / b for a, b in zip(figures["pads"], figures["floor"], strict=True)]
    result |= {"median ratio": statistics.median(ratios), "ratio": result["pads"] / result["floor"], "ring bits": bits}
    if flower:
        from flower_round import masking

        result["flower"] = spent(masking(neighbours, length), 3)[1]
    return result


def shamir_case(clients, repetitions, flower):
    """Split both secrets of a client, rebuild one."""
    threshold = (clients + clients // 5) // 2 + 1
    holders = list(range(1, clients + 1))
    both = os.urandom(32), os.urandom(32)
    split(both, holders, threshold, system_entropy)  # tables that all clients of a process share
    result = {"threshold": threshold}
    result["split"] = spent(lambda: split(both, holders, threshold, system_entropy), repetitions)[1]
    shares = split(both, holders, threshold, system_entropy)[0][:threshold]
    points = holders[:threshold]
    if combine(points, shares) != both[0]:
        raise RuntimeError("shares do not rebuild the secret")
    result["combine"] = spent(lambda: combine(points, shares), repetitions)[1]
    if flower and clients <= 100:
        from flower_round import combine_shares, create_shares, secrets

        seed, key = secrets()
        made = []
        result["flower split"] = spent(
            lambda: made.extend(create_shares(secret, threshold, clients) for secret in (seed, key))
        )[1]
        result["flower combine seed"] = spent(lambda: combine_shares(made[0][:threshold]))[1]
        result["flower combine key"] = spent(lambda: combine_shares(made[1][:threshold]))[1]
    return result


def federation(clients, length, choices):
    """n clients that contribute the same update; each encodes it itself."""
    codec = FixedPointCodec([length], [0.5], VALUE_BITS)
    names = [f"site-{i:04d}" for i in range(clients)]
    entropy = {name: ReproducibleEntropy(hashlib.sha256(name.encode()).digest()) for name in names}
    identities = {name: IdentityKey.generate(entropy[name]) for name in names}
    roster, verifier = Roster.of(identities), RememberingVerifier()
    update = np.random.default_rng(0).uniform(-0.5, 0.5, length).astype(np.float32)
    policy = ClientPolicy(min_corrupt=0, complete_up_to=2, min_sigma=40 if clients > 100 else None)

    def contribute(_):
        return codec.encode(update, np.random.default_rng(1))

    machines = {
        name: ClientMachine(identities[name], roster, policy, contribute, entropy[name], verifier=verifier)
        for name in names
    }
    choices = {"corrupt": clients // 5} | choices
    choices["threat_model"] = ThreatModel(choices.get("threat_model", ThreatModel.ACTIVE))  # came as JSON
    parameters = RoundParameters.choose(round=1, roster=roster, codec=codec, config_digest=bytes(32), **choices)
    return names, machines, ServerMachine(parameters, roster, b"", verifier=verifier), update, codec


def round_case(clients, length, choices, lost):
    """A whole round in one process: every client, every message, encoding, signatures, consistency."""
    names, machines, server, update, codec = federation(clients, length, choices)
    transport = InProcessTransport(machines, {(name, 1): "MaskedInputCollection" for name in names[:lost]})
    figures, conclude, since = {}, server.conclude, [time.perf_counter(), time.process_time()]

    def timed(stage):
        figures[f"{stage} exchange"] = time.process_time() - since[1]
        started = time.process_time()
        conclude(stage)
        figures[f"{stage} conclude"] = time.process_time() - started
        since[1] = time.process_time()

    server.conclude = timed
    started = time.perf_counter(), time.process_time()
    result = run_round(server, transport)
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    if len(result.survivors) != clients - lost:
        raise RuntimeError("wrong survivors")
    mean = codec.decode_mean(result.total, len(result.survivors))
    if np.abs(mean - update).max() > 2 / (1 << VALUE_BITS):
        raise RuntimeError("wrong sum")
    first = names[-1]
    frames = [frame for frame in result.frames if frame.client == first]
    up = {}
    for frame in frames:
        if frame.direction == "up":
            up[frame.kind.value] = up.get(frame.kind.value, 0) + frame.bytes
    return {
        "clients": clients,
        "wall": wall,
        "cpu": cpu,
        "unmask": figures["Unmasking conclude"],
        "stages": figures,
        "bytes up": sum(up.values()),
        "bytes up by kind": up,
        "bytes down": sum(frame.bytes for frame in frames if frame.direction == "down"),
        "of float32": sum(up.values()) / (4 * length),
        "ring bits": server.parameters.ring_bits,
        "neighbours": server.parameters.neighbours,
        "threshold": server.parameters.threshold,
        "lost": lost,
    }


def compare_case(clients, length, lost):
    """The same round here and with Flower, in one process: 50 neighbours and threshold 30 of 100 clients."""
    from flower_round import run

    degree = min(HALF["neighbours"], (clients // 2) & ~1)
    threshold = degree * 3 // 5
    choices = {"neighbours": degree, "threshold": threshold, "corrupt": clients // 11}
    ours = round_case(clients, length, choices, lost)
    started = time.perf_counter(), time.process_time()
    stages = run(clients, degree + 1, threshold, lost, length)
    theirs = {
        "wall": time.perf_counter() - started[0],
        "cpu": time.process_time() - started[1],
        "unmask": stages["unmask_stage/server"][1],
        "stages": {name: cpu for name, (_, cpu) in stages.items()},
        "bytes up": 8 * length,
    }
    return {"ours": ours, "flower": theirs, "ratio": theirs["cpu"] / ours["cpu"]}


CASES = {
    "masking": lambda o: masking_case(o["neighbours"], o["length"], o["repetitions"], o["flower"]),
    "shamir": lambda o: shamir_case(o["clients"], o["repetitions"], o["flower"]),
    "round": lambda o: round_case(o["clients"], o["length"], o["choices"], o["lost"]),
    "compare": lambda o: compare_case(o["clients"], o["length"], o["lost"]),
}


def run_case(kind, **options):
    """Run one case in a process of its own."""
    print(f"{kind} {options}", file=sys.stderr)
    command = [sys.executable, str(Path(__file__)), "--case", json.dumps({"kind": kind, **options})]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "FLWR_TELEMETRY_ENABLED": "0"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def run_child(text):
    options = json.loads(text)
    figures = CASES[options.pop("kind")](options)
    figures["peak MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures))


def measure(options):
    """Run all cases; return their figures."""
    length, flower = options.length, not options.no_flower
    repetitions = 3 if options.quick else 9
    figures = {"masking": {}, "shamir": {}, "round": {}, "compare": {}}
    for neighbours in MASKING_NEIGHBOURS[:2] if options.quick else MASKING_NEIGHBOURS:
        figures["masking"][neighbours] = run_case(
            "masking", neighbours=neighbours, length=length, repetitions=repetitions, flower=flower
        )
    for clients in options.clients:
        figures["shamir"][clients] = run_case("shamir", clients=clients, repetitions=repetitions, flower=flower)
    for clients in options.clients:
        cohorts = {str(clients): LARGE if clients == 1000 else {}}
        if clients > 100:
            cohorts[f"{clients}, as simulated"] = plan(clients, *AS_SIMULATED).choices
        for name, choices in cohorts.items():
            lost = max(1, clients // 20)
            figures["round"][name] = run_case("round", clients=clients, length=length, choices=choices, lost=lost)
    if flower:
        clients = 20 if options.quick else 100
        figures["compare"][clients] = run_case("compare", clients=clients, length=length, lost=clients // 20)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=None, help="sizes of the cohorts: 10 50 100 1000")
    parser.add_argument("--length", type=int, default=None, help=f"coordinates, {LENGTH} unless --quick")
    parser.add_argument("--quick", action="store_true", help="small vectors and cohorts")
    parser.add_argument("--no-flower", action="store_true", help="leave out the comparison with Flower")
    parser.add_argument("--output", type=Path, default=None, help="folder for secure-aggregation.md, .json and .png")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run_child(options.case)
        return
    options.clients = options.clients or ([10, 20] if options.quick else [10, 50, 100, 1000])
    options.length = options.length or (20_000 if options.quick else LENGTH)
    from secure_aggregation_report import report

    report(measure(options), options.length, VALUE_BITS, options.output, targets=options.length == LENGTH)


if __name__ == "__main__":
    main()
