import json
import shutil
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from securefed.checkpoint import (
    Checkpoint,
    Checkpoints,
    Snapshot,
    delete_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from securefed.compression import ChannelState
from securefed.errors import RunFolderError
from securefed.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "x", datetime(2026, 1, 1, tzinfo=UTC))


def snapshot(number):
    vector = np.full(5, number, np.float32)
    return Snapshot(number, vector, {"a b": {"w": np.arange(3.0) + number}, "c": {"w": np.arange(2) * number}})


def equal(left, right):
    assert left.number == right.number
    assert np.array_equal(left.vector, right.vector)
    for site, arrays in left.private.items():
        for name, array in arrays.items():
            assert np.array_equal(array, right.private[site][name])
            assert array.dtype == right.private[site][name].dtype


def test_there_is_none_at_first(folder):
    assert load_checkpoint(folder) is None


def test_the_last_one_is_read_back_and_the_former_is_gone(folder):
    save_checkpoint(folder, Checkpoint(snapshot(1), None, -1.0, {"train": 1.0}))
    save_checkpoint(folder, Checkpoint(snapshot(2), snapshot(1), 0.5, {"train": 2.0}))
    save_checkpoint(folder, Checkpoint(snapshot(3), snapshot(1), 0.5, {"train": 3.0}))
    read = load_checkpoint(folder)
    equal(read.current, snapshot(3))
    equal(read.best, snapshot(1))
    assert (read.best_mean, read.seconds) == (0.5, {"train": 3.0})
    names = sorted(path.name for path in folder.checkpoint.iterdir())
    assert names == ["best-000001", "latest.json", "round-000003"]
    delete_checkpoint(folder)
    assert not folder.checkpoint.exists()


def begun(folder, checkpoint):
    """Save a checkpoint whose snapshot is written in a thread, as a simulation does."""
    with closing(Checkpoints(folder, 9)) as checkpoints:
        checkpoints.begin(checkpoint.current, checkpoint.channel)
        assert checkpoints.finish(checkpoint)


@pytest.fixture(params=[save_checkpoint, begun], ids=["at once", "in a thread"])
def save(request):
    return request.param


def files(folder):
    """{path in the checkpoint: content}."""
    paths = (path for path in folder.checkpoint.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.checkpoint)): path.read_bytes() for path in paths}


def test_a_thread_writes_what_is_written_at_once(tmp_path):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    channel = ChannelState({"scale": np.arange(2.0)}, {"a b": {"r": np.arange(4.0)}, "c": {"r": np.arange(5.0)}})
    written = []
    for how in (save_checkpoint, begun):
        folder = RunFolder.create(tmp_path, "x", now)
        best = None
        for number in range(1, 5):
            current = snapshot(number)
            how(folder, Checkpoint(current, best, 0.5, {}, channel))
            written.append(files(folder))
            best = current if number != 2 else best
    assert written[:4] == written[4:]
    assert len(written[0]) == 7
    assert {name.partition("/")[0] for name in written[3]} == {"best-000003", "latest.json", "round-000004"}


@pytest.mark.parametrize("linked", [True, False])
def test_the_best_model_is_the_one_that_was_the_present_one(folder, monkeypatch, save, linked):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    if not linked:
        monkeypatch.setattr("os.link", refuse)
    save(folder, Checkpoint(snapshot(1), None, -1.0, {}))
    save(folder, Checkpoint(snapshot(2), snapshot(1), 0.5, {}))
    private = folder.checkpoint / "best-000001" / "site-0000.safetensors"
    assert private.stat().st_mode & 0o777 == 0o600
    save(folder, Checkpoint(snapshot(3), snapshot(2), 0.6, {}))
    equal(load_checkpoint(folder).best, snapshot(2))
    equal(load_checkpoint(folder).current, snapshot(3))


