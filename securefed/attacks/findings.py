"""What an attack found, and how it enters the signed record of the run that was attacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from audit.canonical import JSON
from audit.log import Clock, EventLog, system_clock
from audit.parties import SimulatedParties
from securefed.run_folder import RunFolder

Value = str | float | bool | list[float]


@dataclass(frozen=True)
class Finding:
    """One attack in one setting.

    Attributes:
        name: What was tried.
        setting: Against what.
        outcome: `FAIL` where it did better than a claim allows, `PASS` where a claim held, `MEASURED` where none is
            made.
        values: What was measured.
        reason: In words.
    """

    name: str
    setting: str
    outcome: str
    values: Mapping[str, Value] = field(default_factory=dict)
    reason: str = ""

    def fields(self) -> dict[str, JSON]:
        """Return the fields of its `attack` event."""
        values: dict[str, JSON] = {}
        for name, value in self.values.items():
            values[name] = list(value) if isinstance(value, list) else value
        found: dict[str, JSON] = {"name": self.name, "setting": self.setting[:200], "outcome": self.outcome}
        found["values"] = values
        return found | ({"reason": self.reason[:4000]} if self.reason else {})


def coarse(finding: Finding) -> Finding:
    """Return a finding of a private run with two decimals, and a word that no noise is on it.

    An exact rate counts the images that it is over, and would confirm the last one that somebody does not know. In two
    decimals it says less, not nothing: the run's list of what no noise covers has it.
    """
    values: dict[str, Value] = {}
    for name, value in finding.values.items():
        if isinstance(value, list):
            values[name] = [round(number, 2) for number in value]
        else:
            values[name] = round(value, 2) if isinstance(value, float) else value
    told = f"{finding.reason} Measured on training images, without noise, and therefore in two decimals only."
    return replace(finding, values=values, reason=told.strip())


def record_findings(folder: RunFolder, findings: Sequence[Finding], clock: Clock = system_clock) -> None:
    """Append findings to the log of a run, and have its head signed again by the parties whose keys are in the folder.

    Raises:
        EvidenceError: The log does not verify.
        LogWriteError, LogLockedError: It cannot be written.
    """
    with EventLog.open(folder.log, clock) as log:
        with log.batch():
            for finding in findings:
                log.append("attack", finding.fields())
        roster = next((event.fields["hospitals"] for event in log.events if event.kind == "roster"), {})
        sites: dict[str, Path] = {site: folder.site(site) for site in roster} if isinstance(roster, Mapping) else {}
        if sites and all((path / "identity.key").exists() for path in (*sites.values(),)):
            rounds = next((event.fields["rounds"] for event in log.events if event.kind == "run_completed"), 0)
            parties = SimulatedParties(folder.path, sites)
            parties.publish(log, rounds if isinstance(rounds, int) else 0, list(sites))
