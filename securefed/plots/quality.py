"""Plots of the kept model on test data: reliability diagram and confusion matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from audit.report.glyphs import BOLD
from securefed.plots.style import TITLE, figure, inches, labels_of_sites, legend_inches, look_of_site, shown

_BESIDE_THE_LEGEND = 4.9
"""Inches of a reliability diagram with its label and ticks."""


def plot_reliability(curves: Mapping[str, Mapping[str, Sequence[float]]], folder: Path) -> None:
    """Draw accuracy against confidence of the ensemble, a line a site.

    Args:
        curves: {site: {"confidence": [...], "accuracy": [...], "count": [...]}}, one entry a non-empty bin.
        folder: Where the plot is written.
    """
    if not curves:
        return
    width = _BESIDE_THE_LEGEND + legend_inches(["calibrated", *labels_of_sites(list(curves))])
    with figure(folder, "reliability", width=max(6.4, width), height=4.6) as drawing:
        axes = drawing.subplots()
        axes.plot([0, 1], [0, 1], color="#888888", ls="--", lw=1, label="calibrated")
        for index, (site, curve) in enumerate(curves.items()):
            style = look_of_site(site, index, len(curves))
            total = sum(curve["count"])
            sizes = [12 + 250 * count / total for count in curve["count"]]
            axes.plot(curve["confidence"], curve["accuracy"], lw=0.7, alpha=0.5, color=style["color"])
            axes.scatter(curve["confidence"], curve["accuracy"], s=sizes, alpha=0.85, lw=0, **style)
        axes.set(
            title="Reliability of the ensemble on test data",
            xlabel="confidence (area: share of images)",
            ylabel="accuracy",
        )
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", anchor="C" if width < 6.4 else "W")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=0.7)


def plot_confusion(matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str], folder: Path) -> None:
    """Draw a confusion matrix a site (rows true, columns predicted; shares of the true class, counts written)."""
    if not matrices:
        return
    names = [shown(name.replace("_", " ")) for name in classes]
    columns = 2 if len(matrices) == 4 else min(3, len(matrices))
    lines = -(-len(matrices) // columns)
    side = 1.6 + 0.42 * len(classes)
    across = max(side, 0.3 + inches(map(shown, matrices), TITLE, BOLD))
    beside = inches(names)
    width, height = max(1.2, 0.5 + beside) + across * columns, max(0.9, 0.9 * beside) + side * lines
    with figure(folder, "confusion", width=width, height=height) as drawing:
        panels: Any = drawing.subplots(lines, columns, squeeze=False, sharey=True)
        for axes, (site, matrix) in zip(panels.flat, matrices.items(), strict=False):
            counts = np.asarray(matrix, dtype=np.int64)
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    colour = "white" if shares[row, column] > 0.55 else "black"
                    text = axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
                    text.set_in_layout(False)  # it lies inside of the axes: the layout need not measure it
            axes.set_title(shown(site))
            if across > side:
                axes.set_anchor("W")  # the room is for the title, which begins where the matrix does
            axes.grid(visible=False)
            axes.set_xticks(range(len(names)), [""] * len(names))
            axes.set_yticks(range(len(names)), names)
        for axes in panels.flat[: len(matrices)][-columns:]:
            axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        for axes in panels.flat[len(matrices) :]:
            axes.set_axis_off()
        drawing.supxlabel("predicted")
        drawing.supylabel("true")
