"""The bytes of the report are those that an independent proxy around the transport counts."""

from collections import Counter

import pytest

from audit.report import build_report
from securefed.nodes.control import ControlStage
from securefed.nodes.simulated import SimulatedSites
from securefed.simulation import simulate


class CountingProxy:
    """Stands around `exchange` and adds up what passes, by site, way and stage; knows nothing of frames."""

    def __init__(self):
        self.counts = Counter()

    def around(self, exchange):
        def counted(sites, stage, requests, **arguments):
            replies, failures = exchange(sites, stage, self._sent(stage, requests), **arguments)
            return self._received(stage, replies), failures

        return counted

    def _sent(self, stage, requests):
        for site, request in requests.items():
            self.counts[site, "down", stage] += memoryview(request).nbytes
        return requests

    def _received(self, stage, replies):
        for site, reply in replies:
            self.counts[site, "up", stage] += memoryview(reply).nbytes
            yield site, reply

    def total(self, way, site=None, stage=None):
        return sum(
            count
            for (name, direction, at), count in self.counts.items()
            if direction == way and site in (None, name) and stage in (None, at)
        )


@pytest.mark.parametrize("enabled", [True, False])
def test_the_report_counts_what_the_proxy_counts(small_run, tmp_path, monkeypatch, enabled):
    proxy = CountingProxy()
    monkeypatch.setattr(SimulatedSites, "exchange", proxy.around(SimulatedSites.exchange))
    config = small_run(
        simulation={"drop": ["site1@1:ShareKeys", "site2@2:Unmasking"]}, secure_aggregation={"enabled": enabled}
    )
    run = simulate(config, output=tmp_path / "run", cache_dir=tmp_path / "cache")
    counted = build_report(run.folder.path)["communication"]
    control = {stage.value for stage in ControlStage}
    closing = sum(count for (_, _, stage), count in proxy.counts.items() if stage in control)
    assert closing < 5 * 4 * 1000  # what only closes a round: 5 sites, 3 rounds and one of scores
    proxy.counts = Counter({key: count for key, count in proxy.counts.items() if key[2] not in control})
    assert counted["total"]["up"] == proxy.total("up") > 10_000
    for site, both in counted["by_client"].items():
        assert both["up"] == proxy.total("up", site)
    for stage, both in counted["by_stage"].items():
        assert both["up"] == proxy.total("up", stage=stage)
    assert counted["total"]["down"] == proxy.total("down")
