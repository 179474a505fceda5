"""Attacks on a finished run: what its claims rule out is tried, and what was found enters the log and the report."""

from securefed.attacks.findings import Finding, record_findings
from securefed.attacks.run import ATTACKS, attack_run

__all__ = ["ATTACKS", "Finding", "attack_run", "record_findings"]
