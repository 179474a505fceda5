"""Sections about what came out: attacks, utility, and what stays open."""

from collections.abc import Mapping
from typing import Any

from audit.bounds import at_least, at_most
from audit.report.blocks import (
    Blocks,
    SignOff,
    Verdict,
    bullets,
    figure,
    heading,
    in_words,
    paragraph,
    percent,
    table,
)
from audit.report.charts import bars, line_chart
from audit.report.utility import METRICS

_PARTS = {"ensemble": "ensemble", "fam": "FAM alone", "mlp": "private classifier alone"}
_METRICS = METRICS | {"ece": "calibration error"}


def empirical(report: Mapping[str, Any]) -> Blocks:
    """Return what was found when the run was attacked, with claim and finding side by side."""
    rows = [
        (
            entry["name"],
            entry["setting"],
            Verdict(entry["outcome"]),
            in_words({name: value for name, value in entry["values"].items() if not isinstance(value, list)}),
            entry["reason"],
        )
        for entry in report["empirical"]
    ]
    if not rows:
        return paragraph("No attack was tried on this run. What was not tried may still work.")
    return [
        *table("Attacks", ("attack", "setting", "outcome", "measured", "note"), rows),
        *_claimed_and_found(report),
        *_roc(report),
        *paragraph("An attack that fails shows little; one that succeeds is proof."),
    ]


def utility(report: Mapping[str, Any]) -> Blocks:
    """Return the test metrics of every hospital, the mean, a held-out site, and where it is worst."""
    measured = report["utility"]
    header = ("hospital", "part", *_METRICS.values())
    names = _PARTS | ({"mlp": "classifier alone"} if report["identity"]["method"] == "fedavg-mlp" else {})
    blocks = [*measured["sites"].items(), ("mean over hospitals", measured["mean"])]
    blocks += [(f"{site} (held out: took no part)", parts) for site, parts in measured["held_out"].items()]
    rows = [
        (site, names.get(part, part), *(percent(metrics[name]) for name in _METRICS))
        for site, parts in blocks
        for part, metrics in parts.items()
    ]
    if not rows:
        return paragraph("No test metric is in the record.")
    worst = [(_METRICS[name], entry["site"], percent(entry["value"])) for name, entry in measured["worst"].items()]
    parts = [
        *paragraph(f"On test data, of {measured['source']}."),
        *table("Test metrics", header, rows, numbers=(2, 3, 4, 5, 6)),
        *table("Where the ensemble is worst", ("metric", "hospital", "value"), worst, numbers=(2,)),
    ]
    for name, title in (("accuracy", "Accuracy"), ("ece", "Calibration error")):
        values = {
            site: (round(100 * entry["ensemble"][name], 1), None)
            for site, entry in measured["sites"].items()
            if entry.get("ensemble", {}).get(name) is not None
        }
        if values:
            unit = f"{title.lower()} of the ensemble, %"
            parts += figure(bars(title, "one bar a hospital", values, unit=unit), f"{title} at each hospital.")
    return parts


def risks(report: Mapping[str, Any]) -> Blocks:
    """Return the questions of an evaluator, limits, open items and the sign-off."""
    questions = [(row["question"], row["answer"], row["state"]) for row in report["questions"]]
    return [
        *table("Questions of an evaluator", ("question", "answer", "state"), questions),
        *heading("Limits of this report"),
        *bullets(report["limitations"]),
        *heading("Open items"),
        *(bullets([item.replace("_", " ") for item in report["purpose"]["open_items"]]) or paragraph("None.")),
        *heading("Sign-off"),
        SignOff(tuple(report["sign_off"])),
    ]


def _claimed_and_found(report: Mapping[str, Any]) -> Blocks:
    found = {
        f"found: {entry['name']}, {entry['setting']}": (entry["values"]["epsilon_lower"], report["claim"]["epsilon"])
        for entry in report["empirical"]
        if isinstance(entry["values"].get("epsilon_lower"), float | int)
    }
    if not found:
        return []
    claimed = report["claim"]["epsilon"]
    values = found if claimed is None else {"claimed, upper bound": (claimed, None), **found}
    drawing = bars(
        "Claimed and found epsilon",
        "a mark at the claim",
        values,
        unit="epsilon",
        label=lambda value: at_most(value) if value == claimed else at_least(value),
    )
    return figure(drawing, "What attacks found is a lower bound; past the mark the claim would be refuted.")


def _roc(report: Mapping[str, Any]) -> Blocks:
    curves = {
        f"{entry['name']}, {entry['setting']}": list(
            zip(entry["values"]["false_positives"], entry["values"]["true_positives"], strict=True)
        )
        for entry in report["empirical"]
        if isinstance(entry["values"].get("false_positives"), list)
        and isinstance(entry["values"].get("true_positives"), list)
    }
    if not curves:
        return []
    low = min(x for points in curves.values() for x, _ in points if x > 0)
    drawing = line_chart(
        "True against false positives of the attacks",
        "one line an attack; the diagonal is guessing",
        {**curves, "guessing": [(low, low), (1.0, 1.0)]},
        x_label="false positives",
        y_label="true positives",
        logarithmic="xy",
    )
    return figure(drawing, "Membership attacks; both axes are logarithmic, as low false-positive rates matter most.")
