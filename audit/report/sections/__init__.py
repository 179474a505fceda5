"""The sections of a report, as blocks: the same for page, paper and Markdown."""

from collections.abc import Callable, Mapping
from typing import Any

from audit.report.blocks import Blocks, Section, Verdict, bullets, heading, paragraph, table
from audit.report.sections.outcome import empirical, risks, utility
from audit.report.sections.privacy import budgets, claim, scope, trust
from audit.report.sections.run import identity, mechanism, purpose, rounds
from audit.report.sections.traffic import communication

_ORDER: tuple[tuple[str, Callable[[Mapping[str, Any]], Blocks]], ...] = (
    ("Identity of the run", identity),
    ("Purpose and data", purpose),
    ("The formal claim", claim),
    ("Scope", scope),
    ("Mechanism", mechanism),
    ("Who could learn what", trust),
    ("Budget by hospital", budgets),
    ("Round by round", rounds),
    ("Communication", communication),
    ("Attacks tried", empirical),
    ("Utility", utility),
    ("Risks and open items", risks),
)


def closing(report: Mapping[str, Any]) -> str:
    """Return the last sentence of a report."""
    ledger = " and a ledger" if "ledger" in report else ""
    return f"Made from the files of the run{ledger} alone; the same files give the same report."


def sections_of(report: Mapping[str, Any]) -> list[Section]:
    """Return the numbered sections of a report in order."""
    return [Section(title, build(report)) for title, build in _ORDER]


def first_page(report: Mapping[str, Any]) -> Blocks:
    """Return what a reader sees first: one line a claim, one sentence a hospital."""
    rows = [(line["subject"], Verdict(line["verdict"]), line["sentence"]) for line in report["verdicts"]]
    return [
        *heading("What is claimed, and does it hold"),
        *table("One line for each claim", ("subject", "verdict", "in words"), rows),
        *heading("What it means for each hospital"),
        *(bullets([entry["sentence"] for entry in report["hospitals"]]) or paragraph("No hospital took part.")),
    ]


def subtitle(report: Mapping[str, Any]) -> str:
    """Return the sentence below the title: which run, of whom, when."""
    about, data = report["identity"], report["data"]
    kind = "simulated run" if about["operation"] == "simulation" else "run"
    end = f"ended {_minute(about['ended'])}" if about["ended"] else "did not reach its end"
    hospitals = f"{len(data['hospitals'])} hospitals on {data['name'] or 'unnamed data'}"
    return f"{about['run_id']}: a {kind} of {hospitals}, begun {_minute(about['started'])}, {end}."


def _minute(time: str) -> str:
    return f"{time[:10]} {time[11:16]} UTC"
