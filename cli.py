"""The command `python cli.py`, installed as `securefed`: one group, its commands loaded when they are asked for."""

import importlib
import sys
from collections.abc import Mapping

from securefed.commands.missing import missing_package

try:
    import click
except ModuleNotFoundError as error:  # nothing below works without it, one-line errors included
    sys.exit(f"error: {missing_package(error)}")

_COMMANDS = {
    "simulate": ("securefed.commands.simulate", "Run a whole federation on this machine, round by round."),
    "sweep": ("securefed.commands.sweep", "Run a grid of configurations; results in one table."),
    "evaluate": ("securefed.commands.evaluate", "Compute all metrics of a finished run on a split."),
    "predict": ("securefed.commands.predict", "Classify images with a run's FAM and a hospital's MLP."),
    "encode": ("securefed.commands.encode", "Fill the feature cache and export features."),
    "audit": ("securefed.commands.audit", "Check the evidence of a run."),
    "protocol": ("securefed.commands.protocol", "Choose safe parameters; attack this installation."),
    "privacy": ("securefed.commands.privacy", "Plan the noise; check what may be claimed."),
    "study": ("securefed.commands.study", "The one file that all hospitals agree on and sign."),
    "site": ("securefed.commands.site", "One hospital's own folder: set up, check, approve, status."),
    "keys": ("securefed.commands.keys", "Make identity keys and the roster that pins them."),
    "deploy": ("securefed.commands.deploy", "Run a study between machines, on NVIDIA FLARE or Flower."),
    "data": ("securefed.commands.data", "Look at a data set before anything is trained on it."),
}
"""Command name to module and one-line help; a module is imported only when its command runs."""


class _LazyGroup(click.Group):
    """A group whose commands live in modules that are imported on use (torch takes seconds to import)."""

    def __init__(self, *args: object, lazy: Mapping[str, tuple[str, str]], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (likewise)
        if cmd_name not in self._lazy:
            return None
        command = importlib.import_module(self._lazy[cmd_name][0]).command
        assert isinstance(command, click.Command)  # noqa: S101 (narrows the type)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy.items()])


@click.group(
    cls=_LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="securefed", prog_name="securefed")
def cli() -> None:
    """SecureFed: several hospitals fine-tune one frozen CLIP; only masked sums leave them.

    Start with `simulate`, which needs no data and no network.
    """


def main() -> None:
    """Run the command line and exit: 0 ok, 1 failed, 2 usage, 3 evidence fails, 4 budget exceeded, 130 Ctrl-C."""
    from securefed.commands.failure import run_with_one_line_errors

    sys.exit(run_with_one_line_errors(cli))


if __name__ == "__main__":
    main()
