"""Which round's model is kept: the rule, and what the server has to know for it.

With `best-val` a hospital scores every global model that it receives (accuracy of its ensemble on its own validation
images) and adds the score as one more coordinate to its next masked vector. The server opens the sum over the hospitals
only: it learns the mean score of a round, never a hospital's. The model of the highest mean wins, the earliest among
equals. A last round without training scores the last model. With `last` nothing is scored.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Mean score of the model that round `number` ended with, over the sites of the next round's sum."""

    number: int
    mean: float


class BestRound:
    """Keeps the best score seen; `number` is its round, 0 where nothing was scored."""

    def __init__(self, number: int = 0, mean: float = -1.0) -> None:
        self.number = number
        self.mean = mean

    def consider(self, score: Score) -> bool:
        """Take in a score; return whether its model is the best so far. The untrained model is not eligible."""
        if score.number < 1 or score.mean <= self.mean:
            return False
        self.number, self.mean = score.number, score.mean
        return True
