"""The report beside a record: signed, of this run as it now stands, and with the pages that were made of it."""

import hashlib
from pathlib import Path

from audit.errors import EvidenceError, NothingToCompareError
from audit.heads import covered_events
from audit.history import RunHistory
from audit.merkle import MerkleTree
from audit.regular_file import read_regular
from audit.report_signature import CHANGED, read_signed_report


def check_report(folder: Path, history: RunHistory, tree: MerkleTree) -> str | None:
    """Check report.json, its signature, what record it is of, and the pages that were signed with it.

    Returns:
        What was found in words, None where there is no report.

    Raises:
        EvidenceError: The signature does not hold, the report is of another run or another history, older than the last
            signed head, or a page is not the signed one or missing.
        NothingToCompareError: There are reports, and nobody signed them.
    """
    from audit.report.build import decode_report

    announced = history.last("roster")
    signed = read_signed_report(folder, None if announced is None else str(announced.fields["server"]))
    present = sorted(path.name for path in folder.glob("report.*") if path.name not in _NOT_PAGES)
    if signed is None:
        if present or (folder / "report.json").exists():
            raise NothingToCompareError("nobody signed the report in the folder: it may say anything")
        return None
    _check_subject(decode_report(signed.encoded)["identity"], folder, history, tree)
    for name, expected in signed.pages.items():
        if Path(name).name != name:
            raise EvidenceError(-1, f"report.sig.json names a page outside of the run folder: {name}")
        try:
            digest = hashlib.sha256(read_regular(folder / name)).hexdigest()
        except OSError as error:
            reason = f"{name} was signed with report.json and cannot be read ({error.strerror})"
            raise EvidenceError(-1, f"{reason}: write the report anew with audit report") from error
        if digest != expected:
            raise EvidenceError(-1, f"{name} is not the page that was signed with report.json: {CHANGED}")
    covered = ["report.json", *sorted(signed.pages)]
    beside = [name for name in present if name not in signed.pages]
    others = f"; nobody signed {', '.join(beside)}" if beside else ""
    return f"{', '.join(covered)} signed by the server, of this record as it stands{others}"


_NOT_PAGES = ("report.json", "report.sig.json")


def _check_subject(identity: dict[str, object], folder: Path, history: RunHistory, tree: MerkleTree) -> None:
    """The report is of this run and of no other history, and says all that was signed by now."""
    covered = identity["events"]
    assert isinstance(covered, int)  # noqa: S101 (the form of a report)
    if identity["run_id"] != history.run_id:
        raise EvidenceError(-1, f"report.json is of the run {identity['run_id']!r}, the log of {history.run_id!r}")
    if not 0 < covered <= len(tree) or tree.root(covered).hex() != identity["root"]:
        raise EvidenceError(-1, f"report.json is of another history than this log (it states {covered} events)")
    signed = covered_events(folder / "heads.jsonl")
    if covered < signed:
        anew = "write it anew and sign it: audit report --key, with the server's key"
        raise EvidenceError(covered, f"report.json is of the first {covered} events; {signed} are signed: {anew}")
