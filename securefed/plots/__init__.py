"""The plots of a run, drawn from its own files."""

from securefed.plots.curves import plot_accuracy, plot_bytes, plot_keep_ratios
from securefed.plots.quality import plot_confusion, plot_reliability

__all__ = ["plot_accuracy", "plot_bytes", "plot_confusion", "plot_keep_ratios", "plot_reliability"]
