"""The tables of `data inspect`."""

from rich.console import Console
from rich.table import Table

from clients.data import SPLITS, DataReport

MAX_SIZES = 5


def print_report(report: DataReport, console: Console) -> None:
    """Print what a data set contains: a line a site and class, then sizes and findings."""
    console.print(f"{report.name}: {report.images} images, {len(report.classes)} classes, {len(report.sites)} sites")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("site", "class"):
        table.add_column(name, overflow="fold")
    for name in (*SPLITS, "all"):
        table.add_column(name, justify="right")
    for site in report.sites:
        patients = "" if site.patients is None else f", {site.patients} patients"
        held_out = ", held out" if site.held_out else ""
        totals = [sum(site.counts[split].values()) for split in SPLITS]
        table.add_row(
            site.site, f"{site.images} images{patients}{held_out}", *map(str, [*totals, site.images]), style="bold"
        )
        for label in report.classes:
            counts = [site.counts[split][label] for split in SPLITS]
            table.add_row("", label, *(str(count) if count else "-" for count in [*counts, sum(counts)]))
    console.print(table)
    sizes = list(report.image_sizes.items())
    more = f" and {len(sizes) - MAX_SIZES} other sizes" if len(sizes) > MAX_SIZES else ""
    console.print("sizes: " + ", ".join(f"{size} ({count})" for size, count in sizes[:MAX_SIZES]) + more)
    for warning in report.warnings:
        console.print(
            f"{warning.severity}: {warning.in_full}", style="yellow" if warning.severity == "warning" else None
        )
    if not report.warnings:
        console.print("no findings")
    console.print(f"fingerprint: {report.fingerprint}")
