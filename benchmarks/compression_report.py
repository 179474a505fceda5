"""Table and plot of docs/results/compression.json: accuracy against what a hospital sends in a round.

    python benchmarks/compression_report.py

writes docs/results/compression.md, .svg and .png.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from securefed.plots.style import figure, look

PARTS = ("ensemble", "fam")
AIM = {"ensemble": 0.5, "fam": 1.0}
"""Points that may be lost against no compression."""
SEEDS = 3
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
REFERENCES = {
    "FedAvg of CLIP ViT-B/32, float32": 605_109_252,
    "FedCLIP's adapter (525,312 parameters), float32": 2_101_248,
    "the paper's FAM, float16 + zlib (1.36 MB as reported)": 1_426_063,
}
Group = tuple[str, int, str]


def groups(runs: list[dict[str, Any]]) -> dict[Group, dict[int, dict[str, Any]]]:
    """Return {(set, hospitals, what was asked for): {seed: run}}."""
    found: dict[Group, dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        found[run["set"], run["hospitals"], run["scheme"]][run["seed"]] = run
    return dict(sorted(found.items(), key=lambda item: (*item[0][:2], -item[1][min(item[1])]["upload_mean"])))


def table(found: dict[Group, dict[int, dict[str, Any]]]) -> list[str]:
    """Return one line a group; differences are paired, over the seeds that both have."""
    heads = ("data set", "hospitals", "compression", "seeds", "upload B (max)", "download B (max)")
    heads += ("last round: ensemble, FAM", "chosen round: ensemble, FAM", "last round against none")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (name, hospitals, scheme), runs in found.items():
        cells = [name, str(hospitals), shown(scheme, runs), str(len(runs))]
        for way in ("upload", "download"):
            mean = statistics.fmean(run[f"{way}_mean"] for run in runs.values())
            cells.append(f"{mean:,.0f} ({max(run[f'{way}_max'] for run in runs.values()):,.0f})")
        cells += [pair([run[at] for run in runs.values()]) for at in ("last", "best")]
        plain = found.get((name, hospitals, "none"), {})
        shared = [] if scheme == "none" else sorted(set(runs) & set(plain))
        differences = [
            {part: runs[seed]["last"][part] - plain[seed]["last"][part] for part in PARTS} for seed in shared
        ]
        cells.append(pair(differences, "+") if differences else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def shown(scheme: str, runs: dict[int, dict[str, Any]]) -> str:
    """Return the scheme, and for auto what it took."""
    chosen = runs[min(runs)]["chosen"]
    return scheme if scheme == chosen else f"{scheme}: {chosen}"


def pair(points: list[dict[str, float]], sign: str = "") -> str:
    """Return `ensemble, FAM` as means with the deviation over seeds."""
    texts = []
    for part in PARTS:
        numbers = [point[part] for point in points]
        spread = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
        texts.append(f"{statistics.fmean(numbers):{sign}.2f}{spread}")
    return ", ".join(texts)


def verdicts(found: dict[Group, dict[int, dict[str, Any]]]) -> list[str]:
    """Return for each cohort whether `auto` kept within the aim, and over how many seeds that was looked at."""
    lines = []
    for (name, hospitals, scheme), runs in found.items():
        plain = found.get((name, hospitals, "none"), {})
        shared = sorted(set(runs) & set(plain))
        if scheme != "auto" or not shared:
            continue
        said = []
        for part, limit in AIM.items():
            loss = statistics.fmean(plain[seed]["last"][part] - runs[seed]["last"][part] for seed in shared)
            said.append(f"{part} {'met' if loss <= limit else 'NOT met'} ({-loss:+.2f})")
        lines.append(f"- {name}, {hospitals} hospitals, {len(shared)} of {SEEDS} seeds: {', '.join(said)}")
    return lines


def draw(found: dict[Group, dict[int, dict[str, Any]]], folder: Path) -> None:
    """Draw the FAM's and the ensemble's accuracy in the last round against upload bytes."""
    cohorts = sorted({group[:2] for group in found})
    with figure(folder, "compression", width=9.0, height=5.2) as drawing:
        for place, part in enumerate(("fam", "ensemble")):
            axes = drawing.add_subplot(1, 2, place + 1)
            for index, cohort in enumerate(cohorts):
                points = sorted(
                    (
                        statistics.fmean(run["upload_mean"] for run in runs.values()),
                        statistics.fmean(run["last"][part] for run in runs.values()),
                    )
                    for group, runs in found.items()
                    if group[:2] == cohort
                )
                label = f"{cohort[0].split('_')[0]}, {cohort[1]} hospitals"
                axes.plot(*zip(*points, strict=True), **look(index), label=label, markersize=5)
            for line, size in enumerate(REFERENCES.values()):
                axes.axvline(size, color="#999999", linestyle=("--", ":", "-.")[line], linewidth=1)
            axes.axvline(60_000, color="#D55E00", linewidth=0.8)
            axes.set_xscale("log")
            axes.set_xlabel("bytes a hospital sends in a round")
            axes.set_ylabel("test accuracy, mean over sites (%)")
            axes.set_title("FAM alone" if part == "fam" else "ensemble")
            axes.legend(loc="lower right", fontsize=8)


def timing_lines(timing: dict[str, float]) -> list[str]:
    """Return the table of times."""
    lines = ["| one update, one thread | encode ms | decode ms | mask at k = 10 ms |", "|---|---|---|---|"]
    plain = (timing["encode_uncompressed"], timing["decode_uncompressed"], timing["mask_uncompressed"])
    lines.append(f"| none (526,336 coordinates) | {plain[0]:.2f} | {plain[1]:.2f} | {plain[2]:.2f} |")
    for key in timing:
        if key.startswith("encode ring"):
            scheme = key.removeprefix("encode ")
            cells = " | ".join(f"{timing[f'{what} {scheme}']:.2f}" for what in ("encode", "decode", "mask"))
            lines.append(f"| {scheme} | {cells} |")
    return lines


def main() -> None:
    """Write the page and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    content = json.loads((out / "compression.json").read_text(encoding="utf-8"))
    found = groups(content["runs"])
    draw(found, out)
    ours = max(run["upload_mean"] for run in content["runs"] if run["scheme"] == "auto")
    references = [f"| {name} | {size:,} | {size / ours:,.0f} |" for name, size in REFERENCES.items()]
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    text = f"""# Compressed updates: accuracy against bytes

Whole runs of the default method, {content["runs"][0]["rounds"]} rounds, settings as in the JSON (learning rates times
{content["settings"]["learning_rate_decay"]} a round), all under secure aggregation with an active server except
float16-zlib, which is in clear. Bytes are those of the encoded frames of all stages, protocol overhead included, a
hospital and round. Accuracy in percent on test images, mean over sites, ± deviation over seeds; differences are paired
by seed. `last round` is free of selection; `chosen round` is the one with the best validation ensemble, which for the
FAM alone is a matter of luck. 3 and 4 hospitals are the sets' own sites; at 10 the pooled images of each split are
dealt at random over hospitals. `auto` has the default budget of 60,000 bytes.

{chr(10).join(table(found))}

Aim: at most 60,000 bytes up, the ensemble within 0.5 and the FAM alone within 1 point of no compression, last round:

{chr(10).join(verdicts(found))}

![accuracy against bytes](compression.svg)

Grey lines: FedAvg of CLIP (dashed), FedCLIP's adapter (dotted), the paper's figure (dash-dotted). Orange: 60,000 bytes.

| reference (upload, bytes only) | bytes | times the largest `auto` upload |
|---|---|---|
{chr(10).join(references)}

## Time

{chr(10).join(timing_lines(content["timing_ms"]))}

Medians of 30 in one process. Encoding and decoding cost less than masking the update uncompressed; masking what is left
of it costs less still.

## Which stages earned their place

Chosen on validation images, never on test images: the FAM alone trained, mean of the last 15 of 50 rounds, learning
rates times 0.93 a round, one seed.

- Updates of both matrices are nearly of low rank, under Adam too: 87 % of the energy of a first mean update is in 32
  of 512 directions, 91 % in 64. A public subspace that follows the opened sums beats sending coordinates in turn at
  equal bytes: FAM 84.9 against 83.0, none 85.2 (brain set, 10 hospitals, 3 bits, an eighth).
- Error feedback without decay: 84.9 against 84.5 with decay 0.9 (the same case); in 16 directions with 4 bits on the
  skin set's sites 64.4 with decay 0.7 against 61.6 without feedback, none 66.7.
- Ranges that clamp 1.5 to 4 % on purpose: with a grid of 7 points the relative error of the second sum fell from 0.86
  to 0.53 against ranges that clamp nothing.
- What is left of a loss, none against an eighth: brain set 87.2 and 86.5 (sites, 3 bits), 85.2 and 84.9 (10 hospitals,
  3 bits); skin set 66.7 and 66.0 (sites, 4 bits) or 65.3 (3 bits), 49.9 and 49.0 (10 hospitals, 3 bits).
- Left out, no gain: fresh random directions beside the followed ones (49.2 and 49.0 against 49.0), training from a
  model that contains the own feedback (62.8 against 66.3 in 32 directions, decay 0.97), 2 bits (84.5 against 84.9), a
  keep mask (all rows are kept with the default settings).

Made by `{content["command"]}` with {versions}; {content["machine"]}.
"""
    (out / "compression.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
