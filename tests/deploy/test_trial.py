"""A study over an engine on loopback, by the commands of `deploy`: the model, the record, and what is left behind."""

import json
from pathlib import Path

import pytest
from deployed import Wire

from audit.verify import verify_run
from securefed.deploy import processes
from securefed.deploy.deployment import Deployment
from securefed.deploy.errors import DeploymentError

ROUNDS = 2
PACKAGES = {"flare": "nvflare", "flower": "flwr"}


@pytest.fixture
def deploy(hospitals, engines, tmp_path):
    """Run commands of one engine on a deployment; whatever a test leaves running is ended."""
    folders = []

    class Deploy:
        def __init__(self, engine):
            engines.require_engine(PACKAGES[engine])
            self.engine, self.folder, self.root = engine, tmp_path / "deployment", tmp_path / "study"
            self.trial = hospitals.Trial(self.root)
            folders.append(self.folder)
            sites = [f"--site={name}={self.trial.path(name)}" for name in hospitals.NAMES]
            approvals = [f"--approval={self.root / name}.approval.json" for name in hospitals.NAMES]
            host = {"flare": "localhost", "flower": "127.0.0.1"}[engine]
            self("init", "--study", self.root / "study.toml", "--key", self.root / "server.key", "--host", host,
                 "--port", engines.free_port(), *sites, *approvals)  # fmt: skip

        def __call__(self, verb, *arguments):
            return hospitals.call("deploy", self.engine, verb, self.folder, *arguments).stdout

        def watch(self):
            return [json.loads(line) for line in self("status", "--watch").splitlines()]

        def run_folder(self):
            return next((self.folder / "server" / "runs").iterdir())

    yield Deploy
    for folder in folders:
        processes.stop_parties(folder)


@pytest.fixture
def in_process_model(hospitals, tmp_path):
    """The digest of the model that the same study gives in one process."""
    trial = hospitals.Trial(tmp_path / "in-process")
    with hospitals.Folders(trial) as there:
        return trial.serve("run", Wire(there))["fam_sha256"]


# Over Flower the same takes minutes of its pauses (ADR 6): benchmarks/deployment.py --engine flower does it.
@pytest.mark.slow
@pytest.mark.parametrize("engine", [pytest.param("flare", marks=pytest.mark.flare)], ids=lambda name: f"over_{name}")
def test_a_study_over_an_engine_ends_with_the_model_of_one_process(deploy, in_process_model, hospitals, engine):
    trial = deploy(engine)
    trial("start")
    trial("submit")
    events = trial.watch()
    assert [event["event"] for event in events] == ["started", *["round"] * ROUNDS, "completed"]
    assert events[-1]["fam_sha256"] == in_process_model
    status = json.loads(trial("status"))
    assert sorted(status["connected"]) == sorted(hospitals.NAMES)
    assert min(status["processes"].values()) > 0
    trial("stop")
    assert processes.running(trial.folder) == ()
    assert verify_run(trial.run_folder()).failed == ()
    for name in hospitals.NAMES:
        assert list((trial.trial.path(name) / "runs").iterdir())


def test_a_deployment_needs_every_approval_and_an_empty_folder(hospitals, tmp_path):
    root = tmp_path / "study"
    trial = hospitals.Trial(root)
    arguments = [
        "deploy",
        "flare",
        "init",
        tmp_path / "d",
        "--study",
        root / "study.toml",
        "--key",
        root / "server.key",
    ]
    refused = hospitals.call(*arguments, code=1)
    assert "not approved by" in str(refused.exception)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").touch()
    assert "holds something already" in str(hospitals.call(*arguments, code=1).exception)
    assert trial.study.digest


def test_a_deployment_is_made_whole_or_not_at_all(hospitals, tmp_path, monkeypatch):
    """After what an engine refuses, or settings that cannot be meant, the same folder can be used."""
    root = tmp_path / "study"
    hospitals.Trial(root)
    approvals = [f"--approval={root / name}.approval.json" for name in hospitals.NAMES]
    made = []

    class Engine:
        def make(self, folder, plan):
            made.append(plan)
            (folder / "keys").mkdir()
            if len(made) <= 2:
                raise DeploymentError("the engine is missing")

    monkeypatch.setattr("securefed.commands.deploy._engine", lambda name: Engine())

    def init(folder, *more, code=0):
        common = ("--study", root / "study.toml", "--key", root / "server.key", *approvals)
        return str(hospitals.call("deploy", "flare", "init", folder, *common, *more, code=code).exception)

    new, empty = tmp_path / "new", tmp_path / "empty"
    empty.mkdir()
    north = root / "hospitals" / "north"
    assert "--site" in init(new, f"--site=south={north}", code=2)
    assert "is no hospital's folder" in init(new, f"--site=north={root}", code=1)
    assert "--timeout" in init(new, "--timeout=-5", code=2)
    for folder in (new, empty):
        assert "the engine is missing" in init(folder, code=1)
    assert not new.exists()
    assert not list(empty.iterdir())
    for folder in (new, empty):
        init(folder, f"--site=north={north}")
        assert Deployment.read_plan(folder).sites["north"] == str(north)
    assert "cannot be made" in init("/proc/none/x", code=1)
    (tmp_path / "file").touch()
    assert "holds something already" in init(tmp_path / "file", code=1)


def test_watching_a_study_that_failed_fails(hospitals, tmp_path):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "progress.jsonl").write_text('{"event": "started"}\n{"event": "failed"}\n')
    plan = {"engine": "flare", "host": "localhost", "port": 8002, "sites": {}, "listen": 0}
    (tmp_path / "deployment.json").write_text(json.dumps(plan))
    assert "failed" in hospitals.call("deploy", "flare", "status", tmp_path, "--watch", code=1).output


def test_a_folder_that_is_no_kit_is_not_joined(hospitals, tmp_path):
    refused = hospitals.call("deploy", "flare", "join", tmp_path, "--socket", tmp_path / "s", code=1)
    assert "is no startup kit" in str(refused.exception)


def test_a_folder_that_is_no_deployment_is_refused(tmp_path):
    with pytest.raises(DeploymentError, match="no deployment"):
        Deployment.read_plan(Path(tmp_path))
