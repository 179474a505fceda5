"""Progress and tables for people: words and bars to stderr, results to stdout."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from audit.report.utility import METRICS
from securefed.observer import Observer, RoundView
from securefed.sweep.cell import CellResult
from securefed.sweep.table import MEAN, mean_accuracy

PARTS = ("ensemble", "fam", "mlp", "zero-shot")

_VERBATIM: Any = {"highlight": False, "markup": False, "emoji": False}
"""Text is printed as it is, in tables too: names of sites, classes and files may look like markup."""

_ENDLESS = 1_000_000
"""Characters of a line that nobody sees in a terminal, at most."""


class ConsoleObserver(Observer):
    """Draws what a run tells on stderr; a context manager that leaves the terminal clean, also under Ctrl-C."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, soft_wrap=not sys.stderr.isatty(), **_VERBATIM)
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=quiet,
        )
        self._encode: TaskID | None = None
        self._rounds: TaskID | None = None
        self._cells: TaskID | None = None

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._progress.stop()

    def started(self, folder: Path, lines: list[str]) -> None:
        """Print where the run lies and what it is."""
        for line in (*lines, f"run folder: {folder}"):
            self._say(line)

    def noted(self, text: str) -> None:
        """Print what was chosen."""
        self._say(text)

    def warned(self, text: str) -> None:
        """Print a warning, also where there is no progress: figures may be worth less than they look."""
        self.console.print(f"warning: {text}", style="yellow")

    def encoded(self, done: int, total: int) -> None:
        """Move the bar of the encoder."""
        if self._encode is None:
            self._encode = self._progress.add_task("encoding images", total=total, note="")
        self._progress.update(self._encode, completed=done, total=total)

    def round_finished(self, view: RoundView) -> None:
        """Move the bar of the rounds."""
        if self._rounds is None:
            self._rounds = self._progress.add_task("rounds", total=view.rounds, note="")
        note = f"val {100 * view.mean_accuracy:.1f} %"
        if view.upload_bytes:
            note += f", {view.upload_bytes / 1024:,.0f} KiB up a client"
        self._progress.update(self._rounds, completed=view.number, note=note)
        for site, stage in view.lost.items():
            self._say(f"round {view.number}: {site} was lost at {stage}")

    def cell_finished(self, values: str, status: str, error: str, cells: int) -> None:
        """Move the bar of a sweep and say what failed."""
        if self._cells is None:
            self._cells = self._progress.add_task("runs", total=cells, note="")
        self._progress.advance(self._cells)
        if error:
            self.console.print(f"{status}: {values}: {error}", style="yellow")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self.console.print(text)


def print_result(summary: dict[str, Any], verdict: Sequence[str], folder: Path) -> None:
    """Print the table of a finished run, its verdict and where everything lies to stdout."""
    out = stdout_console()
    out.print(metric_table(summary, "Test data, %"))
    if summary["fam_sha256"]:
        out.print(f"model: kept from round {summary['chosen_round']}, sha256 {summary['fam_sha256']}")
    for line in verdict:
        out.print(line)
    out.print(f"results: {folder}, to read first: {folder / 'report.html'}")


def stdout_console() -> Console:
    """Return a console on stdout that cuts no line where nobody sees a terminal; tables are as wide as they need."""
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else _ENDLESS, soft_wrap=not terminal, **_VERBATIM)


def metric_table(result: dict[str, Any], title: str) -> Table:
    """Return a table of all metrics, a line a site and part; `result` has the keys sites, mean and global_site."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("site")
    table.add_column("part")
    for name in METRICS.values():
        table.add_column(name, justify="right")
    blocks = [(site, parts.get("test", parts)) for site, parts in result["sites"].items()]
    blocks.append((MEAN, result["mean"]))
    if result.get("global_site"):
        blocks.append((f"{result['global_site']['site']} (held out)", result["global_site"]))
    for name, parts in blocks:
        for part in PARTS:
            if part in parts:
                values = [_percent(parts[part].get(metric)) for metric in METRICS]
                table.add_row(name, part, *values, style="bold" if name == MEAN else None)
                name = ""
    return table


def sweep_table(keys: Sequence[str], cells: Sequence[tuple[Mapping[str, Any], CellResult]]) -> Table:
    """Return a table of the cells of a sweep: their values, status and mean test accuracy of the ensemble."""
    table = Table(title="Test accuracy of the ensemble, mean over sites, %", title_justify="left", box=None)
    for key in keys:
        table.add_column(key)
    table.add_column("status")
    table.add_column("accuracy", justify="right")
    for values, result in cells:
        table.add_row(*(str(values[key]) for key in keys), result.status, _percent(mean_accuracy(result)))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
