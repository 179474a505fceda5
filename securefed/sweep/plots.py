"""Plots of a sweep: mean test accuracy over each key of the grid that has several values."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from securefed.plots.style import figure, inches, legend_outside, look, shown
from securefed.sweep.cell import CellResult
from securefed.sweep.plan import SweepPlan
from securefed.sweep.table import label, mean_accuracy

SEED = "federation.seed"
METHOD = "federation.method"

_ACROSS = 4.5
"""Inches along which words stand side by side as ticks; where they are wider they are turned."""


def plot_sweep(plan: SweepPlan, results: Mapping[str, CellResult], folder: Path) -> list[Path]:
    """Draw one plot a key other than the seed: the ensemble's accuracy, mean and standard deviation over all else.

    Lines are methods where the grid has several. Returns the files; nothing is drawn before a cell has a result.
    """
    drawn: list[Path] = []
    for key in plan.keys:
        series = _series(plan, results, key)
        every = list(dict.fromkeys(value for points in series.values() for value in points))
        if key == SEED or len(every) < 2:
            continue
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in every)
        name = f"accuracy_by_{key.replace('.', '_')}"
        folder.mkdir(parents=True, exist_ok=True)
        with figure(folder, name) as drawing:
            axes = drawing.subplots()
            for index, (line, points) in enumerate(series.items()):
                values = sorted(points) if numbers else list(points)
                x = values if numbers else [every.index(value) for value in values]
                groups = [points[value] for value in values]
                means = [fmean(group) for group in groups]
                spread = [stdev(group) if len(group) > 1 else 0.0 for group in groups]
                axes.errorbar(x, means, yerr=spread, capsize=3, label=shown(line or "mean over sites"), **look(index))
            if not numbers:
                _name_ticks(axes, [shown(str(value)) for value in every])
            title = "Test accuracy of the ensemble, mean over sites"
            axes.set(title=title, xlabel=key, ylabel="accuracy (± sd over the other keys)")
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            if len(series) > 1:
                legend_outside(axes)
        drawn += [folder / f"{name}.{kind}" for kind in ("svg", "png")]
    return drawn


def _name_ticks(axes: Axes, labels: list[str]) -> None:
    """Name the places 0, 1, 2, ... by words, side by side where these fit."""
    turned = len(labels) * (inches(labels) + 0.1) > _ACROSS
    look_of_words: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(range(len(labels)), labels, **look_of_words)


def _series(plan: SweepPlan, results: Mapping[str, CellResult], key: str) -> dict[str, dict[Any, list[float]]]:
    """{method or "": {value of the key: accuracies}}."""
    series: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in plan.cells:
        accuracy = mean_accuracy(results[cell.name])
        if accuracy is not None:
            line = label(cell, METHOD) if METHOD in plan.keys and key != METHOD else ""
            value = cell.values[key]
            series[line][value if isinstance(value, str | int | float) else str(value)].append(accuracy)
    return series
