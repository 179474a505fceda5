"""summary.json: what a run ended with, in keys that others rely on (docs/run-folder.md)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from audit.history import RoundRecord
from securefed.config import RunConfig, config_digest, config_to_mapping
from securefed.evaluation import SiteEvaluation, mean_over_sites, plain_metrics, worst_site
from securefed.run_folder import ByteRow

FEDAVG_CLIP_BYTES = 151_277_313 * 4
"""What FedAvg of the whole of CLIP ViT-B/32 sends a client and round: its parameters (open_clip ViT-B-32, both towers,
projections and logit scale) in float32."""

PAPER_FAM_BYTES = 1_426_063
"""What the paper reports for one compressed FAM, 1.36 MiB (it writes MB), without secure aggregation."""


def summarise(
    config: RunConfig,
    *,
    evaluations: Sequence[SiteEvaluation],
    global_evaluation: SiteEvaluation | None,
    byte_rows: Sequence[ByteRow],
    training: Sequence[RoundRecord],
    rounds_completed: int,
    chosen_round: int,
    secure_aggregation: Mapping[str, Any],
    seconds: Mapping[str, float],
    fam_sha256: str | None,
    provenance: Mapping[str, Any],
    privacy: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        config: The resolved configuration.
        evaluations: Test metrics of the sites.
        global_evaluation: Metrics on the held-out site, where there is one.
        byte_rows: Every message of the run, those of rounds aborted or done again among them.
        training: The rounds of training that the result stands on.
        rounds_completed: Rounds of training that were finished.
        chosen_round: Round of the kept model; 0 where nothing was trained.
        secure_aggregation: Parameters of the secure sum and dropouts by stage.
        seconds: {encode, train, aggregate, evaluate, total: seconds}.
        fam_sha256: Digest of the kept FAM vector, None where the method shares none.
        provenance: Versions and digests of data and encoder.
        privacy: What is claimed and what it cost.
    """
    return {
        "schema": "securefed-summary-1",
        "config_digest": config_digest(config),
        "config": config_to_mapping(config),
        "method": config.federation.method,
        "rounds_completed": rounds_completed,
        "chosen_round": chosen_round,
        "sites": {site.site: {"test": plain_metrics(site.metrics)} for site in evaluations},
        "mean": mean_over_sites(evaluations),
        "worst": worst_site(evaluations),
        "global_site": None
        if global_evaluation is None
        else {"site": global_evaluation.site, **plain_metrics(global_evaluation.metrics)},
        "communication": communication(byte_rows, training),
        "secure_aggregation": dict(secure_aggregation),
        "privacy": dict(privacy),
        "timing": {f"{phase}_s": round(value, 3) for phase, value in seconds.items()},
        "fam_sha256": fam_sha256,
        "provenance": dict(provenance),
    }


def communication(rows: Sequence[ByteRow], training: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return bytes a client and round of training and where all of them went, counted on encoded frames.

    Args:
        rows: Every message of the run.
        training: The rounds of training that the result stands on. A round that only scores the last model, and what
            was aborted or done again, counts in the totals alone.
    """
    totals: dict[str, int] = defaultdict(int)
    stages: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        totals[row.direction] += row.bytes
        stages[row.stage][row.direction] += row.bytes
        kinds[row.kind][row.direction] += row.bytes
    client_rounds = max(1, sum(len(record.bytes) for record in training))
    upload, download = (sum(record.total(way) for record in training) / client_rounds for way in ("up", "down"))
    return {
        "upload_bytes_per_client_round": upload,
        "download_bytes_per_client_round": download,
        "upload_bytes": totals.get("upload", 0),
        "download_bytes": totals.get("download", 0),
        "by_stage": {stage: dict(value) for stage, value in stages.items()},
        "by_kind": {kind: dict(value) for kind, value in kinds.items()},
        "ratio_to_fedavg_clip": FEDAVG_CLIP_BYTES / upload if upload else None,
        "ratio_to_paper_fam": PAPER_FAM_BYTES / upload if upload else None,
    }


def measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return {site: {part: metrics}} of all sites of a summary that have test metrics, the held-out one the last."""
    found = {site: parts["test"] for site, parts in summary["sites"].items()}
    held_out = dict(summary.get("global_site") or {})
    return {**found, held_out.pop("site"): held_out} if held_out else found


def unclaimed(config: RunConfig) -> dict[str, Any]:
    """Return the fields of the event `privacy_claim` of a run without noise."""
    return {"mode": "off", "claim": "NOT CLAIMED", "reason": privacy_off(config)["claim"]}


def privacy_off(config: RunConfig) -> dict[str, Any]:
    """Return what a run without noise claims: nothing; and why that matters."""
    if not config.aggregates:
        claim = "NOT CLAIMED: nothing left the hospitals with this method, and nothing protects what is published of it"
    elif config.secure_aggregation.enabled:
        claim = "NOT CLAIMED: no noise was added; the server sees only sums, and a sum alone still leaks"
    else:
        claim = "NOT CLAIMED: no noise was added and updates were sent in clear"
    return {"mode": "off", "epsilon": None, "delta": None, "unit": None, "claim": claim}
