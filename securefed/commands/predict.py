"""`predict`: classes of single images by a run's FAM and a hospital's MLP."""

import json
from pathlib import Path

import click

from securefed.commands.console import ConsoleObserver, stdout_console
from securefed.commands.options import cache_option, json_option
from securefed.commands.paths import PATH


@click.command("predict", short_help="Classify images with a run's FAM and a hospital's MLP.")
@click.argument("run", type=PATH)
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("--site", metavar="SITE", help="Whose own model answers too. [none: the FAM alone]")
@click.option("--encoder", metavar="NAME", help="Where the run's encoder is. [as in the run]")
@click.option("--device", metavar="NAME", default="auto", help="auto, cpu or cuda. [auto]")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes to print an image.")
@cache_option
@json_option
def command(
    *,
    run: Path,
    images: tuple[Path, ...],
    site: str | None,
    encoder: str | None,
    device: str,
    top: int,
    cache_dir: Path | None,
    as_json: bool,
) -> int:
    """Classify IMAGES (files or folders) with the models of RUN.

    Without --site the shared FAM answers; where a run shares nothing (`local`, `linear-probe`), name a site. Hidden
    files are passed over; exit code 1 where a file or folder cannot be read. Research software: not for diagnosis.
    """
    from rich.table import Table

    from securefed.prediction import predict_images

    observer = _Counting()
    predictions = predict_images(
        run, list(images), site=site, encoder=encoder, device=device, cache_dir=cache_dir, observer=observer
    )
    if as_json:
        click.echo(json.dumps([prediction.to_dict() for prediction in predictions]))
        return observer.finish(len(predictions))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("image", "class", "probability", "next"):
        table.add_column(title, justify="right" if title == "probability" else "left", overflow="fold")
    for prediction in predictions:
        ranked = prediction.ranked("ensemble")[:top]
        others = ", ".join(f"{name} {100 * share:.1f} %" for name, share in ranked[1:])
        table.add_row(prediction.path, ranked[0][0], f"{100 * ranked[0][1]:.1f} %", others)
    stdout_console().print(table)
    return observer.finish(len(predictions))


class _Counting(ConsoleObserver):
    """Shows which files and folders could not be read, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self._unread = 0

    def warned(self, text: str) -> None:
        """Print a warning about one file or folder."""
        self._unread += 1
        super().warned(text)

    def finish(self, read: int) -> int:
        """Say how many files and folders were left out; return the exit code."""
        if self._unread:
            text = f"{self._unread} of {read + self._unread} files (or folders of them) could not be read"
            self.console.print(text)
        return 1 if self._unread else 0
