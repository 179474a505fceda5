"""FLARE under fire: sites and the server killed with SIGKILL, jobs and certificates that must be refused."""

import json
import time

import numpy as np
import pytest
from conftest import FLARE_CLASSES, ToyFlare, require_engine
from engine_toys import SITES, federation

from protocols import Patience, Stage, run_round
from securefed.deploy import flare_run, processes
from securefed.deploy.flare_policy import harden_site
from securefed.deploy.flare_project import provision

pytestmark = [pytest.mark.flare, pytest.mark.slow]
VICTIM, REST = SITES[3], SITES[:3]
IMPATIENT = Patience(timeout=90, grace=1, quorum=0.75)


@pytest.fixture(scope="module")
def flare(tmp_path_factory):
    """A deployment of its own, whose server would let every job pass: what is refused, the sites refuse."""
    require_engine("nvflare")
    engine = ToyFlare(tmp_path_factory.mktemp("faults"))
    rights = engine.kits / "localhost" / "local" / "authorization.json"
    rights.write_text(rights.read_text().replace('"byoc": "none"', '"byoc": "any"'))
    resources = engine.kits / "localhost" / "local" / "resources.json"
    lax = json.loads(resources.read_text())
    resources.write_text(json.dumps({**lax, "class_allow_list": ["*"]}))
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


def open_round(number, transport):
    cohort = federation()
    result = run_round(cohort.server(number, f"model {number}".encode()), transport, IMPATIENT)
    assert np.array_equal(result.total.integers(), cohort.expected(result.survivors, number))
    return result.survivors


class Killing:
    """A transport at one stage of which a site's power is cut."""

    def __init__(self, engine, transport, stage):
        self.engine, self.transport, self.stage = engine, transport, stage

    def exchange(self, stage, requests, **how):
        if stage == self.stage:
            self.engine.kill_site(VICTIM)
        return self.transport.exchange(stage, requests, **how)


def test_a_round_goes_on_without_a_killed_site_and_the_next_job_after_a_killed_server(flare):
    transport = flare.transport()
    assert open_round(1, transport) == SITES
    assert open_round(2, Killing(flare, transport, Stage.MASKED_INPUT_COLLECTION.value)) == REST
    assert open_round(3, transport) == REST
    flare.start_site(VICTIM)
    processes.kill_party(flare.folder, "localhost")
    transport.close()
    flare_run.start_kit(flare.folder, "localhost", flare.kits / "localhost", flare.environment)
    flare_run.wait_until_connected(flare.folder, flare.kits, SITES, 120)
    transport = flare.transport()
    assert open_round(4, transport) == SITES
    transport.close()


def wait_for(log, words, seconds=90):
    """Wait until a log holds the words."""
    deadline = time.monotonic() + seconds
    while words not in log.read_text(errors="replace"):
        assert time.monotonic() < deadline, f"{log} does not say {words!r}"
        time.sleep(0.5)


def test_a_job_that_brings_code_is_refused_by_every_site(flare, tmp_path):
    """The reason stands in each site's own log, who tried in its audit log; FLARE alone would tell the server only."""
    job = tmp_path / "job"
    flare_run.write_job(job, SITES, **FLARE_CLASSES)
    mark = tmp_path / "code-ran"
    (job / "app" / "custom").mkdir()
    (job / "app" / "custom" / "sitecustomize.py").write_text(f"open({str(mark)!r}, 'w')")
    flare_run.submit(flare.folder, flare.kits, job)
    wait_for(flare.folder / "logs" / "localhost.log", "BYOC not permitted")
    said = (flare.folder / "logs" / "localhost.log").read_text()
    refusal = next(line for line in said.splitlines() if "BYOC not permitted" in line)
    assert "'server: OK'" in refusal
    for site in SITES:
        assert f"{site}: NVFLARE_ERROR" in refusal
        wait_for(flare.folder / "logs" / f"{site}.log", "refused: BYOC not permitted")
        assert "[U:lead@study.org][A:train.deploy]" in (flare.kits / site / "audit.log").read_text()
    assert not mark.exists()


def test_a_job_that_names_another_class_is_refused_at_the_site_and_named_in_its_log(flare, tmp_path):
    job = tmp_path / "job"
    flare_run.write_job(job, SITES, server_class=FLARE_CLASSES["server_class"], site_class="logging.Formatter")
    flare_run.submit(flare.folder, flare.kits, job)
    wait_for(
        flare.folder / "logs" / f"{SITES[0]}.log",
        "'logging.Formatter' at config path 'components.#1' is not in allow_list",
    )


def test_a_site_with_a_certificate_of_another_authority_never_connects(flare, tmp_path):
    target = json.loads((flare.kits / SITES[0] / "startup" / "fed_client.json").read_text())
    port = int(target["servers"][0]["service"]["target"].rpartition(":")[2])
    foreign = provision(tmp_path, ["stranger-0", *SITES], "localhost", port)
    harden_site(foreign / "stranger-0")
    flare_run.start_kit(tmp_path, "stranger-0", foreign / "stranger-0", flare.environment)
    try:
        log = tmp_path / "logs" / "stranger-0.log"
        deadline = time.monotonic() + 90
        while "CERTIFICATE_VERIFY_FAILED" not in log.read_text(errors="replace"):
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)
        assert flare_run.connected(flare.folder, flare.kits) == SITES
    finally:
        processes.stop_parties(tmp_path)
