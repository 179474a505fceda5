"""Runs side by side: utility, epsilon and bytes, each taken from the run's own report."""

from collections.abc import Mapping, Sequence
from typing import Any

from audit.bounds import at_most
from audit.report.privacy import IN_SHARES
from audit.report.utility import METRICS

_MEANS = ("accuracy", "balanced_accuracy", "macro_f1")

COLUMNS = (
    ("run_id", "run"),
    ("verified", "record"),
    ("method", "method"),
    ("rounds", "rounds"),
    *((key, METRICS[key]) for key in _MEANS),
    ("worst_accuracy", "worst hospital"),
    ("ece", "ECE"),
    ("claim", "privacy"),
    ("epsilon", "epsilon"),
    ("delta", "delta"),
    ("mode", "mode"),
    ("unit", "unit"),
    ("adjacency", "neighbours"),
    ("against", "against"),
    ("masked", "masks"),
    ("up_per_client_round", "bytes up / client round"),
    ("down_per_client_round", "bytes down / client round"),
    ("up_total", "bytes up, all"),
)
"""Keys of a row and what people call them."""

_PROMISED = {"unit": "unit", "adjacency": "neighbouring relation", "delta": "delta", "against": "adversary"}
"""What an epsilon is stated for, by key: one says more than another only where all of these are the same."""

_PERCENT = (*_MEANS, "worst_accuracy", "ece")


def compare_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return {runs: one row a report, warnings: why rows may not be comparable}.

    Utility is that of the ensemble on test data, the mean over the hospitals.
    """
    rows = [_row(report) for report in reports]
    return {"runs": rows, "warnings": _warnings(reports, rows)}


def comparison_table(compared: Mapping[str, Any]) -> list[list[str]]:
    """Return the header and one line a run, as text; a dash stands for what a run does not state."""
    lines = [[name for _, name in COLUMNS]]
    lines += [[_shown(key, row[key]) for key, _ in COLUMNS] for row in compared["runs"]]
    return lines


def comparison_markdown(compared: Mapping[str, Any]) -> str:
    """Return the comparison as a Markdown table with its warnings."""
    header, *rows = comparison_table(compared)
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    notes = "".join(f"\n- {warning}" for warning in compared["warnings"])
    return table + "\n" + (f"{notes}\n" if notes else "")


def _row(report: Mapping[str, Any]) -> dict[str, Any]:
    identity, claim, utility = report["identity"], report["claim"], report["utility"]
    communication = report["communication"]
    mean = utility["mean"].get("ensemble", {})
    worst = utility["worst"].get("accuracy")
    return {
        "run_id": identity["run_id"],
        "verified": identity["is_verified"],
        "method": identity["method"],
        "rounds": identity["rounds"],
        **{key: mean.get(key) for key in _MEANS},
        "worst_accuracy": None if worst is None else worst["value"],
        "ece": mean.get("ece"),
        "claim": claim["claim"],
        "epsilon": claim["epsilon"],
        "delta": claim["delta"],
        "mode": claim["mode"],
        "unit": claim["unit"],
        "adjacency": claim["adjacency"],
        "against": _against(claim),
        "masked": report["protocol"].get("secure_aggregation"),
        "up_per_client_round": communication["per_client_round"]["up"],
        "down_per_client_round": communication["per_client_round"]["down"],
        "up_total": communication["all_sent"]["up"],
    }


def _warnings(reports: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [
        f"{row['run_id']} DOES NOT VERIFY: nothing in its row may be relied on" for row in rows if not row["verified"]
    ]
    differ = len({report["data"]["fingerprint"] for report in reports}) > 1
    if differ and any(report["data"]["keyed"] for report in reports):
        found.append(
            "runs with --dp and deployments name their data under keys of their own, so that these cannot be compared: "
            "see for yourself that all are on the same data"
        )
    elif differ:
        found.append("the runs are not all on the same data: their utility is not comparable")
    if len({report["data"]["encoder_digest"] for report in reports}) > 1:
        found.append("the runs do not all have the same encoder: their utility is not comparable")
    claimed = [row for row in rows if row["claim"] == "CLAIMED"]
    differ_in = [what for key, what in _PROMISED.items() if len({row[key] for row in claimed}) > 1]
    if differ_in:
        found.append(
            f"epsilon is not stated for the same {' or '.join(differ_in)} in all runs: smaller is not simply better"
        )
    return found


def _against(claim: Mapping[str, Any]) -> str | None:
    """Against whom a claimed epsilon holds."""
    if claim["claim"] != "CLAIMED":
        return None
    return "sums only" if claim["mode"] in IN_SHARES else "everybody"


def _shown(key: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if key == "verified":
        return "verifies" if value else "FAILS"
    if key in _PERCENT:
        return f"{100 * value:.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "epsilon":
        return at_most(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if key.startswith(("up", "down")) else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and key != "rounds" else str(value)
