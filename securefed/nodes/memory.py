"""What a site keeps of earlier rounds, so that a round can be repeated from where it began, and the best one kept.

A server that is restarted repeats the round that it had not finished. The site then trains again from the private state
(its MLP, its error feedback) of before that round, so that the repetition gives the same update.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from protocols.errors import StageOrderError
from securefed.run_folder import Arrays

_FRESH = 0


class RoundMemory:
    """States of one site after some of its rounds.

    Kept are the untrained state, that of the best round so far and those of the last two rounds in which the site
    trained. A site that did not train in a round has the state of the last one in which it did.
    """

    def __init__(self) -> None:
        self._after: dict[int, Arrays] = {}
        self._course: list[int] = []
        self._best = _FRESH

    @property
    def last(self) -> int:
        """The last round in which the site trained, 0 before the first."""
        return self._course[-1] if self._course else _FRESH

    def begin(self, number: int, present: Arrays) -> Arrays | None:
        """Note where a round begins.

        Args:
            number: The round that is going to be trained.
            present: The site's present state.

        Returns:
            The state to go back to where the round is a repetition; None where training goes on from the present one.

        Raises:
            StageOrderError: The state of before that round is not kept any more.
        """
        if not self._course:
            self._course, self._after = [_FRESH], {_FRESH: present}
        if number > self.last:
            self._after[self.last] = present  # with what CloseRound has changed since training
            return None
        return self.after(number - 1)

    def after(self, number: int) -> Arrays:
        """Return the state after a round; {} of a site that was in none yet.

        Raises:
            StageOrderError: It is not kept any more.
        """
        if not self._course:
            return {}
        valid = max((trained for trained in self._course if trained <= number), default=_FRESH)
        if valid not in self._after:
            raise StageOrderError(f"a round after {self._course[-2]}", f"round {number + 1}")
        return self._after[valid]

    def trained(self, number: int, state: Arrays) -> None:
        """Keep the state after a round; later ones are of a course of the run that was given up."""
        self._course = [*(trained for trained in self._course if trained < number), number]
        self._after[number] = state
        self._prune()

    def chosen(self, best: int) -> None:
        """Note which round's model is the best so far."""
        self._best = best
        self._prune()

    def encode(self) -> Arrays:
        """Return all states in one mapping."""
        flat: dict[str, NDArray[np.generic]] = {
            f"{number}/{name}": array for number, arrays in self._after.items() for name, array in arrays.items()
        }
        numbers = {"course": self._course, "kept": sorted(self._after), "best": [self._best]}
        return {**flat, **{name: np.asarray(value, np.int64) for name, value in numbers.items()}}

    @classmethod
    def decode(cls, flat: Mapping[str, NDArray[np.generic]]) -> "RoundMemory":
        """Read what `encode` wrote."""
        memory = cls()
        memory._best = int(flat["best"][0])
        memory._course = [int(number) for number in flat["course"]]
        memory._after = {int(number): {} for number in flat["kept"]}
        for name, array in flat.items():
            number, separator, inner = name.partition("/")
            if separator:
                memory._after[int(number)][inner] = array
        return memory

    def _prune(self) -> None:
        best = max((trained for trained in self._course if trained <= self._best), default=_FRESH)
        keep = {_FRESH, best, *self._course[-2:]}
        self._after = {kept: arrays for kept, arrays in self._after.items() if kept in keep and kept in self._course}
