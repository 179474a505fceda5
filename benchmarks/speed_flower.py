# ruff: noqa: ARG001, ARG002 (Flower calls these with arguments that are not needed)
"""Rounds and whole runs against Flower's simulation (its Ray backend), with the same work at the clients.

Overhead: ten clients whose work is to return ten numbers; the wall time of a round, from the second one on. Flower
averages in clear; ours is measured in clear and under masks. Whole runs: the same hospitals of the same cohort train
the same rounds, in Flower as a NumPyClient and averaged in clear, here in the simulation under masks.
"""

import argparse
import json
import os
import statistics
import sys
import time
import typing
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])

import flwr  # noqa: E402
import numpy as np  # noqa: E402
from flwr.client import ClientApp, NumPyClient  # noqa: E402
from flwr.common import ndarrays_to_parameters  # noqa: E402
from flwr.server import ServerApp, ServerAppComponents, ServerConfig  # noqa: E402
from flwr.server.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402

TRIVIAL_CLIENTS = 10
TRIVIAL = 10
COHORT = 6
IMAGES = 640


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    from speed_cohort import machine
    from speed_report import add

    result = {"machine": machine(flwr=flwr.__version__), "rounds": rounds, "cohort": [COHORT, IMAGES]}
    marks, total = flower(TrivialClient, TRIVIAL_CLIENTS, np.zeros(TRIVIAL, np.float32), rounds)
    result["flower"] = {"round_s": statistics.median(np.diff(marks)), "total_s": total}
    result["ours"] = {name: trivial_round(secure) for name, secure in (("plain_s", False), ("secure_s", True))}
    marks, total = flower(HospitalClient, COHORT, start_vector(), rounds)
    result["flower_run"] = {"round_s": statistics.median(np.diff(marks)), "total_s": total}
    result["our_run"] = our_run(rounds)
    print(json.dumps(result))
    command = f"python benchmarks/speed_flower.py --rounds {rounds}"
    add(arguments.output, {"flower": [result]}, command)


def flower(client, clients, vector, rounds):
    """Wall-clock marks after each round, and the seconds of the whole simulation."""
    marks = []

    def after_a_round(number, parameters, config):
        marks.append(time.perf_counter())

    def server(context):
        strategy = FedAvg(
            fraction_evaluate=0.0,
            min_fit_clients=clients,
            min_available_clients=clients,
            initial_parameters=ndarrays_to_parameters([vector]),
            evaluate_fn=after_a_round,
        )
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))

    start = time.perf_counter()
    run_simulation(
        server_app=ServerApp(server_fn=server),
        client_app=ClientApp(client_fn=lambda context: client(context).to_client()),
        num_supernodes=clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    return marks[1:], time.perf_counter() - start


class TrivialClient(NumPyClient):
    """Returns what it gets."""

    def __init__(self, context):
        del context

    def fit(self, parameters, config):
        return parameters, 1, {}


class HospitalClient(NumPyClient):
    """A hospital of the cohort; what it keeps to itself stays in the memory of its process."""

    known: typing.ClassVar = {}

    def __init__(self, context):
        self.number = int(context.node_config["partition-id"])

    def fit(self, parameters, config):
        import torch

        from clients.method.hospital import Hospital
        from clients.method.settings import TrainingSettings

        if self.number not in self.known:
            torch.set_num_threads(1)
            bundle = the_cohort()
            site = bundle.sites[self.number]
            self.known[self.number] = [
                Hospital(site, bundle.text_features, bundle.logit_scale, TrainingSettings.default()),
                0,
            ]
        hospital, number = self.known[self.number]
        self.known[self.number][1] = number + 1
        update = hospital.train_round(parameters[0], number + 1)
        return [parameters[0] + update], 1, {}


def the_cohort():
    from speed_cohort import cohort

    return cohort([IMAGES] * COHORT, [64] * COHORT, [64] * COHORT)


def start_vector():
    from clients.method.layout import initial_vector
    from clients.method.settings import TrainingSettings

    return initial_vector(512, TrainingSettings.default(), 0)


def trivial_round(secure):
    """Median wall seconds of a round of ten clients that return ten numbers."""
    from protocols import ClientMachine, FixedPointCodec, InProcessTransport, PlainClient, run_plain_round, run_round
    from protocols.entropy import system_entropy
    from protocols.parameters import RoundParameters
    from protocols.policy import ClientPolicy
    from protocols.roster import IdentityKey, RememberingVerifier, Roster
    from protocols.server.machine import ServerMachine

    names = [f"site{number}" for number in range(TRIVIAL_CLIENTS)]
    identities = {name: IdentityKey.generate(system_entropy) for name in names}
    roster, codec, digest = Roster.of(identities), FixedPointCodec([TRIVIAL], [1.0], 16), bytes(32)
    rounding, update, verifier = np.random.default_rng(0), np.zeros(TRIVIAL, np.float32), RememberingVerifier()

    def contribute(context):
        return codec.encode(update, rounding)

    policy = ClientPolicy(config_digest=digest, encoding_digest=codec.digest)
    machines = {
        name: ClientMachine(key, roster, policy, contribute, verifier=verifier) for name, key in identities.items()
    }
    plain = {name: PlainClient(name, contribute) for name in names}
    seconds = []
    for number in range(1, 31):
        start = time.perf_counter()
        parameters = RoundParameters.choose(round=number, roster=roster, codec=codec, config_digest=digest)
        if secure:
            server = ServerMachine(parameters, roster, b"model", verifier=verifier)
            result = run_round(server, InProcessTransport(machines))
        else:
            result = run_plain_round(parameters, roster, b"model", InProcessTransport(plain))
        codec.decode_mean(result.total, len(result.survivors))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def our_run(rounds):
    """The same rounds here, under masks; the hospitals also score the model."""
    from speed_cohort import federation

    from clients.method.threads import one_thread_each, usable_cores
    from securefed.config import config_from_mapping

    marks = []
    with one_thread_each():
        start = time.perf_counter()
        bundle = the_cohort()
        config = config_from_mapping({"federation": {"rounds": rounds, "device": "cpu"}})
        federation(bundle, config, usable_cores()).run(rounds, lambda _: marks.append(time.perf_counter()))
        total = time.perf_counter() - start
    return {"round_s": statistics.median(np.diff(marks)), "total_s": total}


if __name__ == "__main__":
    main()
