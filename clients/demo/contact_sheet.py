"""One picture of the cohort, hospitals down and findings across: `python -m clients.demo.contact_sheet FILE.png`."""

import argparse
from pathlib import Path

from PIL import Image

from clients.demo.cohort import PIXELS, Scan, plan_cohort
from clients.demo.findings import FINDINGS
from clients.demo.scanners import SCANNERS

_GAP = 3
_COLOURS = 128


def draw_contact_sheet(seed: int = 0, cell: int = 112) -> Image.Image:
    """Return the first test image of each finding at each hospital, `cell` pixels a side, in 128 colours."""
    first: dict[tuple[str, str], Scan] = {}
    for item in plan_cohort(seed):
        if item.split == "test":
            first.setdefault((item.site, item.finding), item)
    step = cell + _GAP
    sheet = Image.new("RGB", (len(FINDINGS) * step + _GAP, len(SCANNERS) * step + _GAP), (90, 90, 90))
    for row, site in enumerate(SCANNERS):
        for column, finding in enumerate(FINDINGS):
            picture = Image.fromarray(first[site, finding].draw())
            small = picture.resize((cell, cell), Image.Resampling.LANCZOS) if cell != PIXELS else picture
            sheet.paste(small, (column * step + _GAP, row * step + _GAP))
    return sheet.quantize(_COLOURS)


def main() -> None:
    """Write the contact sheet."""
    parser = argparse.ArgumentParser(
        description="Write one picture of the demo cohort: hospitals down, findings across."
    )
    parser.add_argument("file", type=Path, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cohort (default 0)")
    parser.add_argument("--cell", type=int, default=112, help="pixels a side of each image (default 112)")
    arguments = parser.parse_args()
    draw_contact_sheet(arguments.seed, arguments.cell).save(arguments.file, optimize=True)


if __name__ == "__main__":
    main()
