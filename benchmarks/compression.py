"""What a compressed update costs and what it loses: accuracy against upload bytes a hospital and round.

Every point is a whole run under secure aggregation (active server) through the code of `simulate`: 50 rounds, default
settings, all frames counted. Two cohorts a data set: its own sites, and ten hospitals among whom the pooled images of
each split are dealt at random by the seed. Accuracies are means over sites on test images, ensemble and FAM alone: of
the round that validation accuracy chose (`best-val`), and of the last round, where no choice adds noise.

    python benchmarks/compression.py --data PATH --data PATH --encoder local-dir:PATH --jobs 2
    python benchmarks/compression.py --timing

writes docs/results/compression.json; benchmarks/compression_report.py makes table and plot of it.
"""

import argparse
import dataclasses
import json
import platform
import shlex
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cryptography
import numpy as np
import torch

from clients.data import load_dataset
from clients.encoders import EncodeOptions, FeatureBundle, LabelledFeatures, SiteFeatures, prepare_features
from protocols.codec import FixedPointCodec
from protocols.compression import CompressionState, parse_scheme
from protocols.entropy import system_entropy
from protocols.masking import mask
from protocols.pads import Pad
from protocols.roster import IdentityKey, Roster
from protocols.secret_values import SelfMaskPadKey
from protocols.vectors import Aggregate
from securefed.aggregation import Aggregator
from securefed.config import config_from_mapping
from securefed.federation import Federation, RoundReport
from securefed.hospitals import Hospitals
from securefed.nodes.simulated import SimulatedSites
from securefed.sum_terms import SumTerms

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
SEEDS = (0, 1, 2)
DEALT = 10
MAIN = ("none", "auto")
OTHERS = ("ring:8,subspace:0.125", "ring:4,subspace:0.0625", "ring:4,subspace:0.03125", "ring:2,subspace:0.125")


def cases(names: list[str], rounds: int) -> list[dict[str, Any]]:
    """Return the runs, those of the goal line first: both cohorts and all seeds; the rest with the first seed."""
    goal = [
        {"set": name, "clients": clients, "scheme": scheme, "seed": seed, "rounds": rounds}
        for clients in (0, DEALT)
        for seed in SEEDS
        for name in names
        for scheme in MAIN
    ]
    more = [
        {"set": name, "clients": 0, "scheme": scheme, "seed": SEEDS[0], "rounds": rounds}
        for scheme in OTHERS
        for name in names
    ]
    published = [
        {"set": name, "clients": 0, "scheme": "float16-zlib", "seed": SEEDS[0], "rounds": rounds} for name in names
    ]
    return goal + more + published


