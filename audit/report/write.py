"""Report files in a run folder."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.durable import write_whole
from audit.errors import EvidenceError, KeyFileError, LogWriteError
from audit.heads import covered_events
from audit.report.build import Report, build_report, decode_report, encode_report
from audit.report.html import render_html
from audit.report.markdown import render_markdown
from audit.report_signature import SIGNATURE_FILE, SignedReport, read_signed_report, sign_report
from audit.roster import public_hex
from audit.signing_key import load_key

FORMATS = ("html", "md", "json")
"""Formats of every run, by the ending of their file."""

MORE_FORMATS = ("pdf", "registry")
"""Formats on demand: report.pdf; the registry entry is report.registry.yaml, for runs with a privacy claim."""

_ENDINGS = {"registry": "registry.yaml"}


def render(report: Report, format: str) -> bytes:
    """Return a report in one of FORMATS or MORE_FORMATS.

    Raises:
        ValueError: There is no such format.
        NoClaimError: The registry has no place for a run without a privacy claim.
    """
    match format:
        case "html":
            return render_html(report).encode()
        case "md":
            return render_markdown(report).encode()
        case "json":
            return encode_report(report)
        case "pdf":
            from audit.report.pdf import render_pdf

            return render_pdf(report)
        case "registry":
            from audit.report.registry import render_registry

            return render_registry(report).encode()
    raise ValueError(f"{format!r} is no format of a report; use {', '.join((*FORMATS, *MORE_FORMATS))}")


def write_report(
    folder: Path,
    formats: Sequence[str] = FORMATS,
    *,
    output: Path | None = None,
    roster: Path | None = None,
    heads: Sequence[Path] = (),
    ledger: Path | None = None,
    key: Path | None = None,
) -> tuple[Report, dict[str, Path]]:
    """Build the report of a run and write `report.<format>` for each format.

    Args:
        folder: The run folder.
        formats: Some of FORMATS and MORE_FORMATS.
        output: Folder to write to, made where there is none; the run folder by default.
        roster: The roster agreed on before the run.
        heads: Heads files kept elsewhere.
        ledger: A ledger that must tell the same as the log; the report then says what is spent and left in it.
        key: Ed25519 key file of the party that runs the server; all of FORMATS are written and signed with it.

    Returns:
        The report, and {format: path}.

    Raises:
        EvidenceError: The log cannot be read at all.
        LogWriteError: A file cannot be written, or would replace what a signed report.json says by something else,
            unless that says less than the signed heads cover.
        KeyFileError: The key cannot be read, or is not that of the run's server.
    """
    report = build_report(folder, roster=roster, heads=heads, ledger=ledger)
    target = output or folder
    signing = None if key is None else _server_key(key, report)
    if signing is not None or _is_outdated(folder, target, report):  # what is signed is signed, or goes, together
        formats = tuple(dict.fromkeys((*FORMATS, *formats)))
    paths = {name: target / f"report.{_ENDINGS.get(name, name)}" for name in formats}
    contents = {path.name: render(report, name) for name, path in paths.items()}
    replaced = signing is None and _is_outdated(folder, target, report)
    if signing is None and not replaced:
        _keep_signed(target, report, contents)
    for path in paths.values():
        _write(path, contents[path.name])
    if replaced:  # the signature is over none of these, and failed for what it was over
        (target / SIGNATURE_FILE).unlink()
    if signing is not None:
        paths["signature"] = target / SIGNATURE_FILE
        encoded = contents.pop("report.json")
        _write(paths["signature"], sign_report(encoded, signing, contents))
    return report, paths


def _server_key(path: Path, report: Report) -> Ed25519PrivateKey:
    key = load_key(path)
    if public_hex(key) != report["identity"]["server_key"]:
        raise KeyFileError(
            path, "is not the key of this run's server: nobody would take the signature for the server's"
        )
    return key


def _signed(target: Path, report: Report) -> SignedReport | None:
    """Return what the server has signed in a folder; None where no signature holds."""
    try:
        return read_signed_report(target, report["identity"]["server_key"])
    except EvidenceError:
        return None


def _is_outdated(folder: Path, target: Path, report: Report) -> bool:
    """Return whether a signed report says less than the signed heads cover, so that it fails verification.

    Heads that cannot be read say nothing against what is signed.
    """
    signed = _signed(target, report)
    if signed is None:
        return False
    try:
        stated: int = decode_report(signed.encoded)["identity"]["events"]
        return stated < covered_events(folder / "heads.jsonl")
    except EvidenceError:
        return False


def _keep_signed(target: Path, report: Report, contents: Mapping[str, bytes]) -> None:
    """Refuse to replace what a signature in the target is over by something else."""
    signed = _signed(target, report)
    if signed is None:
        return
    for name, content in contents.items():
        kept = hashlib.sha256(signed.encoded).hexdigest() if name == "report.json" else signed.pages.get(name)
        if kept not in (None, hashlib.sha256(content).hexdigest()):
            raise LogWriteError(
                target / name,
                "is signed, and would become another one; name another folder with --output, or sign it with --key",
            )


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [content])
    except OSError as error:
        raise LogWriteError(path, f"cannot be written ({error.strerror}); name another folder") from error


def verdict_lines(report: Report) -> list[str]:
    """Return the three lines for a terminal: the privacy claim, the bytes, the verification."""
    by_subject = {line["subject"]: line for line in report["verdicts"]}
    names = {"Differential privacy": "privacy", "Communication": "bytes", "The record": "record"}
    return [
        f"{names[subject]}: {by_subject[subject]['verdict']}: {by_subject[subject]['sentence']}" for subject in names
    ]
