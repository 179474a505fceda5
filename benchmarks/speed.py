"""How long the parts of a simulation take: the training step, whole runs, more clients, encoding.

python benchmarks/speed.py                     everything that needs no data, to docs/results/speed.json and speed.md
python benchmarks/speed.py --only encode --data PATH --encoder local-dir:PATH

Each part runs in a process of its own. Where others use the machine, ratios between figures of one part are what to
quote: they are measured in turns, in one process, in processor time where that is the same thing.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PARTS = ("step", "run", "clients", "encode")
PROFILED = 4
"""Rounds of the run that is profiled."""

PHASES = {
    "whole": ("securefed/simulation.py", "simulate"),
    "reading features": ("encoders/prepare.py", "prepare_features"),
    "training": ("lean/trainer.py", "train"),
    "validation": ("securefed/hospitals.py", "validation_accuracy"),
    "share of rows kept": ("securefed/hospitals.py", "keep_ratios"),
    "checkpoints": ("securefed/checkpoint.py", "finish"),
    "event log": ("securefed/evidence.py", "round_completed"),
    "evaluation, tables, plots": ("securefed/outcome.py", "write_outcome"),
    "report": ("audit/report/write.py", "write_report"),
}
"""Where the processor time of a run goes; the rest is the protocol: keys, shares, pads, encoding, frames."""

SLOPE_CLIENTS = 10
"""At so many clients it is measured what more images cost."""

FEW = 64
"""Training images of a client, where what else a round costs is to be seen."""

ISIC_IMAGES, ISIC_SHARES = 25_331, (0.32, 0.22, 0.17, 0.12, 0.10, 0.07)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--most-clients", type=int, default=1000)
    parser.add_argument("--masked-up-to", type=int, default=1000, help="clients of the largest cohort under masks")
    parser.add_argument("--training-images", type=int, default=FEW, help="of a client, in the part `clients`")
    parser.add_argument("--select", choices=("best-val", "last"), default="best-val")
    parser.add_argument("--data")
    parser.add_argument("--encoder")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the parts `run` and `encode`")
    parser.add_argument("--random-weights", metavar="MODEL", help="encode with an open_clip model of random weights")
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(measure(arguments.part, arguments)))
        return
    chosen = [arguments.only] if arguments.only else [p for p in PARTS if p != "encode" or arguments.data]
    results = {}
    for part in chosen:
        names = [part] if part != "clients" else [f"clients:{n}" for n in client_counts(arguments.most_clients)]
        key = part if arguments.device == "cpu" else f"{part} on a GPU"
        if part == "clients" and arguments.training_images > FEW:
            key = "clients with many images"
        if arguments.random_weights:
            key += ", random weights"
        results[key] = [in_own_process(name) for name in names]
        for result in results[key]:
            print(json.dumps(result), file=sys.stderr)
    from speed_report import add

    add(arguments.output, results, "python benchmarks/speed.py " + " ".join(named(sys.argv[1:])))


def client_counts(most):
    return [n for n in (4, 10, 100, 1000) if n <= most]


def named(arguments):
    """The arguments with paths by their last part: where this machine keeps its data is of no interest."""

    def without_folder(argument):
        kind, colon, path = argument.partition(":") if argument.startswith("local-dir:") else ("", "", argument)
        return f"{kind}{colon}PATH/{Path(path).name}" if os.sep in path and Path(path).exists() else argument

    return [without_folder(argument) for argument in arguments]


def in_own_process(part):
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "")}
    if not environment["OMP_NUM_THREADS"]:
        del environment["OMP_NUM_THREADS"]
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(part, arguments):
    name, _, count = part.partition(":")
    if name == "step":
        from speed_step import step

        return step()
    if name == "run":
        return run(arguments.rounds, arguments.device)
    if name == "clients":
        if arguments.training_images > FEW:
            return clients_with_many_images(int(count), arguments.training_images)
        return clients(int(count), arguments.select, arguments.masked_up_to)
    from speed_encode import encode

    return encode(arguments.data, arguments.encoder, arguments.images, arguments.device, arguments.random_weights)


def run(rounds, device):
    """A set of the size of ISIC 2019, from features to the report, secure aggregation on."""
    import cProfile
    import pstats

    from speed_cohort import cohort, machine, named_gpu
    from speed_memory import memory

    from clients.encoders import export_features
    from securefed.config import config_from_mapping
    from securefed.simulation import simulate

    counts = [round(ISIC_IMAGES * share) for share in ISIC_SHARES]
    train = [round(0.6 * n) for n in counts]
    val = [round(0.2 * n) for n in counts]
    test = [n - t - v for n, t, v in zip(counts, train, val, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        features = Path(folder, "isic.safetensors")
        export_features(cohort(train, val, test), features)
        source = f"features:{features}"

        def config(number):
            return config_from_mapping(
                {
                    "data": {"source": source},
                    "encoder": {"name": source},
                    "federation": {"rounds": number, "device": device},
                }
            )

        if device == "cuda":  # what a first use of the driver costs is no part of a run
            import torch

            torch.zeros(1, device=device)
        wall, processor = time.perf_counter(), all_processor_time()
        result = simulate(config(rounds), output=Path(folder, "run"))
        wall, processor = time.perf_counter() - wall, all_processor_time() - processor
        peak = memory()
        profile = cProfile.Profile(time.process_time)
        profile.enable()
        simulate(config(PROFILED), output=Path(folder, "profiled"), workers=1)
        profile.disable()
    stats = pstats.Stats(profile).stats
    top = sorted(stats.items(), key=lambda item: -item[1][2])[:15]
    return {
        "machine": machine(**named_gpu(device)),
        "images": sum(counts),
        "train": sum(train),
        "clients": len(counts),
        "rounds": rounds,
        "wall_s": wall,
        "processor_s": processor,
        "timing": result.summary["timing"],
        "accuracy": result.summary["mean"]["ensemble"]["accuracy"],
        "peak_mib": peak,
        "load_after": os.getloadavg()[0],
        "profiled_rounds": PROFILED,
        "phases": {phase: cumulative(stats, *where) for phase, where in PHASES.items()},
        "profile": {name: entry[2] for (_, _, name), entry in top},
    }


def all_processor_time():
    """Processor seconds of this process and of those that it has started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def cumulative(stats, file, function):
    """Seconds in a function and what it calls."""
    return sum(e[3] for (path, _, name), e in stats.items() if path.endswith(file) and name == function)


