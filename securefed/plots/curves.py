"""Plots over rounds: accuracy by site, keep ratios, bytes by kind."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import AutoLocator, MaxNLocator, PercentFormatter

from audit.history import RoundRecord
from securefed.plots.style import COLOURS, figure, labels_of_sites, legend_inches, legend_outside, look_of_site
from securefed.run_folder import MetricRow

_DIRECTIONS = {"up": "upload", "down": "download"}


def plot_accuracy(rows: Sequence[MetricRow], chosen_round: int, folder: Path) -> None:
    """Draw validation accuracy of the ensemble by round, a line a site and their mean."""
    series: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if (row.split, row.part, row.metric) == ("val", "ensemble", "accuracy") and row.round >= 0:
            series[row.site][row.round] = row.value
    if not series:
        return
    with figure(folder, "accuracy") as drawing:
        axes = drawing.subplots()
        for index, (site, points) in enumerate(series.items()):
            axes.plot(list(points), list(points.values()), lw=1.2, ms=2.5, **look_of_site(site, index, len(series)))
        shared = sorted(set.intersection(*(set(points) for points in series.values())))
        mean = [sum(points[number] for points in series.values()) / len(series) for number in shared]
        axes.plot(shared, mean, color="black", lw=2.2, marker=_marker(shared), label="mean over sites")
        if chosen_round > 0:
            axes.axvline(chosen_round, color="#666666", ls="--", lw=1, label=f"kept: round {chosen_round}")
        axes.set(title="Validation accuracy of the ensemble", xlabel="round", ylabel="accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _count_rounds(axes)
        legend_outside(axes)


def plot_keep_ratios(rows: Sequence[MetricRow], folder: Path) -> None:
    """Draw the share of rows that each site's masked layers keep, by round."""
    series: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row.metric.startswith("keep_ratio"):
            series[row.part, row.site][row.round] = row.value
    parts = sorted({part for part, _ in series})
    if not parts:
        return
    lines = -(-len(parts) // 2)
    labels = labels_of_sites(list(dict.fromkeys(site for _, site in series)))
    columns = max(1, min(5, len(labels), int(9.4 / legend_inches(labels))))
    more = -(-len(labels) // columns) - -(-len(labels) // 5)
    with figure(folder, "keep_ratios", width=9.6, height=0.8 + 2.4 * lines + 0.2 * more) as drawing:
        panels = list(drawing.subplots(lines, 2, squeeze=False, sharex=True).flat)
        for axes in panels:
            axes.set_visible(False)
        for part, axes in zip(parts, panels, strict=False):
            axes.set_visible(True)
            lowest = 1.0
            sites = [site for name, site in series if name == part]
            for index, site in enumerate(sites):
                points = series[part, site]
                lowest = min(lowest, *points.values())
                axes.plot(list(points), list(points.values()), lw=1.2, ms=2.5, **look_of_site(site, index, len(sites)))
            room = max(0.1 * (1 - lowest), 0.005)
            axes.set(title=part, ylabel="rows kept", ylim=(lowest - room, 1 + room))
            axes.yaxis.set_major_locator(_UpToAll())
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
            _count_rounds(axes)
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("round")
        handles, names = drawing.axes[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=columns)


class _UpToAll(AutoLocator):
    """Ticks of shares: none beyond 1, where an axis has room for markers only."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the usual ticks, up to 1."""
        return [tick for tick in super().tick_values(vmin, vmax) if tick < 1 + 1e-9]


def _count_rounds(axes: Axes) -> None:
    """Have whole rounds as ticks, and a single one in the middle."""
    first, last = axes.dataLim.intervalx
    if first == last:
        axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _marker(rounds: Sequence[int]) -> str | None:
    """The marker of a line without one: a line of one point would not be seen."""
    return "o" if len(rounds) == 1 else None


def plot_bytes(training: Sequence[RoundRecord], folder: Path) -> None:
    """Draw mean bytes a client and round, upload and download, stacked by kind, on a broken-down bar a stage.

    The bars of a direction add up to what summary.json has: the same rounds, those of training that the result stands
    on, and the same clients, in each round those that took part.
    """
    client_rounds = sum(len(record.bytes) for record in training)
    totals: dict[tuple[str, str, str], float] = defaultdict(float)
    for record in training:
        for count in record.byte_rows():
            totals[_DIRECTIONS[count.way], count.stage, count.kind] += count.bytes / client_rounds
    if not totals:
        return
    kinds = sorted({kind for _, _, kind in totals}, key=lambda kind: -sum(v for k, v in totals.items() if k[2] == kind))
    labels = list(dict.fromkeys((direction, stage) for direction, stage, _ in totals))
    with figure(folder, "bytes", height=1.4 + 0.34 * len(labels)) as drawing:
        axes = drawing.subplots()
        for place, (direction, stage) in enumerate(labels):
            left = 0.0
            for index, kind in enumerate(kinds):
                size = totals.get((direction, stage, kind), 0.0) / 1024
                axes.barh(
                    place, size, left=left, color=COLOURS[index % len(COLOURS)], label=kind if place == 0 else None
                )
                left += size
            axes.annotate(f" {left:,.1f} KiB", (left, place), va="center", fontsize=8)
        axes.set_yticks(range(len(labels)), [f"{direction}: {stage}" for direction, stage in labels])
        axes.invert_yaxis()
        axes.margins(x=0.16)
        axes.grid(visible=False, axis="y")
        axes.set(title="Bytes a client and round, by stage and kind", xlabel="KiB in encoded frames (mean)")
        handles = [Patch(color=COLOURS[index % len(COLOURS)]) for index in range(len(kinds))]
        drawing.legend(handles, kinds, loc="outside lower center", ncols=min(5, len(kinds)))
