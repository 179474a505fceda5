"""Sections about privacy: the formal claim, its scope, the guarantee by adversary, budgets."""

from collections.abc import Mapping
from typing import Any

from audit.bounds import at_most, percent_at_most
from audit.report.blocks import (
    Blocks,
    Cell,
    Number,
    Paragraph,
    Verdict,
    bullets,
    decimal,
    figure,
    heading,
    in_words,
    lower,
    pairs,
    paragraph,
    percent,
    table,
    upper,
    whole,
)
from audit.report.charts import bars, line_chart
from audit.report.privacy import covered
from audit.report.verdicts import as_of, budget_of

_AFTER = "after this run's last charge, at most"
_QUICK = (
    "What is spent after a charge is the ledger's quick bound over all that the budget had to bear by then, of this "
    "run and of others. What is charged later is not in it; securefed audit ledger show LEDGER says, by a closer "
    "bound, where budgets stand today."
)


def claim(report: Mapping[str, Any]) -> Blocks:
    """Return the claim in words and numbers, with the plots that go with it."""
    stated = report["claim"]
    parts = paragraph(stated["statement"])
    if stated["claim"] != "CLAIMED":
        return [*parts, *paragraph(stated["reason"])]
    facts: list[tuple[str, Cell]] = [
        ("unit", stated["unit"]),
        ("neighbours by", stated["adjacency"]),
        ("epsilon, upper bound", upper(stated["epsilon"], 5)),
        ("epsilon, lower bound of the accountant", lower(stated["lower"], 5)),
        ("delta", decimal(stated["delta"])),
        ("accountant", stated["accountant"]),
        ("target", decimal(stated["target_epsilon"])),
    ]
    facts += [(f"cross-check by {name}", upper(value, 5)) for name, value in stated["cross_checks"].items()]
    events = [
        (
            event["hospital"] or "all",
            event["mechanism"]["type"],
            in_words({name: value for name, value in event["mechanism"].items() if name != "type"}),
            whole(event["repetitions"]),
        )
        for event in stated["events"]
    ]
    profile = [(decimal(entry["delta"]), upper(entry["epsilon"], 5)) for entry in stated["by_delta"]]
    attacker = [
        (percent(entry["false_positives"]), Number(entry["true_positives"], percent_at_most(entry["true_positives"])))
        for entry in stated["attacker"]
    ]
    return [
        *paragraph(covered(stated)),
        *parts,
        *(Paragraph(line, "alarm") for line in stated["contradictions"]),
        *pairs("The guarantee", facts),
        *table("What was released", ("hospital", "mechanism", "parameters", "times"), events, numbers=(3,)),
        *_by_round(report),
        *table("epsilon for other deltas", ("delta", "epsilon"), profile, numbers=(1,)),
        *_profile(stated),
        *table(
            "The most that any attack on membership can achieve",
            ("wrong accusations", "found members, at most"),
            attacker,
            numbers=(1,),
        ),
    ]


def scope(report: Mapping[str, Any]) -> Blocks:
    """Return everything that passed the hospital's door, what nothing protects, and the checklist."""
    kinds = [
        (name, whole(both["up"]), whole(both["down"])) for name, both in report["communication"]["by_kind"].items()
    ]
    checklist = [(row["name"], Verdict(row["outcome"]), row["detail"]) for row in report["pitfalls"]]
    unprotected = report["claim"]["unprotected"]
    return [
        *table(
            "Everything that passed between hospitals and server, by kind",
            ("kind", "bytes up", "bytes down"),
            kinds,
            numbers=(1, 2),
        ),
        *heading("Quantities that nothing protects"),
        *(bullets(unprotected) or paragraph("The run lists none." if report["trust"] else "Nothing left a hospital.")),
        *heading("Checklist"),
        *table("Pitfalls of training with differential privacy", ("pitfall", "outcome", "shown by"), checklist),
    ]


