"""What each departure from the published method is worth: the default settings with one of them taken back at a time.

Only training and validation images take part; the test images are never touched. They are cut into five blocks a site
and class (contiguous in the order of the paths: in many data sets neighbours are pictures of one patient). Each block
is the test block once, the next one serves calibration and the choice of the round, the other three train. The
settings' defaults were chosen by the same figures. Updates are averaged in float; the figures are means over sites
and blocks.

    python benchmarks/ablation.py --data PATH --data PATH --encoder local-dir:PATH

writes docs/results/ablation.md and .json; docs/method.md has the differences.
"""

import argparse
import dataclasses
import json
import platform
import shlex
import statistics
from pathlib import Path

import numpy as np
import sklearn
import torch
from speed_cohort import machine

from clients.data import load_dataset
from clients.encoders import EncodeOptions, FeatureBundle, LabelledFeatures, SiteFeatures, prepare_features
from clients.method import Hospital, TrainingSettings, initial_vector
from clients.metrics import mean_metrics

BLOCKS = 5
PARTS = ("ensemble", "fam", "mlp")

DEFAULT = TrainingSettings.default()
PAPER = TrainingSettings.paper()


def taken_back(*fields: str) -> TrainingSettings:
    """Return the default settings with some fields as published."""
    return dataclasses.replace(DEFAULT, **{field: getattr(PAPER, field) for field in fields})


VARIANTS = {
    "default": DEFAULT,
    "published FAM (att * I)": taken_back("fam_form"),
    "contrastive loss in the batch": taken_back("fam_loss"),
    "FAM without the hospital's class frequencies": taken_back("prior_adjustment"),
    "no dropout of feature entries": taken_back("feature_dropout"),
    "class-wise distillation": taken_back("distillation"),
    "published MLP (3 layers, batch norm, I~ alone)": taken_back(
        "mlp_layers", "mlp_width", "mlp_norm", "mlp_dropout", "mlp_input", "mlp_input_rms"
    ),
    "MLP of 3 layers": taken_back("mlp_layers", "mlp_width"),
    "MLP with batch norm": taken_back("mlp_norm"),
    "MLP without dropout": taken_back("mlp_dropout"),
    "MLP on I~ alone": taken_back("mlp_input"),
    "MLP on features of unit length": taken_back("mlp_input_rms"),
    "entropy ensemble": taken_back("ensemble"),
    "MLP's published learning rate": taken_back("mlp_learning_rate"),
    "published decay of the learning rates": taken_back("learning_rate_decay"),
    "paper": PAPER,
}
"""Row of the table to settings; between them the rows take back each field in which the two profiles differ."""


def blocks_of(bundle: FeatureBundle, test_block: int) -> list[SiteFeatures]:
    """Return the sites with training and validation images divided anew; what was their test split is left out."""
    sites = []
    for site in bundle.sites:
        features = np.concatenate([site.train.features, site.val.features])
        labels = np.concatenate([site.train.labels, site.val.labels])
        paths = np.array(site.train.paths + site.val.paths)
        block = np.zeros(len(labels), int)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            members = members[np.argsort(paths[members])]
            block[members] = np.arange(len(members)) * BLOCKS // len(members)
        val_block = (test_block + 1) % BLOCKS

        def rows(chosen: np.ndarray, features=features, labels=labels, paths=paths) -> LabelledFeatures:
            return LabelledFeatures(features[chosen], labels[chosen], tuple(paths[chosen]))

        test, val = block == test_block, block == val_block
        sites.append(SiteFeatures(site.site, rows(~test & ~val), rows(val), rows(test)))
    return sites


def accuracy(hospital: Hospital, vector: np.ndarray) -> float:
    """Return the accuracy of a hospital's ensemble on its validation images."""
    return float((hospital.predict(vector, "val")["ensemble"].argmax(1) == hospital.site.val.labels).mean())


def run(bundle: FeatureBundle, sites: list[SiteFeatures], settings: TrainingSettings, rounds: int, seed: int) -> dict:
    """Return {part: (accuracy, balanced accuracy)} on the test blocks, at the round of the best validation mean."""
    hospitals = [Hospital(s, bundle.text_features, bundle.logit_scale, settings, "fedmedclip", seed) for s in sites]
    vector = initial_vector(bundle.embed_dim, settings, seed)
    best, result = -1.0, {}
    for number in range(1, rounds + 1):
        updates = [hospital.train_round(vector, number) for hospital in hospitals]
        vector = vector + np.mean(updates, axis=0)
        score = statistics.fmean(accuracy(h, vector) for h in hospitals)
        if score > best:
            best = score
            metrics = [hospital.evaluate(vector, "test") for hospital in hospitals]
            means = {part: mean_metrics(m[part] for m in metrics) for part in PARTS if part in metrics[0]}
            result = {part: (100 * m.accuracy, 100 * m.balanced_accuracy) for part, m in means.items()}
    return result