def deal(bundle: FeatureBundle, hospitals: int, seed: int) -> FeatureBundle:
    """Return the same images at other hospitals: each split is pooled over the sites and dealt at random."""
    rng = np.random.default_rng(seed)
    shares = {}
    for split in ("train", "val", "test"):
        parts = [site.split(split) for site in bundle.sites]
        features = np.concatenate([part.features for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        paths = [path for part in parts for path in part.paths]
        digests = [digest for part in parts for digest in part.digests]
        shares[split] = [
            LabelledFeatures(features[i], labels[i], tuple(paths[k] for k in i), tuple(digests[k] for k in i))
            for i in np.array_split(rng.permutation(len(labels)), hospitals)
        ]
    sites = tuple(
        SiteFeatures(f"hospital{number:02d}", *(shares[split][number] for split in ("train", "val", "test")))
        for number in range(hospitals)
    )
    return dataclasses.replace(bundle, sites=sites)


def run(bundle: FeatureBundle, case: dict[str, Any]) -> dict[str, Any]:
    """Run one federation and return its accuracies on test images and its bytes a hospital and round."""
    torch.set_num_threads(1)
    if case["clients"]:
        bundle = deal(bundle, case["clients"], case["seed"])
    config = config_from_mapping(
        {
            "federation": {"rounds": case["rounds"], "seed": case["seed"], "device": "cpu"},
            "secure_aggregation": {
                "compression": case["scheme"],
                "enabled": case["scheme"] != "float16-zlib",
            },
        }
    )
    identities = {site.site: IdentityKey.generate(system_entropy) for site in bundle.sites}
    hospitals = Hospitals(bundle, config.training, config.federation.method, config.federation.seed, "cpu")
    terms = SumTerms(config, Roster.of(identities), bundle.embed_dim, len(bundle.classes))
    sites = SimulatedSites(identities, terms, hospitals)
    aggregator = Aggregator(terms, sites, sites, verifier=sites.verifier)
    federation = Federation(hospitals, aggregator, terms.initial_vector, config.federation.select)
    sent: dict[str, list[float]] = {"upload": [], "download": []}
    last: list[RoundReport] = []

    def finished(report: RoundReport) -> None:
        for way, rounds in sent.items():
            total = sum(row.bytes for row in report.opened.byte_rows if row.direction == way)
            rounds.append(total / len(identities))
        last[:] = [report]

    start = time.perf_counter()
    kept = federation.run(config.federation.rounds, finished)
    seconds = time.perf_counter() - start
    current = last[0].checkpoint.current
    after = accuracies(hospitals, bundle, current.vector)
    hospitals.load_private_states(kept.private)
    return {
        **case,
        "hospitals": len(identities),
        "chosen": terms.compression.scheme,
        "best": accuracies(hospitals, bundle, kept.vector),
        "last": after,
        "best_round": kept.number,
        "upload_mean": statistics.mean(sent["upload"]),
        "upload_max": max(sent["upload"]),
        "download_mean": statistics.mean(sent["download"]),
        "download_max": max(sent["download"]),
        "seconds": round(seconds, 1),
    }


def accuracies(hospitals: Hospitals, bundle: FeatureBundle, vector: np.ndarray) -> dict[str, float]:
    """Return the mean over sites of the test accuracy in percent, by part."""
    found: dict[str, list[float]] = {}
    for site in bundle.sites:
        for part, scores in hospitals.predict(site.site, vector, "test").items():
            found.setdefault(part, []).append(float((scores.argmax(axis=1) == site.test.labels).mean()))
    return {part: 100 * statistics.mean(values) for part, values in found.items()}


def timing(repeats: int = 30) -> dict[str, Any]:
    """Return medians in ms of encoding, decoding and masking one update at k = 10, one thread, one process.

    `decode` makes the mean update of an opened sum, `settle` is
    what a client does to know what of its update a sum holds.
    """
    shapes = ((512, 512), (512,), (512,), (512, 512), (512,), (512,))
    dimension = sum(int(np.prod(shape)) for shape in shapes)
    rng = np.random.default_rng(0)
    update = (0.003 * rng.normal(size=dimension)).astype(np.float32)
    plain = FixedPointCodec([dimension], [0.25], 16)
    encoded = plain.encode(update, rng)
    bits = (11 * plain.max_coordinate).bit_length()
    total = Aggregate(encoded.lanes(bits), bits, 1)
    measured = {
        "mask_uncompressed": median_ms(lambda: mask(encoded, pads(11), bits), repeats),
        "encode_uncompressed": median_ms(lambda: plain.encode(update, rng), repeats),
        "decode_uncompressed": median_ms(lambda: plain.decode_sum(total, 1), repeats),
    }
    for text in ("ring:3,subspace:0.125", "ring:4,subspace:0.0625"):
        codec = CompressionState.start(shapes, parse_scheme(text), 11).codec()
        quantised = codec.quantise(update, None)
        vector = codec.encode(quantised)
        narrow = (11 * codec.levels).bit_length()
        public = vector.lanes(32).astype(np.int64)
        lifts = codec.lifts(public, 1)
        measured |= {
            f"encode {text}": median_ms(lambda codec=codec: codec.encode(codec.quantise(update, None)), repeats),
            f"settle {text}": median_ms(
                lambda codec=codec, q=quantised, by=lifts: codec.lifted(codec.contribution(q)[1], by), repeats
            ),
            f"decode {text}": median_ms(lambda codec=codec, p=public: codec.mean_and_lifts(p, 1), repeats),
            f"mask {text}": median_ms(lambda v=vector, narrow=narrow: mask(v, pads(11), narrow), repeats),
        }
    return measured


def pads(count: int) -> list[Pad]:
    """Return fresh pads: ten of neighbours and one of the client itself."""
    return [Pad(SelfMaskPadKey(system_entropy(32)), negative=False) for _ in range(count)]


def median_ms(call: Any, repeats: int) -> float:
    """Return the median processor time of a call in milliseconds, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def job(arguments: argparse.Namespace, data: str, case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in a process of its own."""
    torch.set_num_threads(1)
    dataset, _ = load_dataset(data)
    bundle = prepare_features(dataset, arguments.encoder, EncodeOptions(cache_dir=arguments.cache))
    return run(bundle, case)


def save(path: Path, **content: Any) -> None:
    """Merge results into the file."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**known, **content}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run what is missing and write the results after every run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", action="append", default=[], help="a data set; may be given several times")
    parser.add_argument("--encoder")
    parser.add_argument("--cache", type=Path, help="folder of the feature cache")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timing", action="store_true", help="time encoding and masking instead")
    parser.add_argument("--out", type=Path, default=RESULTS / "compression.json")
    arguments = parser.parse_args()
    if arguments.timing:
        save(arguments.out, timing_ms=timing())
        return
    if not arguments.data or not arguments.encoder:
        parser.error("give --data and --encoder, or --timing")
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    versions |= {"cryptography": cryptography.__version__}
    given = [f"--data={Path(data).name}" for data in arguments.data] + [f"--encoder={Path(arguments.encoder).name}"]
    command = shlex.join(["python", "benchmarks/compression.py", *given, f"--rounds={arguments.rounds}"])
    machine = f"{platform.machine()}, {platform.system()}, one thread a run"
    settings = dataclasses.asdict(config_from_mapping({}).training)
    save(arguments.out, command=command, versions=versions, machine=machine, settings=settings)
    paths = {Path(data).name: data for data in arguments.data}
    runs: list[dict[str, Any]] = json.loads(arguments.out.read_text(encoding="utf-8")).get("runs", [])
    keys = ("set", "clients", "scheme", "seed", "rounds")
    done = {tuple(found[key] for key in keys) for found in runs}
    missing = [case for case in cases(list(paths), arguments.rounds) if tuple(case[key] for key in keys) not in done]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for future in as_completed([pool.submit(job, arguments, paths[case["set"]], case) for case in missing]):
            runs.append(future.result())
            save(arguments.out, runs=runs)
            print(json.dumps(runs[-1]), flush=True)


if __name__ == "__main__":
    main()
