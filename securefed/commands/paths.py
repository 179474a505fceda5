"""Paths as people type them."""

import os
from pathlib import Path

import click


class TypedPath(click.Path):
    """A path; an empty one, which Python takes for the current folder, is refused: a variable was not set."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path; an empty one is a usage error (exit code 2)."""
        if value == "":
            self.fail("the path is empty; name a file or folder (the current folder is called .)", param, ctx)
        return super().convert(value, param, ctx)


PATH = TypedPath(path_type=Path)
