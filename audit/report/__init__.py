"""The report of a run: one JSON from the run folder's files, and from it HTML and Markdown."""

from audit.report.build import Report, build_report, decode_report, encode_report
from audit.report.html import render_html
from audit.report.markdown import render_markdown
from audit.report.write import FORMATS, MORE_FORMATS, render, verdict_lines, write_report

__all__ = [
    "FORMATS",
    "MORE_FORMATS",
    "Report",
    "build_report",
    "decode_report",
    "encode_report",
    "render",
    "render_html",
    "render_markdown",
    "verdict_lines",
    "write_report",
]
