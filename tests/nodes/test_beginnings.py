"""A server that is killed while it begins a record goes on to a whole one, or begins anew."""

import pytest
from deployed import verified

from audit.log import EventLog, read_events
from securefed.errors import RunFolderError


@pytest.mark.parametrize("event", ["config", "roster", "purpose", "study", "data_described"])
def test_a_server_that_was_killed_while_its_log_was_begun_goes_on_to_a_whole_record(deployment, monkeypatch, event):
    deployed = deployment(federation={"rounds": 1}, purpose={"purpose": "triage of trees"})
    append = EventLog.append

    def stop(log, kind, fields):
        if kind == event:
            raise KeyboardInterrupt
        return append(log, kind, fields)

    monkeypatch.setattr(EventLog, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        deployed.serve()
    monkeypatch.undo()
    deployed.serve()
    kinds = [found.kind for found in read_events(deployed.run / "audit.jsonl")]
    assert all(kinds.count(kind) == 1 for kind in ("config", "roster", "purpose", "study", "data_described"))
    verified(deployed)


BEGINNINGS = {
    "no configuration": {"config.toml.part": b"half"},
    "no study": {"config.toml": b"whole"},
    "no log": {"config.toml": b"whole", "study.toml": b"whole"},
    "an empty log": {"config.toml": b"whole", "study.toml": b"whole", "audit.jsonl": b""},
    "half a first line": {"config.toml": b"whole", "study.toml": b"whole", "audit.jsonl": b'{"format"'},
}


@pytest.mark.parametrize("left", BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_a_server_that_was_killed_before_the_first_line_of_its_log_begins_anew(deployment, left):
    deployed = deployment(federation={"rounds": 1})
    deployed.run.mkdir()
    for name, content in left.items():
        (deployed.run / name).write_bytes(content)
    deployed.serve()
    assert sorted(path.name for path in deployed.run.glob("*.part")) == []
    verified(deployed)


def test_a_folder_without_a_log_that_holds_more_than_a_beginning_is_left_as_it_is(deployment):
    deployed = deployment(federation={"rounds": 1})
    deployed.serve()
    (deployed.run / "audit.jsonl").unlink()
    before = sorted(deployed.run.iterdir())
    with pytest.raises(RunFolderError, match=r"holds no log of a run and yet bytes\.csv, .*put the log back, or move"):
        deployed.serve()
    assert sorted(deployed.run.iterdir()) == before
