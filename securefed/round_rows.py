"""What a finished round adds to metrics.csv, and the word to whoever watches where its updates did not fit."""

from clients.encoders import FeatureBundle
from securefed.federation import RoundReport
from securefed.observer import Observer
from securefed.run_folder import MetricRow, RunFolder
from securefed.sum_terms import SumTerms

WORTH_A_WORD = 0.01
"""Mean share of clamped coordinates from which the model is another one than was trained."""


def round_rows(report: RoundReport) -> list[MetricRow]:
    """Return the lines of a round: accuracies and kept rows by site, and what was clamped in its sum, if anything."""
    rows = [
        MetricRow(report.number, site, "val", part, "accuracy", value)
        for site, parts in report.val_accuracy.items()
        for part, value in parts.items()
    ]
    rows += [
        MetricRow(report.number, site, "train", part, "keep_ratio", value)
        for site, parts in report.keep_ratios.items()
        for part, value in parts.items()
    ]
    if report.opened.mean_clamped:
        rows.append(MetricRow(report.number, "", "train", "run", "clamped", report.opened.mean_clamped))
    return rows


def keep_rows(folder: RunFolder, number: int, bundle: FeatureBundle, observer: Observer) -> None:
    """Keep of metrics.csv the lines up to the round after which a run goes on; say of which rounds there are none.

    Every round has some where a site has validation images. Those that are gone, with a disk's power or by a hand,
    cannot be made again without the round.
    """
    kept = folder.keep_rows_until(folder.metrics, number)
    lost = [str(earlier) for earlier in range(1, number + 1) if earlier not in kept]
    if lost and any(site.val.labels.size for site in bundle.sites):
        observer.warned(
            f"{folder.metrics} has no line of round {', '.join(lost)}: they were lost after the round was finished. "
            "Model, evaluation and record need none of them, the plot of accuracy lacks these rounds; for the whole "
            "table start a new run"
        )


class ClampingWatch:
    """Warns once of a run whose updates go beyond their public range.

    Args:
        terms: The terms of the sums. With compression the ranges follow the updates, and nothing is to be said.
        observer: Who watches.
    """

    def __init__(self, terms: SumTerms, observer: Observer) -> None:
        self._range = terms.config.secure_aggregation.update_range
        self._fixed = terms.compression.scheme == "none"
        self._observer = observer

    def see(self, number: int, mean_clamped: float) -> None:
        """Look at a round: the mean share, in [0, 1], of the coordinates that hospitals clamped."""
        if self._fixed and mean_clamped >= WORTH_A_WORD:
            self._fixed = False
            self._observer.warned(
                f"in round {number} hospitals clamped {mean_clamped:.1%} of their updates' coordinates to "
                f"±{self._range:g}: the model is not the mean of what they trained. Raise "
                "secure_aggregation.update_range or lower training.fam_learning_rate in the next run; metrics.csv has "
                "the share of every round, as `clamped`"
            )
