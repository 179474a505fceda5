"""Report files in a run folder."""

from collections.abc import Sequence
from pathlib import Path

from audit.errors import LogWriteError
from audit.report.build import Report, build_report, encode_report
from audit.report.html import render_html
from audit.report.markdown import render_markdown
from audit.report_signature import SIGNATURE_FILE, sign_report
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
    key: Path | None = None,
) -> tuple[Report, dict[str, Path]]:
    """Build the report of a run and write `report.<format>` for each format.

    Args:
        folder: The run folder.
        formats: Some of FORMATS and MORE_FORMATS.
        output: Folder to write to, made where there is none; the run folder by default.
        roster: The roster agreed on before the run.
        heads: Heads files kept elsewhere.
        key: Ed25519 key file of the party that runs the server; report.json is signed with it.

    Returns:
        The report, and {format: path}.

    Raises:
        EvidenceError: The log cannot be read at all.
        LogWriteError: A file cannot be written.
        KeyFileError: The key cannot be read.
    """
    report = build_report(folder, roster=roster, heads=heads)
    target = output or folder
    paths = {}
    for name in formats:
        paths[name] = target / f"report.{_ENDINGS.get(name, name)}"
        _write(paths[name], render(report, name))
    if key is not None and "json" in paths:
        paths["signature"] = target / SIGNATURE_FILE
        _write(paths["signature"], sign_report(encode_report(report), load_key(key)))
    return report, paths


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise LogWriteError(path, f"cannot be written ({error.strerror}); name another folder") from error


def verdict_lines(report: Report) -> list[str]:
    """Return the three lines for a terminal: the privacy claim, the bytes, the verification."""
    by_subject = {line["subject"]: line for line in report["verdicts"]}
    names = {"Differential privacy": "privacy", "Communication": "bytes", "The record": "record"}
    return [
        f"{names[subject]}: {by_subject[subject]['verdict']}: {by_subject[subject]['sentence']}" for subject in names
    ]
