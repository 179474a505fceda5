"""How good the model is, per hospital, on average and at the worst hospital."""

from statistics import fmean
from typing import Any, Final

from audit.history import RunHistory

METRICS: Final = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "ece": "ECE",
}
"""Test metrics of the record and what the heads of tables call them."""

FEW_IMAGES: Final = 5
"""Metrics on fewer test images say little."""

_LOWER_IS_BETTER = ("ece",)


def utility_section(history: RunHistory) -> dict[str, Any]:
    """Return the test metrics of the log's last evaluation; those of a site that was held out stand by themselves."""
    logged = [event for event in history.of_kind("evaluation") if event.fields["split"] == "test"]
    sites: dict[str, Any] = {}
    source, number = "not recorded", None
    if logged:
        fields: Any = logged[-1].fields
        sites, source, number = fields["values"], f"event {logged[-1].seq} of the log", fields["round"]
    kept = {
        site: {part: {name: metrics.get(name) for name in METRICS} for part, metrics in parts.items()}
        for site, parts in sites.items()
    }
    data = history.last("data_described")
    guest = None if data is None else data.fields.get("held_out_site")
    held_out = {site: kept.pop(site) for site in list(kept) if site == guest}
    means = {"mean": _mean(kept), "worst": _worst(kept), "images": _images(sites)}
    return {"source": source, "round": number, "sites": kept, "held_out": held_out, **means}


def measured_at(sites: dict[str, Any], name: str, hospitals: int) -> str:
    """Return over how many hospitals the mean of an ensemble's metric goes, in words; `hospitals` took part in all."""
    count = sum(parts.get("ensemble", {}).get(name) is not None for parts in sites.values())
    return "the hospitals" if count == hospitals else f"{count} of {hospitals} hospitals"


def _images(sites: dict[str, Any]) -> dict[str, int]:
    """How many test images a site's metrics are over, where the log says it."""
    counts = {site: [metrics.get("num_images") for metrics in parts.values()] for site, parts in sites.items()}
    return {site: found[0] for site, found in counts.items() if found and isinstance(found[0], int)}


def _mean(sites: dict[str, Any]) -> dict[str, Any]:
    parts = dict.fromkeys(part for entry in sites.values() for part in entry)
    return {
        part: {name: _average([entry[part][name] for entry in sites.values() if part in entry]) for name in METRICS}
        for part in parts
    }


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _worst(sites: dict[str, Any]) -> dict[str, Any]:
    """The hospital at which the ensemble is worst, by metric."""
    found = {}
    for name in METRICS:
        values = {site: entry["ensemble"][name] for site, entry in sites.items() if "ensemble" in entry}
        values = {site: value for site, value in values.items() if value is not None}
        if values:
            pick = max if name in _LOWER_IS_BETTER else min
            site = pick(values, key=lambda site: values[site])
            found[name] = {"site": site, "value": values[site]}
    return found
