"""From an error to one line and an exit code: the only place where errors of all packages end."""

import errno
import os
import sys

import click
from click.exceptions import Abort, ClickException, Exit

from securefed.commands.missing import missing_package

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_USAGE_ERRORS = (
    "SourceNotFoundError",
    "SourceFormatError",
    "UnknownClassError",
    "UnknownSplitError",
    "ColumnError",
    "SiteError",
    "MissingDependencyError",
    "PartitionError",
    "UnknownEncoderError",
    "InvalidEncoderError",
)
"""Errors of `clients` that come from what the user typed."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EIO,)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""Faults of a path that was typed: it leads nowhere, whatever is free or permitted there."""
_STEPS = {
    _FULL: "free space there",
    _BROKEN: "the disk, or the way to it, fails: check it, or name another place",
    _CLOSED: "give this user the right to, or name another place",
}
_PACKAGES = ("securefed.", "clients.", "protocols.", "audit.")


def run_with_one_line_errors(group: click.Group) -> int:
    """Run the command line; return its exit code. Errors of our own packages become one line on stderr.

    With SECUREFED_TRACEBACK=1 in the environment the stack trace is shown as well.
    """
    try:
        result = group.main(standalone_mode=False)
    except ClickException as error:
        error.show()
        return error.exit_code
    except Exit as error:
        return error.exit_code
    except (Abort, KeyboardInterrupt) as error:
        hint = _hint(error)
        click.echo(f"\ninterrupted{': ' + hint if hint else ''}", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if (reason := _of_the_disk(error)) is None or os.environ.get("SECUREFED_TRACEBACK") == "1":
            raise
        click.echo(f"error: {reason}{_after(error)}", err=True)
        return 2 if error.errno in _NAMES else 1
    except ModuleNotFoundError as error:
        if (missing := missing_package(error)) is None or os.environ.get("SECUREFED_TRACEBACK") == "1":
            raise
        click.echo(f"error: {missing}", err=True)
        return 1
    except Exception as error:
        on_gpu = _of_the_gpu(error)
        if on_gpu is None and not type(error).__module__.startswith(_PACKAGES):
            raise
        if os.environ.get("SECUREFED_TRACEBACK") == "1":
            raise
        click.echo(f"error: {on_gpu or getattr(error, 'in_full', error)}{_after(error)}", err=True)
        return exit_code_of(error)
    return result if isinstance(result, int) else 0


def exit_code_of(error: Exception) -> int:
    """Return 2 where the user can mend the call, 3 and 4 where the error says so, 1 otherwise."""
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code
    return 2 if type(error).__name__ in _USAGE_ERRORS else 1


def _hint(error: BaseException) -> str:
    """Return what was noted on an error or its cause, "" where nothing was."""
    return next(iter([*getattr(error, "__notes__", ()), *getattr(error.__cause__, "__notes__", ())]), "")


def _after(error: BaseException) -> str:
    hint = _hint(error)
    return f". {hint}" if hint else ""


def _of_the_disk(error: OSError) -> str | None:
    """Return which path cannot be used on this disk and why, and the next step; None for other faults."""
    if error.filename is not None and error.errno in _NAMES:
        return f"{error.filename} cannot be a file or folder here ({error.strerror}); name another place"
    step = next((step for codes, step in _STEPS.items() if error.errno in codes), None)
    if error.filename is not None and step is not None:
        return f"{error.filename} cannot be opened or written ({error.strerror}); {step}"
    if error.errno not in (*_FULL, *_BROKEN):
        return None
    _abandon_stdout()
    if error.errno in _BROKEN:
        return f"the output or a file cannot be written or read ({error.strerror}); {step}"
    return f"the output cannot be written ({error.strerror}); free space, or write elsewhere"


def _of_the_gpu(error: Exception) -> str | None:
    """Return that the memory of a GPU does not suffice, as torch says it, and the next step; None for other faults.

    By name: commands that need no torch do not load it to end.
    """
    said = str(error).partition("\n")[0]
    if type(error).__module__ != "torch" or "out of memory" not in said:
        return None
    what = ". ".join(said.split(". ")[:3]).rstrip(".")  # what was wanted, and which GPU has how much
    return (
        f"the memory of the GPU does not suffice ({what}); free it of other programs, take a smaller "
        "encoder.batch_size if it ran out while images were encoded, or take --device cpu. Finished rounds are kept: "
        "simulate --resume RUN goes on with them"
    )


def _abandon_stdout() -> None:
    """Have the interpreter not try again, at its exit, to write what did not go."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
