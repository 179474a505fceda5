"""What privacy costs in accuracy on real data sets: test accuracy against epsilon, beside no privacy and no learning.

Every figure comes from a whole run of the federation with the defaults of `--dp`, image level; its noise comes from the
operating system, so that the claim of each run holds and figures vary a little from one making to the next. Runs are
kept in --runs: a finished one is not repeated, an interrupted one goes on. Epsilon `inf` is the same steps without
noise, in one process and without a protocol (privacy_central.py), as is the row of central DP-SGD.

    python benchmarks/privacy_utility.py --data PATH --data PATH --encoder local-dir:PATH

writes docs/results/privacy-utility.md, .json, .svg and .png.
"""

import argparse
import json
import math
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from privacy_central import central, noiseless

from securefed.config import RunConfig, config_digest, config_from_mapping
from securefed.observer import Observer
from securefed.plots.style import figure, look
from securefed.preparation import encode_sites, load_sites
from securefed.privacy.rules import WIRED
from securefed.simulation import resume_run, simulate

EPSILONS = (8.0, 4.0, 2.0, 1.0, math.inf)
DELTA = 1e-5
PARTITIONS = 10

NO_NOISE_AT = 8.0
"""Epsilon whose configuration the runs without noise follow."""


def in_one_process(config: RunConfig, noise_multiplier: float | None, arguments: argparse.Namespace) -> dict:
    """Return what a summary says of accuracy, of a run without noise or of central DP-SGD with a noise multiplier."""
    kind = "noiseless" if noise_multiplier is None else f"central-{noise_multiplier:.6g}"
    kept = arguments.runs / f"{config_digest(config)[:16]}-{kind}.json"
    if not kept.exists():
        dataset, _ = load_sites(config.data, config.federation.seed)
        bundle = encode_sites(config, dataset, "cpu", arguments.cache, Observer())
        found = noiseless(bundle, config) if noise_multiplier is None else central(bundle, config, noise_multiplier)
        mean = {part: {"accuracy": value / 100} for part, value in found.items()}
        kept.write_text(json.dumps({"privacy": {"epsilon": None}, "mean": mean}), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def summary_of(
    data: str,
    mode: str,
    epsilon: float,
    seed: int,
    arguments: argparse.Namespace,
    *,
    clients: int = 0,
    noise_multiplier: float | None = None,
) -> dict:
    """Return the summary of a run, from its folder where it has been run before."""
    tree = {
        "data": {"source": data},
        "encoder": {"name": arguments.encoder},
        "federation": {"rounds": arguments.rounds, "seed": seed, "device": "cpu"},
    }
    if mode != "off":
        target = epsilon if math.isfinite(epsilon) else NO_NOISE_AT
        tree["privacy"] = {"mode": mode, "delta": DELTA, "epsilon": target}
    if clients:
        tree["data"]["clients"] = clients
    config = config_from_mapping(tree)
    if noise_multiplier is not None or not math.isfinite(epsilon):
        return in_one_process(config, noise_multiplier, arguments)
    folder = arguments.runs / config_digest(config)[:16]
    summary = folder / "summary.json"
    if summary.exists():
        return json.loads(summary.read_text(encoding="utf-8"))
    if (folder / "audit.jsonl").exists():
        return resume_run(folder, cache_dir=arguments.cache).summary
    return simulate(config, output=folder, cache_dir=arguments.cache).summary


def majority(folder: Path) -> float:
    """Return the mean over the sites of the share of each site's most frequent class in its test images."""
    sites = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["sites"].values()
    rows = [[sum(row) for row in site["confusion"]] for site in sites]
    return statistics.fmean(max(counts) / sum(counts) for counts in rows)


def row_of(runs: list[dict]) -> dict:
    """Return mean and standard deviation of the parts over the seeds, in per cent, and the largest epsilon."""
    row: dict = {"epsilon": max((run["privacy"]["epsilon"] or 0.0 for run in runs), default=0.0)}
    for part in ("ensemble", "fam", "mlp"):
        values = [100 * run["mean"][part]["accuracy"] for run in runs]
        row[part] = {"mean": statistics.fmean(values), "deviation": statistics.stdev(values), "runs": values}
    return row


NO_NOISE_PLACE = 16.0
"""Where the plot has the runs without noise."""

COVERED = {"local": "ensemble", "distributed": "fam"}
"""What of the predictions epsilon covers: all that follows from FAM and MLP, or the FAM alone."""


def draw(results: dict, out: Path) -> None:
    """Draw the accuracy of what epsilon covers against epsilon, one panel a data set."""
    with figure(out, "privacy-utility", width=9.0) as drawing:
        for place, (name, result) in enumerate(results.items()):
            axes = drawing.add_subplot(1, len(results), place + 1)
            for index, (mode, rows) in enumerate(result["modes"].items()):
                points = sorted((min(float(target), NO_NOISE_PLACE), row) for target, row in rows.items())
                axes.errorbar(
                    [target for target, _ in points],
                    [row[COVERED[mode]]["mean"] for _, row in points],
                    [row[COVERED[mode]]["deviation"] for _, row in points],
                    label=f"--dp {mode}: {'FAM alone' if COVERED[mode] == 'fam' else 'ensemble'}",
                    capsize=3,
                    **look(index),
                )
            axes.axhline(
                result["off"]["ensemble"]["mean"], color="#333333", linestyle="--", label="no privacy: ensemble"
            )
            axes.axhline(100 * result["majority"], color="#8C564B", linestyle=":", label="majority class")
            axes.set_xscale("log", base=2)
            targets = sorted({float(target) for rows in result["modes"].values() for target in rows})
            axes.set_xticks(
                [min(target, NO_NOISE_PLACE) for target in targets],
                [f"{target:g}" if math.isfinite(target) else "no noise" for target in targets],
            )
            axes.set_xlabel("epsilon (image level, delta 1e-5)")
            axes.set_ylabel("test accuracy of what epsilon covers, %")
            axes.set_title(name)
        drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")


def main() -> None:
    """Run what is missing and write table, figures and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", action="append", required=True, help="a data set; may be given several times")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--mode", action="append", choices=("local", "distributed"), help="[those that are wired]")
    parser.add_argument("--epsilon", action="append", type=float, help="a target; may be given several times")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row, at least 2")
    parser.add_argument(
        "--one-site", action="append", help=f"a set of one site, partitioned over {PARTITIONS} beside central DP-SGD"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/privacy"), help="where the run folders are kept")
    parser.add_argument("--cache", type=Path, help="folder of the feature cache")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(f"--seeds {arguments.seeds}: the table gives deviations over runs, use at least 2")
    torch.set_num_threads(1)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    modes = arguments.mode or [mode for mode in ("local", "distributed") if mode in WIRED]

    results: dict = {Path(data).name: {"modes": {mode: {} for mode in modes}} for data in arguments.data}
    for mode, epsilon in [(mode, epsilon) for epsilon in arguments.epsilon or EPSILONS for mode in modes] + [
        ("off", 0.0)
    ]:
        for data in arguments.data:
            name = Path(data).name
            runs = [summary_of(data, mode, epsilon, seed, arguments) for seed in range(arguments.seeds)]
            row = row_of(runs)
            if mode == "off":
                results[name]["off"] = row
                results[name]["majority"] = majority(arguments.runs / runs[0]["config_digest"][:16])
            else:
                results[name]["modes"][mode][f"{epsilon:g}"] = row
            ensemble = row["ensemble"]
            print(name, mode, epsilon, f"{ensemble['mean']:.1f} ± {ensemble['deviation']:.1f}", flush=True)
    partitions = {Path(data).name: against_central(data, arguments) for data in arguments.one_site or ()}
    write(results, partitions, arguments)


def against_central(data: str, arguments: argparse.Namespace) -> dict:
    """Return the rows of `--dp distributed` over partitions and of central DP-SGD with the noise of its sum."""
    clients, seeds = PARTITIONS, range(arguments.seeds)
    runs = [summary_of(data, "distributed", 8.0, seed, arguments, clients=clients) for seed in seeds]
    sigma = runs[0]["privacy"]["mechanism"]["noise_multiplier"]
    trusted = [
        summary_of(data, "distributed", 8.0, seed, arguments, clients=clients, noise_multiplier=sigma) for seed in seeds
    ]
    rows = {
        f"`--dp distributed --epsilon 8`, {clients} equal partitions": row_of(runs),
        f"central DP-SGD on the same images, noise multiplier {sigma:.3f}, {clients} private MLPs": row_of(trusted),
    }
    for label, row in rows.items():
        fam = row["fam"]
        print(Path(data).name, label, f"FAM {fam['mean']:.1f} ± {fam['deviation']:.1f}", flush=True)
    return rows


def write(results: dict, partitions: dict, arguments: argparse.Namespace) -> None:
    """Write the table, the figures behind it, and the plot."""

    def cell(part: dict) -> str:
        return f"{part['mean']:.1f} ± {part['deviation']:.1f}"

    def named(mode: str, target: str) -> str:
        return f"the steps of `--dp {mode}`, no noise" if target == "inf" else f"`--dp {mode} --epsilon {target}`"

    def spent(row: dict) -> str:
        return f"{row['epsilon']:.3f}" if row["epsilon"] else ""

    lines: list[str] = []
    for name, result in results.items():
        lines += ["", f"## {name}", "", f"Majority class: {100 * result['majority']:.1f}.", ""]
        lines += ["| privacy | epsilon spent | ensemble | FAM | MLP |", "|---|---|---|---|---|"]
        off = result["off"]
        lines.append(
            f"| none (profile default) | | {cell(off['ensemble'])} | {cell(off['fam'])} | {cell(off['mlp'])} |"
        )
        for mode, rows in result["modes"].items():
            lines += [
                f"| {named(mode, target)} | {spent(row)} | {cell(row['ensemble'])} | "
                f"{cell(row['fam'])} | {cell(row['mlp'])} |"
                for target, row in rows.items()
            ]
    for name, rows in partitions.items():
        lines += ["", f"## {name}, one site partitioned over {PARTITIONS} hospitals", ""]
        lines += ["The FAM is what both make private; each hospital's MLP is not.", ""]
        lines += ["| privacy | epsilon spent | ensemble | FAM | MLP |", "|---|---|---|---|---|"]
        lines += [
            f"| {label} | {spent(row)} | {cell(row['ensemble'])} | {cell(row['fam'])} | {cell(row['mlp'])} |"
            for label, row in rows.items()
        ]
    data = " ".join(f"--data PATH/{Path(source).name}" for source in arguments.data)
    data += "".join(f" --one-site PATH/{Path(source).name}" for source in arguments.one_site or ())
    kind, colon, place = arguments.encoder.partition(":")
    encoder = f"{kind}:PATH/{Path(place).name}" if colon else kind
    counts = f"--rounds {arguments.rounds} --seeds {arguments.seeds}"
    command = f"python benchmarks/privacy_utility.py {data} --encoder {encoder} {counts}"
    versions = {name: version(name) for name in ("torch", "dp-accounting")}
    versions["python"] = platform.python_version()
    table = "\n".join(lines)
    text = f"""# What privacy costs in accuracy

Test accuracy % ± standard deviation over {arguments.seeds} runs (seeds of the initial weights; the noise is the
operating system's), mean over the sites, image level, add-or-remove-one, delta {DELTA:g}, {arguments.rounds} rounds.
Hyperparameters were chosen on validation images of these two sets at epsilon 8 and are not covered by epsilon.
With `local` epsilon covers FAM, MLP and ensemble. With `distributed` it covers the FAM alone: MLP and ensemble have no
privacy, stay at their hospital, and say nothing of what privacy costs; the plot has what is covered.

![accuracy against epsilon](privacy-utility.svg)
{table}

Made by `{command}` with {", ".join(f"{k} {v}" for k, v in sorted(versions.items()))}.
"""
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "privacy-utility.md").write_text(text, encoding="utf-8")
    content = {"command": command, "versions": versions, "results": results, "partitions": partitions}
    (arguments.out / "privacy-utility.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw(results, arguments.out)


if __name__ == "__main__":
    main()