def trust(report: Mapping[str, Any]) -> Blocks:
    """Return the guarantee against each adversary."""
    rows = [(row["adversary"], row["sees"], row["protection"], upper(row["epsilon"])) for row in report["trust"]]
    parts = table(
        "Guarantee by adversary; a dash is no guarantee by noise", ("who", "sees", "what protects", "epsilon"), rows
    )
    if not parts:
        return paragraph("Nothing was sent to anybody in this run.")
    costs = {row["adversary"]: (row["epsilon"], None) for row in report["trust"] if row["epsilon"] is not None}
    if costs:
        drawing = bars("epsilon by adversary", "one bar an adversary", costs, unit="epsilon", label=at_most)
        parts += figure(drawing, "The same run, against each adversary; less is better.")
    return parts


def budgets(report: Mapping[str, Any]) -> Blocks:
    """Return the account of each hospital."""
    rows = [
        (
            entry["name"],
            upper(entry["epsilon"]),
            upper(entry["epsilon_after"]),
            budget_of(entry) if "budget_delta" in entry else decimal(entry["budget"]),
            whole(entry["charges"]),
            whole(entry["refused"]),
            whole(entry["renewals"]),
        )
        for entry in report["hospitals"]
    ]
    header = ("hospital", "epsilon of this run", _AFTER, "budget", "charges", "refused", "renewals")
    parts = table("Accounts; what was charged to no ledger has a dash", header, rows, numbers=(1, 2, 3, 4, 5, 6))
    parts += paragraph(_QUICK) if any(entry["epsilon_after"] is not None for entry in report["hospitals"]) else []
    parts += _in_ledger(report)
    spent = {
        entry["name"]: (_first(entry["epsilon_after"], entry["epsilon"]), entry["budget"])
        for entry in report["hospitals"]
        if entry["epsilon"] is not None
    }
    if spent:
        drawing = bars(
            "Spent by hospital", "one bar a hospital, a mark at its budget", spent, unit="epsilon", label=at_most
        )
        parts += figure(drawing, "After the last charge, or of this run alone; the mark is the budget over all runs.")
    return parts


def _in_ledger(report: Mapping[str, Any]) -> Blocks:
    """Return where budgets stand in a ledger that was read for this report; nothing where none was."""
    standings = {entry["name"]: entry["in_ledger"] for entry in report["hospitals"] if "in_ledger" in entry}
    rows = [
        (
            name,
            found["unit"],
            budget_of(found),
            upper(found["spent"]) if found["spent"] is not None else "infinite",
            lower(found["remaining"]),
            whole(found["runs"]),
            whole(found["charges"]),
        )
        for name, found in standings.items()
    ]
    if not rows:
        return []
    read = report["ledger"]
    header = ("hospital", "unit", "budget", "spent, at most", "left, at least", "runs", "charges")
    caption = f"Budgets in the ledger as of {as_of(read)}"
    note = paragraph(f"The ledger was read for this report and is no part of the run; its digest was {read['digest']}.")
    return [*table(caption, header, rows, numbers=(2, 3, 4, 5, 6)), *note]


def _by_round(report: Mapping[str, Any]) -> Blocks:
    points = [(entry["round"], entry["epsilon"]) for entry in report["rounds"] if entry["epsilon"] is not None]
    if not points:
        return []
    limits = [entry["budget"] for entry in report["hospitals"] if entry["budget"] is not None]
    drawing = line_chart(
        "epsilon by round",
        f"epsilon grows to {at_most(points[-1][1])} in round {points[-1][0]}",
        {"epsilon": points},
        x_label="round",
        y_label="epsilon",
        limit=("smallest budget", min(limits)) if limits else None,
    )
    return figure(drawing, "Largest epsilon over the hospitals after each round.")


def _profile(stated: Mapping[str, Any]) -> Blocks:
    points = sorted((entry["epsilon"], entry["delta"]) for entry in stated["by_delta"] if entry["epsilon"] is not None)
    if len(points) < 2:
        return []
    (least, largest), (most, smallest) = points[0], points[-1]
    drawing = line_chart(
        "delta by epsilon",
        f"at epsilon {at_most(least)} delta is {largest:g}, at {at_most(most)} it is {smallest:g}",
        {"delta": points},
        x_label="epsilon",
        y_label="delta",
        logarithmic="y",
    )
    return figure(drawing, "The same releases as pairs of epsilon and delta; every point of the line is a guarantee.")


def _first(value: float | None, other: float) -> float:
    return other if value is None else value
