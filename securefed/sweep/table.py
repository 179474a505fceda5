"""The results of a sweep as one tidy table: a line a cell, site, part and metric."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audit.durable import write_whole
from securefed.sweep.cell import CellResult
from securefed.sweep.plan import Cell, SweepPlan

MEAN = "mean over sites"
RUN = "run"
"""What stands as the part of figures that belong to a whole run."""

_COUNT = "num_images"
"""Stands beside the metrics of a part; what the summary has of it beside their means is a sum."""

Row = dict[str, Any]


def tidy_rows(plan: SweepPlan, results: Mapping[str, CellResult]) -> list[Row]:
    """Return a line a figure: `cell`, `status`, one column a key of the grid, then `site`, `part`, `metric`, `value`.

    Test metrics have a line for each site, for the mean over sites and for the held-out site; so has the number of
    images that they are of, without a mean. Figures of a whole run (bytes, seconds, rounds, and epsilon where one is
    claimed) have the part `run` and no site. A cell without results has one line without a value, and its status.
    """
    rows: list[Row] = []
    for cell in plan.cells:
        result = results[cell.name]
        head: Row = {"cell": cell.name, "status": result.status}
        head |= {key: _plain(value) for key, value in cell.values.items()}
        if result.summary is None:
            rows.append({**head, "site": "", "part": "", "metric": "", "value": None})
            continue
        rows += [
            {**head, "site": site, "part": part, "metric": metric, "value": value}
            for site, part, metric, value in _figures(result.summary)
        ]
    return rows


def write_table(folder: Path, rows: Sequence[Row]) -> tuple[Path, Path]:
    """Write results.csv and results.parquet, each whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    table, columns = folder / "results.csv", folder / "results.parquet"
    write_whole(table, [text.getvalue().encode()])
    buffer = io.BytesIO()
    parquet.write_table(pa.table({name: _column([row[name] for row in rows]) for name in rows[0]}), buffer)
    write_whole(columns, [buffer.getvalue()])
    return table, columns


def mean_accuracy(result: CellResult) -> float | None:
    """Return the mean test accuracy of the ensemble over the sites, None without a result."""
    if result.summary is None:
        return None
    value = result.summary["mean"].get("ensemble", {}).get("accuracy")
    return None if value is None else float(value)


def label(cell: Cell, key: str) -> str:
    """Return a value of the grid as text."""
    return str(_plain(cell.values[key]))


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, str, str, float]]:
    blocks = [(site, parts["test"]) for site, parts in summary["sites"].items()]
    blocks.append((MEAN, summary["mean"]))
    if summary["global_site"]:
        held_out = dict(summary["global_site"])
        blocks.append((str(held_out.pop("site")), held_out))
    figures = [
        (site, part, metric, float(value))
        for site, parts in blocks
        for part, metrics in parts.items()
        for metric, value in metrics.items()
        if isinstance(value, int | float) and (site, metric) != (MEAN, _COUNT)
    ]
    of_run = {
        "rounds_completed": summary["rounds_completed"],
        "chosen_round": summary["chosen_round"],
        "epsilon": summary["privacy"]["epsilon"] if summary["privacy"]["claim"].startswith("CLAIMED") else None,
        **{name: summary["communication"][name] for name in ("upload_bytes", "download_bytes")},
        "upload_bytes_per_client_round": summary["communication"]["upload_bytes_per_client_round"],
        **summary["timing"],
    }
    figures += [("", RUN, name, float(value)) for name, value in of_run.items() if isinstance(value, int | float)]
    return figures


def _column(values: Sequence[Any]) -> list[Any]:
    """Values of one type: a column with texts among its numbers becomes texts."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        return list(values)
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float) else str(value)
