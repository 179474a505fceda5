"""What summary.json says against the log: sweeps, consoles and people read the one, reports the other."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any, Final

from audit.errors import EvidenceError
from audit.history import RunHistory
from audit.regular_file import shown
from audit.round_members import losses_by_stage

_LARGER_IS_WORSE: Final = "ece"
_SUMMED: Final = "num_images"
_COUNTED: Final = ("communication.by_stage", "communication.by_kind")
_WAYS: Final = {"up": "upload", "down": "download"}
_OF_THE_PROTOCOL: Final = ("threat_model", "threshold", "corrupt", "clients", "ring_bits", "value_bits")


def check_summary(summary: Mapping[str, Any], history: RunHistory) -> None:
    """Check the summary of a run that has ended: its metrics, and what it says of training, sums and privacy.

    Raises:
        EvidenceError: It differs from the log; or a simulation has no metrics on test images, or a deployment has some.
    """
    _check_metrics(summary, history)
    _check_losses(summary, history)
    for name, expected in (_expected(history) | _communication(history)).items():
        found: Any = summary
        for key in name.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if name in _COUNTED and isinstance(found, Mapping):
            found = {what: _counted(of) for what, of in found.items()}
        if found != expected:
            assert history.completed is not None  # noqa: S101 (narrows the type)
            reason = f"summary.json states {name} {shown(found)}, the log has {shown(expected)}"
            raise EvidenceError(history.completed.seq, reason)


def _expected(history: RunHistory) -> dict[str, Any]:
    """Return {field of the summary: its value by the log}."""
    assert history.completed is not None  # noqa: S101 (narrows the type)
    end: Mapping[str, Any] = history.completed.fields
    expected = {
        "rounds_completed": end["rounds"],
        "chosen_round": end["chosen_round"],
        "fam_sha256": end.get("model_digest"),
    }
    if (config := history.last("config")) is not None:
        values: Any = config.fields["values"]
        expected |= {"config": values, "config_digest": config.fields["digest"]}
        expected["method"] = values.get("federation", {}).get("method")
    if (protocol := history.last("protocol_described")) is not None:
        expected["secure_aggregation.enabled"] = protocol.fields["secure_aggregation"]
        expected |= {f"secure_aggregation.{name}": protocol.fields.get(name) for name in _OF_THE_PROTOCOL}
        facts: Any = protocol.fields.get("values", {})
        expected |= {f"secure_aggregation.{name}": facts[name] for name in ("compression",) if name in facts}
    if history.claim is not None:
        claim: Mapping[str, Any] = history.claim.fields
        text, reason = f"{claim['claim']}: ", claim["reason"]
        expected |= {"privacy.mode": claim["mode"], "privacy.unit": claim.get("unit")}
        expected |= {"privacy.adjacency": claim.get("adjacency"), "privacy.noise": claim.get("values", {}).get("noise")}
        expected["privacy.claim"] = reason if reason.startswith(text) else text + reason
        if claim["mode"] != "off":
            values = claim.get("values", {})
            expected |= {"privacy.target_epsilon": claim.get("target_epsilon"), "privacy.mechanism": values}
            expected |= {"privacy.coupling": values.get("coupling")}
            expected |= {"privacy.unprotected": claim.get("unprotected")}
    return expected | _provenance(history)


def _provenance(history: RunHistory) -> dict[str, Any]:
    """What the summary says of data and encoder; a server of hospitals names no data."""
    expected = {}
    if (encoder := history.last("encoder_described")) is not None:
        expected = {"encoder": encoder.fields["name"], "encoder_digest": encoder.fields["digest"]}
    data = history.last("data_described")
    if data is not None and history.started.fields["operation"] == "simulation":
        expected |= {"data_fingerprint": data.fields["fingerprint"], "data_keyed": data.fields.get("keyed", False)}
    return {f"provenance.{name}": value for name, value in expected.items()}


def _communication(history: RunHistory) -> dict[str, Any]:
    """What the summary says of bytes, by the counts of the log; of their sums see `check_files.check_bytes`."""
    from audit.report.communication import FEDAVG_CLIP_BYTES, PAPER_FAM_BYTES, communication_section

    if not history.rounds:
        return {}
    section = communication_section(history)
    mean = section["per_client_round"]
    expected: dict[str, Any] = {f"{name}_bytes_per_client_round": mean[way] for way, name in _WAYS.items()}
    for name, whole in (("fedavg_clip", FEDAVG_CLIP_BYTES), ("paper_fam", PAPER_FAM_BYTES)):
        expected[f"ratio_to_{name}"] = whole / mean["up"] if mean["up"] else None
    for name in ("by_stage", "by_kind"):
        counts = section[name].items()
        expected[name] = {what: _counted({_WAYS[way]: n for way, n in of.items()}) for what, of in counts}
    return {f"communication.{name}": value for name, value in expected.items()}


def _counted(counts: object) -> object:
    """Return the counts that are not 0: neither is one that is not there."""
    return {way: count for way, count in counts.items() if count} if isinstance(counts, Mapping) else counts


def _check_losses(summary: Mapping[str, Any], history: RunHistory) -> None:
    """How often hospitals were lost is what report and log say, wherever sums are described."""
    protocol, stated = history.last("protocol_described"), (summary.get("secure_aggregation") or {}).get("dropouts")
    if protocol is None:
        return
    lost = losses_by_stage(history.events)
    if not isinstance(stated, Mapping) or {stage: count for stage, count in stated.items() if count} != lost:
        reason = f"summary.json states secure_aggregation.dropouts {shown(stated)}, the log has {shown(lost)}"
        assert history.completed is not None  # noqa: S101 (narrows the type)
        raise EvidenceError(history.completed.seq, reason)


def _check_metrics(summary: Mapping[str, Any], history: RunHistory) -> None:
    """The report states the metrics of the log, other tools those of the summary; a server of hospitals knows none."""
    assert history.completed is not None  # noqa: S101 (narrows the type)
    found = [event for event in history.of_kind("evaluation") if event.fields["split"] == "test"]
    is_deployment = history.started.fields["operation"] == "deployment"
    if found and is_deployment:
        raise EvidenceError(found[-1].seq, "metrics stand in the record of a deployment, whose server has no images")
    if not found and not is_deployment:
        raise EvidenceError(history.completed.seq, "the run has ended, and the log has no metrics on test images")
    seq = (found[-1] if found else history.completed).seq
    chosen = history.completed.fields["chosen_round"]
    if found and (found[-1].fields["round"] != chosen or found[-1].fields["leaves_hospital"]):
        reason = f"metrics on test images are of the model of round {chosen}, which was kept, and leave no hospital"
        raise EvidenceError(seq, f"{reason}: the event says something else")
    logged: Any = found[-1].fields["values"] if found else {}
    try:
        sites = {site: parts["test"] for site, parts in summary["sites"].items() if "test" in parts}
        held_out = dict(summary.get("global_site") or {})
        stated = {**sites, held_out.pop("site"): held_out} if held_out else sites
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EvidenceError(seq, f"summary.json has no metrics of the sites ({error})") from error
    for site in sorted({*stated, *logged}):
        if stated.get(site) != logged.get(site):
            raise EvidenceError(seq, f"summary.json has other metrics of {site} on test images than the log")
    for name, worst in (("mean", False), ("worst", True)):
        if not _same(summary.get(name), _over(sites, worst=worst)):
            raise EvidenceError(seq, f"summary.json has another {name} than that of its sites' metrics on test images")


def _over(sites: Mapping[str, Any], *, worst: bool) -> dict[str, Any]:
    """Return {part: {metric: its mean, or its worst value, over the sites where it is defined}}."""
    found: dict[str, dict[str, list[Any]]] = {}
    for parts in sites.values():
        for part, metrics in parts.items():
            for name, value in metrics.items():
                known = found.setdefault(part, {}).setdefault(name, [])
                known += [] if value is None else [value]
    return {part: {name: _one(name, of, worst) for name, of in metrics.items()} for part, metrics in found.items()}


def _one(name: str, values: list[float], worst: bool) -> float | None:
    if name == _SUMMED:
        return sum(values)
    if not values:
        return None
    if worst:
        return max(values) if name == _LARGER_IS_WORSE else min(values)
    return fmean(values)


def _same(stated: object, found: object) -> bool:
    """Whether two objects have one shape and the same numbers, but for the last digits."""
    if isinstance(stated, Mapping) and isinstance(found, Mapping):
        return stated.keys() == found.keys() and all(_same(stated[name], found[name]) for name in found)
    if isinstance(stated, int | float) and isinstance(found, int | float):
        return math.isclose(stated, found, rel_tol=1e-9, abs_tol=1e-12)
    return stated == found