def difference(runs: list[dict], default: list[dict]) -> str:
    """Return how much the ensemble's accuracy differs from the default's, in points, `mean ± deviation` over runs."""
    points = [run["ensemble"][0] - other["ensemble"][0] for run, other in zip(runs, default, strict=True)]
    return f"{statistics.fmean(points):+.1f} ± {statistics.stdev(points):.1f}"


def table(results: dict) -> str:
    """Return the results as Markdown: accuracy (balanced accuracy), difference of the ensemble to the default."""
    lines = []
    for data, variants in results.items():
        lines += ["", f"### {data}", "", "| settings | ensemble | difference | FAM | MLP |", "|---|---|---|---|---|"]
        for name, runs in variants.items():
            cells = {}
            for part in PARTS:
                if part in runs[0]:
                    means = [statistics.fmean(r[part][k] for r in runs) for k in (0, 1)]
                    cells[part] = f"{means[0]:.1f} ({means[1]:.1f})"
            change = "" if name == "default" else difference(runs, variants["default"])
            lines.append(f"| {name} | {cells['ensemble']} | {change} | {cells['fam']} | {cells.get('mlp', '')} |")
    return "\n".join(lines)


def shown_command(arguments: argparse.Namespace) -> str:
    """Return the command that makes the results again, with PATH for where this machine keeps data and encoder."""
    data = " ".join(f"--data PATH/{Path(source).name}" for source in arguments.data)
    kind, colon, place = arguments.encoder.partition(":")
    encoder = f"{kind}:PATH/{Path(place).name}" if colon else kind
    counts = f"--rounds {arguments.rounds} --folds {arguments.folds} --seeds {arguments.seeds}"
    rows = "".join(f" --only {shlex.quote(name)}" for name in arguments.only or ())
    return f"python benchmarks/ablation.py {data} --encoder {encoder} {counts}{rows}"


def write(results: dict, arguments: argparse.Namespace) -> None:
    """Write the page, and the figures of every fold behind it."""
    command = shown_command(arguments)
    processor = machine()["processor"]
    versions = {"python": platform.python_version(), "torch": torch.__version__, "scikit-learn": sklearn.__version__}
    count = f"Rounds: {arguments.rounds}; folds: the first {arguments.folds}; seeds a fold: {arguments.seeds}."
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = f"""# Ablation of the default settings

Each row is the default with something as the paper has it. {BLOCKS}-fold cross-validation over training and validation
images only; the test images take no part. {count}
Accuracy % (balanced accuracy %), mean over sites, folds and seeds; `difference` is that of the ensemble's accuracy to
the default's in points, mean ± standard deviation over folds and seeds.
{table(results)}

Made by `{command}` with {", ".join(f"{k} {v}" for k, v in versions.items())};
on {processor}.
"""
    (arguments.out / "ablation.md").write_text(text, encoding="utf-8")
    content = {"command": command, "versions": versions, "processor": processor, "results": results}
    (arguments.out / "ablation.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run all variants on all data sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", action="append", required=True, help="a data set; may be given several times")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--cache", type=Path, help="folder of the feature cache")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--folds", type=int, default=BLOCKS, choices=range(2, BLOCKS + 1), help="the first so many")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--only",
        action="append",
        choices=VARIANTS,
        metavar="ROW",
        help=f"a row beside the default, which is always there; may be given several times: {'; '.join(VARIANTS)}",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results: dict = {}
    for data in arguments.data:
        dataset, _ = load_dataset(data)
        bundle = prepare_features(dataset, arguments.encoder, EncodeOptions(cache_dir=arguments.cache))
        per = results.setdefault(dataset.name, {})
        for name in dict.fromkeys(["default", *(arguments.only or VARIANTS)]):
            per[name] = [
                run(bundle, blocks_of(bundle, block), VARIANTS[name], arguments.rounds, seed)
                for seed in range(arguments.seeds)
                for block in range(arguments.folds)
            ]
            means = {p: [round(statistics.fmean(r[p][k] for r in per[name]), 1) for k in (0, 1)] for p in per[name][0]}
            print(dataset.name, name, means, flush=True)
    write(results, arguments)


if __name__ == "__main__":
    main()
