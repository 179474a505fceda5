"""The section about communication: every byte, and what other methods would send."""

from collections.abc import Mapping
from typing import Any

from audit.report.blocks import Blocks, Cell, Number, decimal, figure, pairs, paragraph, table, whole
from audit.report.charts import bars, stacked_bars


def communication(report: Mapping[str, Any]) -> Blocks:
    """Return bytes by hospital, stage and kind, by round, and against formula, paper and FedAvg."""
    section = report["communication"]

    def both(rows: Mapping[str, Mapping[str, int]]) -> list[tuple[Cell, ...]]:
        return [(key, whole(value["up"]), whole(value["down"])) for key, value in rows.items()]

    comparison = [(entry["name"], _bytes(entry["bytes"]), decimal(entry["ratio"])) for entry in section["comparison"]]
    mean = section["per_client_round"]
    facts: list[tuple[str, Cell]] = [
        ("sent by all hospitals", whole(section["all_sent"]["up"])),
        ("received by all hospitals", whole(section["all_sent"]["down"])),
        ("sent, without rounds aborted or done again", whole(section["total"]["up"])),
        ("a hospital sends in a round", _bytes(mean["up"])),
        ("a hospital receives in a round", _bytes(mean["down"])),
    ]
    parts = [
        *paragraph(
            "Counted on the encoded frames of every message of the rounds; none is an estimate. What only closes a "
            "round or countersigns the log carries no vector and is not counted."
        ),
        *(paragraph(_cut_short(section["cut_short"])) if "cut_short" in section else ()),
        *pairs("Bytes", facts),
        *table("By hospital", ("hospital", "bytes up", "bytes down"), both(section["by_client"]), numbers=(1, 2)),
        *table("By stage", ("stage", "bytes up", "bytes down"), both(section["by_stage"]), numbers=(1, 2)),
        *table(
            "Against other ways to train",
            ("what a hospital sends in a round", "bytes", "times as much"),
            comparison,
            numbers=(1, 2),
        ),
    ]
    if any(entry["kinds"] for entry in section["by_round"]):
        columns = [(str(entry["round"]), entry["kinds"]) for entry in section["by_round"]]
        sent = section["all_sent"]["up"]
        drawing = stacked_bars(
            "Bytes sent by round",
            f"{sent:,} bytes over {len(columns)} rounds, one bar a round, stacked by kind",
            columns,
            x_label="round",
            y_label="bytes up",
        )
        parts += figure(drawing, "Bytes that all hospitals sent, by round and kind.")
    sizes = {entry["name"]: (entry["bytes"], None) for entry in section["comparison"] if entry["bytes"]}
    if section["client_rounds"]:
        ways = bars("What a hospital sends in a round", "one bar a way to train", sizes, unit="bytes")
        parts += figure(ways, "One hospital, one round, on one scale.")
    return parts


def _cut_short(count: int) -> str:
    attempts, sent = (f"{count:,} attempts at rounds were", "they") if count > 1 else ("1 attempt at a round was", "it")
    return f"{attempts} cut short, as by a kill: what {sent} had sent is in no log and in none of these figures."


def _bytes(value: float) -> Number:
    return Number(value, f"{value:,.0f}")
