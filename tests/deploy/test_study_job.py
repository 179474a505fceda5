"""The job that an engine runs at the server: one at a time, ended once, and finished by the next where it was cut."""

import dataclasses
import json

import pytest
from deployed import Deployment as Nodes
from deployed import KilledError

from audit.log import read_events
from audit.verify import verify_run
from protocols.transport import Patience
from securefed.deploy.errors import DeploymentError
from securefed.engines import study as job
from securefed.engines.names import SERVER_FOLDER
from securefed.engines.server_folder import ServerFolder
from securefed.errors import RunFolderError
from securefed.locks import locked
from securefed.nodes.owed import owed_model, owed_signatures


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """Hospitals in memory, and the server's folder of their study."""
    return opened(Nodes(tmp_path, federation={"rounds": 1}), tmp_path, monkeypatch)


def opened(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr("securefed.outcome.draw_plots", lambda *_: None)
    folder = nodes.server = ServerFolder(tmp_path / "server")
    folder.approvals.mkdir(parents=True)
    folder.study.write_bytes(nodes.study.encode())
    folder.key.write_bytes(nodes.server_key.private_bytes_raw())
    folder.key.chmod(0o600)
    folder.patience.write_text(json.dumps(dataclasses.asdict(Patience())))
    for approval in nodes.approvals:
        (folder.approvals / f"{approval.hospital}.json").write_bytes(approval.encode())
    monkeypatch.setenv(SERVER_FOLDER, str(folder.path))
    return nodes


def events(nodes):
    return [line["event"] for line in nodes.server.journal()]


def test_a_study_that_was_cut_before_its_report_is_finished_by_the_next_job(nodes, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_report", killed)
        with pytest.raises(KeyboardInterrupt):
            job.serve_study(nodes.wire)
    run = nodes.server.run_folder()
    assert events(nodes) == ["started", "round"]
    assert not (run / "report.html").exists()
    job.serve_study(nodes.wire)
    assert events(nodes) == ["started", "round", "started", "completed"]
    assert (run / "report.html").exists()
    last = list(nodes.server.journal())[-1]
    assert last["fam_sha256"] == json.loads((run / "summary.json").read_text())["fam_sha256"]


def test_a_completed_study_is_left_alone(nodes):
    job.serve_study(nodes.wire)
    assert nodes.wire.fewest == nodes.terms.example.min_survivors  # of which a quorum is never below
    files = {path: path.read_bytes() for path in nodes.server.path.rglob("*") if path.is_file()}
    job.serve_study(nodes.wire)
    assert {path: path.read_bytes() for path in nodes.server.path.rglob("*") if path.is_file()} == files


def test_a_second_job_leaves_the_journal_of_the_first_alone(nodes, monkeypatch):
    monkeypatch.setattr(job, "_LETS_GO_SECONDS", 0.0)
    with locked(nodes.server.lock):
        assert nodes.server.is_in_use()
        with pytest.raises(DeploymentError, match="another job runs the study"):
            job.serve_study(nodes.wire)
    assert events(nodes) == []
    assert not nodes.server.is_in_use()


def test_a_report_that_cannot_be_written_ends_the_study_as_failed(nodes, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "write_report", full)
    with pytest.raises(OSError, match="No space"):
        job.serve_study(nodes.wire)
    assert events(nodes)[-1] == "failed"


@pytest.mark.parametrize("torn", ['{"time": "2026-01-01T00:00', '{"event": "warning"}', "\0\0\0", "7"])
def test_a_line_of_the_journal_that_a_full_disk_cut_off_stops_nobody(nodes, torn):
    nodes.server.progress.write_text('{"event": "started"}\n' + torn)
    assert events(nodes) == ["started"]
    job.serve_study(nodes.wire)
    whole = ["warning"] if "warning" in torn else []
    assert events(nodes) == ["started", *whole, "started", "round", "completed"]


@pytest.mark.parametrize("away", [1, 2])
def test_an_end_that_too_few_have_signed_is_signed_by_the_next_job(tmp_path, monkeypatch, away):
    """All have signed the last sum; of five hospitals some were away for the end, which four have to sign."""
    nodes = opened(Nodes(tmp_path, federation={"rounds": 1, "select": "last"}), tmp_path, monkeypatch)
    run, gone = nodes.server.run_folder(), ("site1", "site2")[:away]

    def lose(way, stage, site, round_id, frame):
        if stage == "CountersignHead" and site in gone and read_events(run / "audit.jsonl")[-1].kind == "run_completed":
            raise KilledError
        return [frame]

    nodes.wire.change.append(lose)
    job.serve_study(nodes.wire)
    assert owed_signatures(run) == (gone if away == 2 else ())
    found = verify_run(run)
    assert found.is_verified is (away == 1)
    assert found.unsigned_by == (gone if away == 1 else ())
    if away == 2:
        (failed,) = found.failed
        assert "3 of 5 hospitals countersigned the end of the run, 4 have to" in failed.detail
        nodes.wire.change.clear()
        job.serve_study(nodes.wire)
        assert verify_run(run).is_verified
        assert verify_run(run).unsigned_by == owed_signatures(run) == ()


@pytest.mark.parametrize("heads", ["the last", "all"])
def test_a_missing_countersignature_is_said_and_fetched_by_the_next_job(nodes, heads):
    run = nodes.server.run_folder()

    def lose(way, stage, site, round_id, frame):
        if (stage, site) != ("CountersignHead", "site2"):
            return [frame]
        if heads == "all" or read_events(run / "audit.jsonl")[-1].kind == "run_completed":
            raise KilledError
        return [frame]

    nodes.wire.change.append(lose)
    job.serve_study(nodes.wire)
    assert owed_signatures(run) == ("site2",)
    assert not verify_run(run).is_verified
    assert events(nodes)[-2:] == ["warning", "completed"]
    assert "lacks the countersignature of site2" in list(nodes.server.journal())[-2]["text"]
    nodes.wire.change.clear()
    job.serve_study(nodes.wire)
    assert owed_signatures(run) == ()
    assert verify_run(run).is_verified
    assert events(nodes)[-2:] == ["started", "completed"]


def kept_by(nodes, site):
    summary = nodes.folder / site / nodes.server.run_folder().name / "summary.json"
    return json.loads(summary.read_text())["fam_sha256"] if summary.exists() else None


def test_a_hospital_that_was_away_at_the_end_is_named_and_gets_the_model_from_the_next_job(nodes):
    run = nodes.server.run_folder()

    def away(way, stage, site, round_id, frame):
        if (stage, site) == ("CloseRun", "site2"):
            raise KilledError
        return [frame]

    nodes.wire.change.append(away)
    job.serve_study(nodes.wire)
    assert owed_model(run) == ("site2",)
    assert events(nodes)[-2:] == ["warning", "completed"]
    assert "site2 has not confirmed the kept model" in list(nodes.server.journal())[-2]["text"]
    assert "start its node; submit again" in list(nodes.server.journal())[-2]["text"]
    assert kept_by(nodes, "site2") is None
    nodes.wire.change.clear()
    asked = len(nodes.wire.log)
    job.serve_study(nodes.wire)
    assert owed_model(run) == ()
    assert events(nodes)[-2:] == ["started", "completed"]
    assert kept_by(nodes, "site2") == kept_by(nodes, "site0") == list(nodes.server.journal())[-1]["fam_sha256"]
    assert [site for stage, site, *_ in nodes.wire.log[asked:] if stage == "CloseRun"] == ["site2"]
    assert verify_run(run).is_verified


def test_a_hospital_whose_disk_was_full_at_the_end_leaves_nothing_half_written_and_gets_the_model_later(
    nodes, monkeypatch
):
    from securefed.nodes import hospital

    right = hospital.write_outcome

    def full(folder, *rest):
        if folder.path.parent.name == "site2":
            raise RunFolderError(folder.path, "cannot be written") from OSError(28, "No space left on device")
        return right(folder, *rest)

    monkeypatch.setattr(hospital, "write_outcome", full)
    job.serve_study(nodes.wire)
    said = [line["text"] for line in nodes.server.journal() if line["event"] == "warning"]
    assert said[0] == "site2 refuses (disk): the site cannot keep the model (No space left on device)"
    assert "site2 has to free space on its disk; submit again then" in said[1]
    assert not [path for path in (nodes.folder / "site2").iterdir() if path.name.endswith(".part")]
    trained = nodes.hospitals["site2"].private_state()
    monkeypatch.setattr(hospital, "write_outcome", right)
    job.serve_study(nodes.wire)
    assert kept_by(nodes, "site2") == kept_by(nodes, "site0")
    assert trained
    assert all((value == trained[name]).all() for name, value in nodes.hospitals["site2"].private_state().items())


def test_a_list_of_hospitals_without_the_model_that_is_damaged_is_named(nodes):
    job.serve_study(nodes.wire)
    file = nodes.server.run_folder() / "owed_model.json"
    file.write_text('{"hospitals": "site2"}')
    with pytest.raises(RunFolderError, match="is damaged; delete it and submit again"):
        job.serve_study(nodes.wire)
