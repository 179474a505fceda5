"""The attack catalogue of the protocol, as findings."""

import logging

from protocols.attacks import run_catalogue
from securefed.attacks.findings import Finding

NAME = "protocol attack"


def attack_protocol() -> list[Finding]:
    """Play the whole catalogue against the installed build; one finding an attack, FAIL where it succeeds.

    What the attacked clients log about refusals is what the findings say, and is not shown as well.
    """
    clients = logging.getLogger("protocols")
    before = clients.level
    clients.setLevel(logging.ERROR)
    try:
        reports = run_catalogue()
    finally:
        clients.setLevel(before)
    return [
        Finding(
            f"{NAME} {report.id}",
            report.action,
            "PASS" if report.holds else "FAIL",
            {"ended": report.outcome.value},
            report.evidence,
        )
        for report in reports
    ]
