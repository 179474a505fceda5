"""What Prometheus reads of a study."""

import json
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from securefed.deploy.metrics import JournalCollector, serve_metrics

STARTED = {"time": "2026-11-24T12:00:00.000+00:00", "event": "started", "run": "r", "hospitals": ["north", "south"]}
ROUND = {"event": "round", "rounds": 5, "upload_bytes": 1000.0, "download_bytes": 2000.0, "seconds": 4.5}
LINES = [
    STARTED,
    {**ROUND, "time": "2026-11-24T12:00:05.000+00:00", "round": 1, "lost": {}, "accuracy_before": 0.25},
    {"time": "2026-11-24T12:00:06.000+00:00", "event": "warning", "text": "south refuses (version): ..."},
    {**ROUND, "time": "2026-11-24T12:00:10.500+00:00", "round": 2, "lost": {"south": "ShareKeys"},
     "accuracy_before": 0.5},
]  # fmt: skip


def scraped(lines):
    registry = CollectorRegistry(auto_describe=False)
    registry.register(JournalCollector(lambda: lines))
    text = generate_latest(registry).decode()
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_nothing_is_shown_before_a_study_begins():
    assert scraped([]) == {}


def test_the_last_round_its_losses_and_the_state_are_shown():
    found = scraped(LINES)
    assert float(found["securefed_round"]) == 2
    assert float(found["securefed_rounds"]) == 5
    assert float(found["securefed_round_seconds"]) == 4.5
    assert float(found["securefed_round_upload_bytes"]) == 1000
    assert float(found["securefed_validation_accuracy"]) == 0.5
    assert float(found['securefed_losses_total{hospital="south",stage="ShareKeys"}']) == 1
    assert float(found["securefed_warnings_total"]) == 1
    assert float(found['securefed_state{state="running"}']) == 1
    assert float(found["securefed_last_event_timestamp_seconds"]) == pytest.approx(1795521610.5)


@pytest.mark.parametrize("event", ["completed", "failed"])
def test_the_end_is_a_state(event):
    found = scraped([*LINES, {"time": "2026-11-24T12:00:11.000+00:00", "event": event}])
    assert float(found[f'securefed_state{{state="{event}"}}']) == 1
    assert float(found['securefed_state{state="running"}']) == 0


def test_a_model_that_is_not_scored_has_no_accuracy():
    assert "securefed_validation_accuracy" not in scraped([STARTED, {**LINES[1], "accuracy_before": None}])


def test_a_scrape_reads_the_journal_anew(engines):
    lines = [STARTED]
    port = engines.free_port()
    server, thread = serve_metrics(lambda: lines, port)
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url) as answer:
            assert "securefed_round " not in answer.read().decode()
        lines.extend(LINES[1:])
        with urllib.request.urlopen(url) as answer:
            assert "securefed_round 2.0" in answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_command_needs_a_deployment_and_fits_a_screen(hospitals, tmp_path):
    refused = hospitals.call("deploy", "metrics", tmp_path, code=1)
    assert "is no deployment" in str(refused.exception)
    assert len(hospitals.call("deploy", "metrics", "--help").output.splitlines()) <= 24
    assert len(hospitals.call("deploy", "flare", "init", "--help").output.splitlines()) <= 40


def test_a_port_that_is_taken_or_none_is_refused(hospitals, tmp_path):
    plan = {"engine": "flare", "host": "localhost", "port": 8002, "sites": {}, "listen": 0}
    (tmp_path / "deployment.json").write_text(json.dumps(plan))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = hospitals.call("deploy", "metrics", tmp_path, "--port", port, code=1)
    assert "Address already in use); choose another --port" in str(refused.exception)
    hospitals.call("deploy", "metrics", tmp_path, "--port", 99999, code=2)