def test_what_a_crash_has_left_is_not_taken_for_a_round_that_is_repeated(folder, monkeypatch, save):
    """Where noise is drawn anew, a repeated round gives another model."""
    save(folder, Checkpoint(snapshot(1), None, -1.0, {}))
    monkeypatch.setattr(RunFolder, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(folder, Checkpoint(replace(snapshot(2), vector=np.full(5, 7, np.float32)), snapshot(1), 0.5, {}))
    monkeypatch.undo()
    equal(load_checkpoint(folder).current, snapshot(1))
    save(folder, Checkpoint(snapshot(2), snapshot(1), 0.5, {}))
    equal(load_checkpoint(folder).current, snapshot(2))


def test_an_error_in_the_thread_ends_the_save(folder, monkeypatch):
    begun(folder, Checkpoint(snapshot(1), None, -1.0, {}))
    monkeypatch.setattr("securefed.run_folder.save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(RunFolderError, match="No space"):
        begun(folder, Checkpoint(snapshot(2), None, -1.0, {}))
    monkeypatch.undo()
    equal(load_checkpoint(folder).current, snapshot(1))


@pytest.mark.parametrize("crash_at", range(1, 8))
def test_a_crash_at_any_write_leaves_the_former_checkpoint(folder, monkeypatch, save, crash_at):
    save(folder, Checkpoint(snapshot(1), snapshot(1), 0.1, {}))
    writes = 0
    real_arrays, real_json = RunFolder.write_arrays, RunFolder.write_json

    def count():
        nonlocal writes
        writes += 1
        if writes == crash_at:
            raise KeyboardInterrupt

    def arrays(self, *args, **kwargs):
        count()
        real_arrays(self, *args, **kwargs)

    def json(self, *args):
        count()
        real_json(self, *args)

    monkeypatch.setattr(RunFolder, "write_arrays", arrays)
    monkeypatch.setattr(RunFolder, "write_json", json)
    with pytest.raises(KeyboardInterrupt):
        save(folder, Checkpoint(snapshot(2), snapshot(2), 0.2, {}))
    monkeypatch.undo()
    equal(load_checkpoint(folder).current, snapshot(1))
    save(folder, Checkpoint(snapshot(2), snapshot(2), 0.2, {}))
    equal(load_checkpoint(folder).current, snapshot(2))


def test_a_damaged_pointer_is_an_error_and_no_fresh_start(folder):
    save_checkpoint(folder, Checkpoint(snapshot(1), None, -1.0, {}))
    (folder.checkpoint / "latest.json").write_text("{}")
    with pytest.raises(RunFolderError, match="damaged"):
        load_checkpoint(folder)


FILES = ("global", "site-0001", "channel", "site-0001-channel")


def without_its_digest(folder, path):
    folder.write_arrays(path, folder.read_arrays(path), {}, private=True)


def of_another_round(folder, path):
    name = path.name
    path.unlink()
    shutil.copy(folder.checkpoint / "best-000001" / name, path)


def gone(folder, path):
    path.unlink()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        *((without_its_digest, name) for name in FILES),
        *((of_another_round, name) for name in FILES[:2]),
        *((gone, name) for name in FILES),
    ],
)
def test_files_that_were_not_written_with_the_checkpoint_are_refused(folder, change, name):
    channel = ChannelState({"scale": np.arange(2.0)}, {"a b": {"r": np.arange(4.0)}, "c": {"r": np.arange(5.0)}})
    save_checkpoint(folder, Checkpoint(snapshot(2), snapshot(1), 0.5, {}, channel))
    path = folder.checkpoint / "round-000002" / f"{name}.safetensors"
    load_checkpoint(folder)
    change(folder, path)
    with pytest.raises(RunFolderError, match=r"was changed after it was written|cannot be read"):
        load_checkpoint(folder)


def test_a_checkpoint_whose_pointer_has_no_digests_is_refused(folder):
    save_checkpoint(folder, Checkpoint(snapshot(1), None, -1.0, {}))
    pointer = folder.checkpoint / "latest.json"
    kept = json.loads(pointer.read_text())
    for changed in ({**kept, "digests": {}}, {name: value for name, value in kept.items() if name != "digests"}):
        pointer.write_text(json.dumps(changed))
        with pytest.raises(RunFolderError, match="start a new run"):
            load_checkpoint(folder)


@pytest.fixture
def seconds(monkeypatch):
    """A clock of one number that a test moves on."""
    now = [100.0]
    monkeypatch.setattr("securefed.checkpoint.time.monotonic", lambda: now[0])
    return now


def finished(checkpoints, number):
    """Take a round to its end; return whether it has a checkpoint."""
    at = snapshot(number)
    checkpoints.begin(at, ChannelState())
    return checkpoints.finish(Checkpoint(at, None, -1.0, {}))


def test_short_rounds_have_a_checkpoint_a_second_and_the_last_one_its_own(folder, seconds):
    with closing(Checkpoints(folder, 9, 1.0)) as checkpoints:
        written = []
        for number in range(1, 10):
            seconds[0] += 0.4
            if finished(checkpoints, number):
                written.append(number)
                equal(load_checkpoint(folder).current, snapshot(number))
        assert written == [3, 6, 9]
        assert checkpoints.leave() is None


@pytest.mark.usefixtures("seconds")
def test_leaving_writes_the_last_finished_round_once(folder):
    with closing(Checkpoints(folder, 9, 1.0)) as checkpoints:
        assert [finished(checkpoints, number) for number in (1, 2)] == [False, False]
        assert load_checkpoint(folder) is None
        equal(checkpoints.leave().current, snapshot(2))
        equal(load_checkpoint(folder).current, snapshot(2))
        assert checkpoints.leave() is None


def test_a_checkpoint_that_could_not_be_completed_is_written_by_leaving(folder, monkeypatch):
    with closing(Checkpoints(folder, 9)) as checkpoints:
        with monkeypatch.context() as patched:
            patched.setattr(RunFolder, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                finished(checkpoints, 1)
        equal(checkpoints.leave().current, snapshot(1))
    equal(load_checkpoint(folder).current, snapshot(1))
