"""The attack catalogue of the protocol, as findings."""

from protocols.attacks import run_catalogue
from securefed.attacks.findings import Finding
from securefed.planning import refusals_unseen

NAME = "protocol attack"


def attack_protocol() -> list[Finding]:
    """Play the whole catalogue against the installed build; one finding an attack, FAIL where it succeeds.

    What the attacked clients log about refusals is what the findings say, and is not shown as well.
    """
    with refusals_unseen():
        reports = run_catalogue()
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
