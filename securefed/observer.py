"""What a run tells whoever watches it, while it runs."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""What a disk answers that takes nothing now, and may later."""


@dataclass(frozen=True)
class RoundView:
    """One finished round, as a watcher sees it.

    Attributes:
        number: The round, from 1.
        rounds: All rounds of the run.
        mean_accuracy: Mean validation accuracy of the ensemble over the sites after the round.
        upload_bytes: Mean bytes a client sent in this round.
        lost: {site: stage} of the sites that were lost.
        download_bytes: Mean bytes a client received in this round.
        accuracy_before: Mean validation accuracy of the model that the round began with, where rounds are scored.
        seconds: What the round took, the signatures of its evidence included; 0 where nobody has measured it.
    """

    number: int
    rounds: int
    mean_accuracy: float
    upload_bytes: float
    lost: dict[str, str]
    download_bytes: float = 0.0
    seconds: float = 0.0
    accuracy_before: float | None = None


class Observer:
    """Watches nothing; override what you want to see."""

    def started(self, folder: Path, lines: list[str]) -> None:
        """The run folder exists; `lines` say in words what runs and what it does not protect."""

    def noted(self, text: str) -> None:
        """Something was chosen; the text says what and why."""

    def warned(self, text: str) -> None:
        """Something about the data or the encoder deserves a look."""

    def refused(self, hospital: str, code: str, reason: str) -> None:
        """A hospital refuses a message; `code` names why, `reason` is its own text."""
        self.warned(f"{hospital} refuses ({code}): {reason}")

    def encoded(self, done: int, total: int) -> None:
        """`done` of `total` images have features."""

    def round_finished(self, view: RoundView) -> None:
        """A round is finished and in the log; its checkpoint may be that of a later round."""


@contextmanager
def noting_how_to_go_on(folder: Path, begun: Callable[[], bool], rounds: Callable[[], int]) -> Iterator[None]:
    """Note on what stops a run in a block, where it is Ctrl-C or a disk that refuses, how the run goes on.

    Args:
        folder: The run.
        begun: Whether its log has been begun: there is nothing to go on with before.
        rounds: The rounds that are finished.
    """
    try:
        yield
    except BaseException as error:
        causes = (cause.errno for cause in (error, error.__cause__) if isinstance(cause, OSError))
        if isinstance(error, KeyboardInterrupt) or any(code in _REFUSED for code in causes):
            hint = f"{rounds()} rounds are finished; go on with: simulate --resume {folder}"
            error.add_note(hint if begun() else f"nothing was begun; delete {folder} before you start again")
        raise
