"""Test accuracy of every method on real data sets, over seeds: the table of the README.

Every figure comes from a whole run of the federation (fixed-point sums; with --secure-agg under pairwise masks, which
gives the same models bit for bit), its round chosen by validation accuracy. Runs are kept in --runs and not repeated;
beside each stands which processor and which commit it was made with, because the last bits of a model hang on both.

    python benchmarks/accuracy.py --data PATH --data PATH --encoder local-dir:PATH

writes docs/results/accuracy.md and .json. The data sets and the encoder are described in docs/data.md.
"""

import argparse
import json
import platform
import statistics
import subprocess
from pathlib import Path

import sklearn
import torch
from speed_cohort import machine

from securefed.config import config_digest, config_from_mapping
from securefed.simulation import simulate

ROWS = {
    "zero-shot": ("zero-shot", "default"),
    "linear probe per site": ("linear-probe", "default"),
    "local (nothing shared), default": ("local", "default"),
    "fedclip (FAM only), default": ("fedclip", "default"),
    "fedavg-mlp (MLP shared too), default": ("fedavg-mlp", "default"),
    "fedmedclip, paper": ("fedmedclip", "paper"),
    "fedmedclip, default": ("fedmedclip", "default"),
}
"""Row of the table to method and profile."""

WITHOUT_CHANCE = ("zero-shot", "linear-probe")
"""Methods that give the same for every seed: one run."""

PARTS = ("ensemble", "fam", "mlp")

UNKNOWN = {"processor": "unknown", "commit": "unknown"}
"""Origin of a run that was kept without one."""


def origin() -> dict[str, str]:
    """Return the processor of this machine and the commit of this tree; `-dirty` where tracked files were changed."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return {"processor": machine()["processor"], "commit": told.stdout.strip() or "unknown"}


def summary_of(data: str, encoder: str, row: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Return the summary of a run and its `origin`, from its folder where it has been run before."""
    method, profile = ROWS[row]
    config = config_from_mapping(
        {
            "data": {"source": data},
            "encoder": {"name": encoder},
            "federation": {"method": method, "rounds": arguments.rounds, "seed": seed, "device": "cpu"},
            "secure_aggregation": {"enabled": arguments.secure_agg},
            "training": {"profile": profile},
        }
    )
    folder = arguments.runs / config_digest(config)[:16]
    summary, made = folder / "summary.json", folder.with_suffix(".origin.json")
    if not summary.exists():
        made.write_text(json.dumps(origin()), encoding="utf-8")
        simulate(config, output=folder, cache_dir=arguments.cache)
    known = json.loads(made.read_text(encoding="utf-8")) if made.exists() else UNKNOWN
    return json.loads(summary.read_text(encoding="utf-8")) | {"origin": known}


def cell(runs: list[dict], part: str) -> str:
    """Return accuracy and, in brackets, balanced accuracy in per cent, each `mean ± deviation`; "" without the part."""
    means = [run["mean"][part] for run in runs if part in run["mean"]]
    if not means:
        return ""
    accuracy, balanced = (_spread([mean[name] for mean in means]) for name in ("accuracy", "balanced_accuracy"))
    return f"{accuracy} ({balanced})"


def _spread(shares: list[float]) -> str:
    """Return `mean ± standard deviation` in per cent; the mean alone of a single run."""
    deviation = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * statistics.fmean(shares):.1f}{deviation}"


def shown_origins(results: dict) -> str:
    """Return in words on which processors and at which commits the runs of all tables were made."""
    origins = {tuple(run["origin"].values()) for rows in results.values() for runs in rows.values() for run in runs}
    return "; ".join(f"on {processor} at commit {commit}" for processor, commit in sorted(origins))


def shown_command(arguments: argparse.Namespace) -> str:
    """Return the command that makes the results again, with PATH for where this machine keeps data and encoder."""
    data = " ".join(f"--data PATH/{Path(source).name}" for source in arguments.data)
    kind, colon, place = arguments.encoder.partition(":")
    encoder = f"{kind}:PATH/{Path(place).name}" if colon else kind
    counts = f"--rounds {arguments.rounds} --seeds {arguments.seeds}"
    return f"python benchmarks/accuracy.py {data} --encoder {encoder} {counts}"


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", action="append", required=True, help="a data set; may be given several times")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--row", action="append", choices=ROWS, help="a row of the table; may be given several times")
    parser.add_argument("--secure-agg", action="store_true", help="sum under pairwise masks")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"), help="where the run folders are kept")
    parser.add_argument("--cache", type=Path, help="folder of the feature cache")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.runs.mkdir(parents=True, exist_ok=True)

    results: dict = {}
    lines: list[str] = []
    for data in arguments.data:
        name = Path(data).name
        lines += ["", f"## {name}", "", "| method | ensemble | FAM | MLP |", "|---|---|---|---|"]
        for row in arguments.row or ROWS:
            seeds = 1 if ROWS[row][0] in WITHOUT_CHANCE else arguments.seeds
            runs = [summary_of(data, arguments.encoder, row, seed, arguments) for seed in range(seeds)]
            results.setdefault(name, {})[row] = [
                {key: run[key] for key in ("config_digest", "chosen_round", "mean", "fam_sha256", "origin")}
                for run in runs
            ]
            lines.append(f"| {row} | {' | '.join(cell(runs, part) for part in PARTS)} |")
            print(name, lines[-1], flush=True)

    command = shown_command(arguments)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "scikit-learn": sklearn.__version__}
    table = "\n".join(lines)
    text = f"""# Test accuracy by method

Accuracy % (balanced accuracy %), each ± its standard deviation over {arguments.seeds} seeds, mean over the sites, on
the given test splits; {arguments.rounds} rounds, the round chosen by validation accuracy. Balanced accuracy is over the
classes that a site's test images have. Methods without chance have one run.
{table}

Made by `{command}` with {", ".join(f"{k} {v}" for k, v in versions.items())};
{shown_origins(results)}.
"""
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "accuracy.md").write_text(text, encoding="utf-8")
    content = {"command": command, "versions": versions, "results": results}
    (arguments.out / "accuracy.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
