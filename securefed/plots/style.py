"""One look for all plots: colours that stay apart for colour-blind readers, saved as SVG and PNG."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from audit.report.glyphs import BODY, known, width_of
from securefed.run_folder import unwritable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A4EAB", "#333333", "#A0A000", "#8C564B")
"""Okabe and Ito's palette, extended; lines also differ by marker."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")

_NAMED = 15
"""Sites that a legend names beside a plot of usual height; of more it has one entry for all."""

_LONGEST = 28
"""Characters of a name in a plot."""

_MOST_PIXELS, _LONGEST_SIDE = 100e6, 60_000
"""What a PNG may have: matplotlib refuses sides of 2**16, and a plot of so many pixels takes 400 MB to draw."""

_RESOLUTION = 130.0

SIZE, TITLE = 10, 11
"""Points of text and of titles, which are bold; an inch has 72."""

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": TITLE,
    "text.parse_math": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "securefed",
    "svg.fonttype": "path",
    "savefig.dpi": _RESOLUTION,
}


@contextmanager
def figure(folder: Path, name: str, width: float = 7.2, height: float = 4.2) -> Iterator[Figure]:
    """Yield a figure and save it as `folder/name.svg` and `.png` (same input, same bytes).

    Raises:
        RunFolderError: It cannot be written.
    """
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(width, height), layout="constrained")
        yield drawing
        _lay_out(drawing)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            drawing.savefig(folder / f"{name}.svg", metadata={"Date": None})
            drawing.savefig(folder / f"{name}.png", metadata={"Software": None}, dpi=_resolution(drawing))
        except OSError as error:
            raise unwritable(folder / name, error) from error


def _lay_out(drawing: Figure) -> None:
    """Place everything, as saving as SVG would; a figure that keeps its layout engine is drawn twice for each file."""
    engine, resolution = drawing.get_layout_engine(), drawing.dpi
    if engine is None:
        return
    FigureCanvasSVG(drawing)
    drawing.dpi = 72.0  # that of SVG
    engine.execute(drawing)
    drawing.dpi = resolution
    drawing.set_layout_engine(None)


def _resolution(drawing: Figure) -> float:
    """Return the dots an inch of a PNG: the usual ones, fewer where the figure is too large for them."""
    width, height = map(float, drawing.get_size_inches())
    return min(_RESOLUTION, math.sqrt(_MOST_PIXELS / (width * height)), _LONGEST_SIDE / max(width, height))


def shown(name: str) -> str:
    """Return a name as plots have it: in characters that the font has, cut in the middle where it is long.

    Legends leave out what starts with an underscore: such a name is shown after a space of no width.
    """
    text = known(name)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 13]}...{text[-10:]}"
    return f"\u200b{text}" if text.startswith("_") else text


def inches(labels: Iterable[str], size: float = SIZE, font: str = BODY) -> float:
    """Return the width of the longest of these labels in text of so many points."""
    return max((width_of(label, size, font) for label in labels), default=0.0) / 72


def legend_inches(labels: Iterable[str]) -> float:
    """Return the width of a column of a legend, its lines and the space beside them included."""
    return inches(labels) + 4.8 * SIZE / 72


def labels_of_sites(sites: Sequence[str]) -> list[str]:
    """Return what a legend has of these sites."""
    labels = (look_of_site(site, index, len(sites))["label"] for index, site in enumerate(sites))
    return [label for label in labels if label is not None]


def look_of_site(site: str, index: int, count: int) -> dict[str, Any]:
    """Return label, colour and marker of the index-th of so many sites; many look alike, with one label for all."""
    if count <= _NAMED:
        return {"label": shown(site), **look(index)}
    return {"label": f"each of {count} sites" if index == 0 else None, "color": COLOURS[5], "marker": MARKERS[0]}


def look(index: int) -> dict[str, Any]:
    """Return colour and marker of the index-th line."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def legend_outside(axes: Axes) -> None:
    """Put the legend to the right of the axes, where it hides nothing."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
