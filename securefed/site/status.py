"""Where a hospital stands: what it has approved, which runs it has seen, what is left of its budget."""

import json
from typing import Any

from audit.errors import EvidenceError
from audit.heads import read_heads
from securefed.errors import ConfigError
from securefed.site.folder import SiteFolder
from securefed.site.opening import approved_study
from securefed.site.settings import read_settings


def site_status(folder: SiteFolder) -> dict[str, Any]:
    """Return the status as plain values.

    Keys: site, study (name, digest, rounds; None where nothing is approved), runs ({id: witnessed events, round of the
    last head, kept model and its metrics, None before the end}), budget (as `audit ledger show --json`).
    """
    settings = read_settings(folder.settings)
    try:
        study = approved_study(folder)
        approved: dict[str, Any] | None = {
            "name": study.name,
            "digest": study.digest,
            "rounds": study.config.federation.rounds,
        }
    except ConfigError:
        approved = None
    runs = {path.stem: _run(folder, path.stem) for path in sorted(folder.heads.glob("*.jsonl"))}
    return {"site": settings.site.name, "study": approved, "runs": runs, "budget": _budget(folder)}


def _run(folder: SiteFolder, run_id: str) -> dict[str, Any]:
    try:
        heads = read_heads(folder.heads_of(run_id))
    except EvidenceError as error:
        return {"damaged": str(error)}
    last = heads[-1].head if heads else None
    summary = folder.runs / run_id / "summary.json"
    kept = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else None
    return {
        "witnessed": 0 if last is None else last.size,
        "round": 0 if last is None else last.round,
        "kept": None if kept is None else {"fam_sha256": kept["fam_sha256"], "test": kept["mean"]},
    }


def _budget(folder: SiteFolder) -> list[dict[str, Any]]:
    from audit.ledger import Ledger, budget_lines

    if not folder.ledger.exists():
        return []
    with Ledger.reading(folder.ledger) as ledger:
        return budget_lines(ledger)
