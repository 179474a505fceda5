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
    whole,
)
from audit.report.charts import bars, line_chart
from audit.report.utility import FEW_IMAGES, METRICS, measured_at

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
    measured, images = report["utility"], report["utility"].get("images", {})
    header = ("hospital", "part", "images", *_METRICS.values())
    names = _PARTS | ({"mlp": "classifier alone"} if report["identity"]["method"] == "fedavg-mlp" else {})
    guests = {f"{site} (held out: took no part)": site for site in measured["held_out"]}
    counts = images | {title: images.get(site) for title, site in guests.items()}
    blocks = [*measured["sites"].items()]
    blocks += [
        (site, {"": dict.fromkeys(_METRICS)}) for site in report["data"]["hospitals"] if site not in dict(blocks)
    ]
    blocks += [("mean over hospitals", measured["mean"])]
    blocks += [(title, measured["held_out"][site]) for title, site in guests.items()]
    rows = [
        (site, names.get(part, part), whole(counts.get(site)), *(percent(metrics[name]) for name in _METRICS))
        for site, parts in blocks
        for part, metrics in parts.items()
    ]
    if not measured["sites"] and not measured["held_out"]:
        return paragraph("No test metric is in the record.")
    worst = [
        (_METRICS[name], entry["site"], whole(images.get(entry["site"])), percent(entry["value"]))
        for name, entry in measured["worst"].items()
    ]
    parts = [
        *paragraph(f"On test data, of {measured['source']}."),
        *table("Test metrics", header, rows, numbers=(2, 3, 4, 5, 6, 7)),
        *_gaps(report),
        *table("Where the ensemble is worst", ("metric", "hospital", "images", "value"), worst, numbers=(2, 3)),
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


def _gaps(report: Mapping[str, Any]) -> Blocks:
    """Return over how many hospitals means go that leave some out, and which metrics stand on few images."""
    measured, hospitals = report["utility"], report["data"]["hospitals"]
    means = [name for name, mean in measured["mean"].get("ensemble", {}).items() if mean is not None]
    over = {name: measured_at(measured["sites"], name, len(hospitals)) for name in _METRICS if name in means}
    partial = {whom: [_METRICS[name] for name in over if over[name] == whom] for whom in over.values()}
    partial.pop("the hospitals", None)
    lines = [f"Means of the ensemble are over {whom} for {', '.join(names)}." for whom, names in partial.items()]
    few = [site for site, count in measured.get("images", {}).items() if count < FEW_IMAGES]
    lines += [f"Fewer than {FEW_IMAGES} test images, on which metrics say little: {', '.join(few)}."] if few else []
    return [block for line in lines for block in paragraph(line)]


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
