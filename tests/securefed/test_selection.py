"""Which round's model is kept."""

from securefed.selection import BestRound, Score


def test_the_highest_mean_wins_and_the_earliest_among_equals():
    best = BestRound()
    taken = [best.consider(Score(number, mean)) for number, mean in enumerate((0.9, 0.5, 0.7, 0.7, 0.6, 0.7))]
    assert taken == [False, True, True, False, False, False]  # the untrained model is not eligible
    assert (best.number, best.mean) == (2, 0.7)
