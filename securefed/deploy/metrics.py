"""Metrics of a study for Prometheus, read from the server's journal (extra `metrics`).

The exporter is a process of its own that only reads a file: nothing of it runs where the study runs, and what it shows
is what `status --watch` shows. All of it is known to the server anyway; metrics of single hospitals are not.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

_STATES = {"started": "running", "round": "running", "warning": "running", "completed": "completed", "failed": "failed"}

_LAST_ROUND = {
    "round": ("securefed_round", "Last finished round."),
    "rounds": ("securefed_rounds", "Rounds of the study."),
    "seconds": ("securefed_round_seconds", "Seconds that the last finished round took."),
    "upload_bytes": ("securefed_round_upload_bytes", "Mean bytes that a hospital sent in the last finished round."),
    "download_bytes": ("securefed_round_download_bytes", "Mean bytes that a hospital received in it."),
    "accuracy_before": (
        "securefed_validation_accuracy",
        "Mean validation accuracy over the hospitals of the model that the last finished round began with.",
    ),
}


class JournalCollector:
    """Makes metrics of a journal anew at every scrape.

    Args:
        lines: Reads the journal, {key: value} a line (securefed.engines.study.Journal).
    """

    def __init__(self, lines: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._lines = lines

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; none before the study has begun."""
        lines = list(self._lines())
        if not lines:
            return
        present = _STATES[lines[-1]["event"]]
        state = GaugeMetricFamily("securefed_state", "1 for the state that the study is in.", labels=["state"])
        for name in sorted(set(_STATES.values())):
            state.add_metric([name], float(name == present))
        yield state
        yield GaugeMetricFamily(
            "securefed_last_event_timestamp_seconds",
            "When the server has last written into its journal.",
            value=datetime.fromisoformat(lines[-1]["time"]).timestamp(),
        )
        rounds = [line for line in lines if line["event"] == "round"]
        for key, (name, words) in _LAST_ROUND.items():
            if rounds and rounds[-1][key] is not None:
                yield GaugeMetricFamily(name, words, value=rounds[-1][key])
        lost = Counter(pair for line in rounds for pair in line["lost"].items())
        losses = CounterMetricFamily("securefed_losses", "Rounds that lost a hospital.", labels=["hospital", "stage"])
        for (hospital, stage), count in sorted(lost.items()):
            losses.add_metric([hospital, stage], count)
        yield losses
        yield CounterMetricFamily(
            "securefed_warnings",
            "Refusals of hospitals and other things that deserve a look.",
            value=sum(line["event"] == "warning" for line in lines),
        )


def serve_metrics(lines: Callable[[], Iterable[Mapping[str, Any]]], port: int, address: str = "127.0.0.1") -> Any:
    """Answer scrapes at http://address:port/metrics until the returned server is shut down.

    Args:
        lines: Reads the journal.
        port: TCP port.
        address: Where to listen; the metrics have no protection of their own.

    Returns:
        The HTTP server and its thread, as prometheus_client gives them.

    Raises:
        OSError: The port is in use.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(JournalCollector(lines))
    return start_http_server(port, addr=address, registry=registry)