def clients(count, select, masked_up_to):
    """Rounds of `count` clients with 64 training images each: processor time a client and round, and memory.

    Memory is that of the rounds in clear, which are run first; the rounds under masks add to the peak only.
    """
    from speed_cohort import cohort, machine
    from speed_memory import crew_memory, memory

    from clients.method.threads import one_thread_each
    from securefed.config import config_from_mapping

    result = {"machine": machine(), "clients": count, "select": select}
    rounds = max(2, min(60, 600 // count))
    bundle = cohort([FEW] * count, [16] * count, [16] * count)
    features = sum(rows.features.nbytes + rows.labels.nbytes for s in bundle.sites for rows in (s.train, s.val, s.test))
    result["features_mib"] = features / count / 2**20
    with one_thread_each():
        for name, enabled in (("plain", False), ("secure", True)):
            if enabled and count > masked_up_to:
                continue
            config = config_from_mapping(
                {
                    "federation": {"rounds": rounds, "device": "cpu", "select": select},
                    "secure_aggregation": {"enabled": enabled},
                }
            )
            before = memory()
            costs = cost_of_rounds(bundle, config, rounds)
            result[name] = {**costs, "grown_mib": (memory() - before) / count, "peak_mib": memory()}
            result["neighbours"] = neighbours(bundle, config)
        if count == SLOPE_CLIENTS:
            result["image_ms"] = image_ms(bundle, rounds)
        started, grown = crew_memory(bundle)
        result["crew"] = {"processes_mib": started, "grown_mib": grown / count}
    return result


def cost_of_rounds(bundle, config, rounds):
    """Processor and wall milliseconds of a client and round, from the second round on."""
    from speed_cohort import federation

    from clients.method.threads import usable_cores

    loop, marks = federation(bundle, config, usable_cores()), []
    loop.run(rounds, lambda _: marks.append((time.perf_counter(), time.process_time())))
    wall, processor = (end - start for start, end in zip(marks[0], marks[-1], strict=True))
    share = len(bundle.sites) * (rounds - 1)
    return {"rounds": rounds, "processor_ms": 1000 * processor / share, "wall_ms": 1000 * wall / share}


def clients_with_many_images(count, images):
    """Rounds of `count` clients under masks, each with so many training images."""
    from speed_cohort import cohort, machine
    from speed_memory import memory

    from clients.method.threads import one_thread_each
    from securefed.config import config_from_mapping

    bundle = cohort([images] * count, [16] * count, [16] * count)
    config = config_from_mapping({"federation": {"device": "cpu"}})
    with one_thread_each():
        costs = cost_of_rounds(bundle, config, max(2, min(8, 120 // count)))
    return {
        "machine": machine(),
        "clients": count,
        "images": images,
        "neighbours": neighbours(bundle, config),
        "peak_mib": memory(),
        **costs,
    }


def image_ms(few, rounds):
    """Processor milliseconds that another training image costs a client and round, in clear."""
    from speed_cohort import cohort, federation

    from securefed.config import config_from_mapping

    count, images = len(few.sites), 640
    many = cohort([images] * count, [16] * count, [16] * count)
    config = config_from_mapping({"federation": {"device": "cpu"}, "secure_aggregation": {"enabled": False}})
    loops = [federation(bundle, config, 1) for bundle in (few, many)]
    costs = []
    for loop in loops:
        marks = []
        loop.run(min(rounds, 6), lambda _, to=marks: to.append(time.process_time()))
        costs.append(statistics.median(b - a for a, b in pairwise(marks)) / count)
    return 1000 * (costs[1] - costs[0]) / (images - FEW)


def neighbours(bundle, config):
    """With how many others a client shares a pad."""
    from protocols.entropy import system_entropy
    from protocols.roster import IdentityKey, Roster
    from securefed.sum_terms import SumTerms

    roster = Roster.of({site.site: IdentityKey.generate(system_entropy) for site in bundle.sites})
    return SumTerms(config, roster, bundle.embed_dim, len(bundle.classes)).example.neighbours


if __name__ == "__main__":
    main()
