"""What privacy costs in accuracy on real data sets: test accuracy against epsilon, beside no privacy and no learning.

Every figure comes from a whole run of the federation with the defaults of `--dp`, image level; its noise comes from the
operating system, so that the claim of each run holds and figures vary a little from one making to the next. Runs are
kept in --runs: a finished one is not repeated, an interrupted one goes on. Epsilon `inf` is the same steps with a noise
multiplier of 0.01, which no figure shows.

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from securefed.config import config_digest, config_from_mapping
from securefed.plots.style import figure, look
from securefed.privacy.rules import WIRED
from securefed.simulation import resume_run, simulate

EPSILONS = (8.0, 4.0, 2.0, 1.0, math.inf)
DELTA = 1e-5
NO_NOISE = 0.01
"""Noise multiplier that stands for none: every run of a private mode has some."""


def summary_of(data: str, mode: str, epsilon: float, seed: int, arguments: argparse.Namespace) -> dict:
    """Return the summary of a run, from its folder where it has been run before."""
    tree = {
        "data": {"source": data},
        "encoder": {"name": arguments.encoder},
        "federation": {"rounds": arguments.rounds, "seed": seed, "device": "cpu"},
    }
    if mode != "off":
        noise = {"epsilon": epsilon} if math.isfinite(epsilon) else {"noise_multiplier": NO_NOISE}
        tree["privacy"] = {"mode": mode, "delta": DELTA, **noise}
    config = config_from_mapping(tree)
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


def draw(results: dict, out: Path) -> None:
    """Draw accuracy of the ensemble against epsilon, one panel a data set."""
    with figure(out, "privacy-utility", width=9.0) as drawing:
        for place, (name, result) in enumerate(results.items()):
            axes = drawing.add_subplot(1, len(results), place + 1)
            for index, (mode, rows) in enumerate(result["modes"].items()):
                points = sorted((float(target), row) for target, row in rows.items())
                axes.errorbar(
                    [target for target, _ in points],
                    [row["ensemble"]["mean"] for _, row in points],
                    [row["ensemble"]["deviation"] for _, row in points],
                    label=f"--dp {mode}",
                    capsize=3,
                    **look(index),
                )
            axes.axhline(result["off"]["ensemble"]["mean"], color="#333333", linestyle="--", label="no privacy")
            axes.axhline(100 * result["majority"], color="#8C564B", linestyle=":", label="majority class")
            axes.set_xscale("log", base=2)
            targets = sorted({float(target) for rows in result["modes"].values() for target in rows})
            axes.set_xticks(targets, [f"{target:g}" for target in targets])
            axes.set_xlabel("epsilon (image level, delta 1e-5)")
            axes.set_ylabel("test accuracy of the ensemble, %")
            axes.set_title(name)
            axes.legend(loc="lower right")


def main() -> None:
    """Run what is missing and write table, figures and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", action="append", required=True, help="a data set; may be given several times")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--mode", action="append", choices=("local", "distributed"), help="[those that are wired]")
    parser.add_argument("--epsilon", action="append", type=float, help="a target; may be given several times")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/privacy"), help="where the run folders are kept")
    parser.add_argument("--cache", type=Path, help="folder of the feature cache")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
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
    write(results, arguments)


def write(results: dict, arguments: argparse.Namespace) -> None:
    """Write the table, the figures behind it, and the plot."""

    def cell(part: dict) -> str:
        return f"{part['mean']:.1f} ± {part['deviation']:.1f}"

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
                f"| `--dp {mode} --epsilon {target}` | {row['epsilon']:.3f} | {cell(row['ensemble'])} | "
                f"{cell(row['fam'])} | {cell(row['mlp'])} |"
                for target, row in rows.items()
            ]
    data = " ".join(f"--data PATH/{Path(source).name}" for source in arguments.data)
    kind, colon, place = arguments.encoder.partition(":")
    encoder = f"{kind}:PATH/{Path(place).name}" if colon else kind
    command = f"python benchmarks/privacy_utility.py {data} --encoder {encoder} --rounds {arguments.rounds}"
    versions = {name: version(name) for name in ("torch", "opacus", "dp-accounting")}
    versions["python"] = platform.python_version()
    table = "\n".join(lines)
    text = f"""# What privacy costs in accuracy

Test accuracy % ± standard deviation over {arguments.seeds} runs (seeds of the initial weights; the noise is the
operating system's), mean over the sites, image level, add-or-remove-one, delta {DELTA:g}, {arguments.rounds} rounds.
Hyperparameters were chosen on validation images of these two sets at epsilon 8 and are not covered by epsilon.

![accuracy against epsilon](privacy-utility.svg)
{table}

Made by `{command}` with {", ".join(f"{k} {v}" for k, v in sorted(versions.items()))}.
"""
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "privacy-utility.md").write_text(text, encoding="utf-8")
    content = {"command": command, "versions": versions, "results": results}
    (arguments.out / "privacy-utility.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw(results, arguments.out)


if __name__ == "__main__":
    main()
