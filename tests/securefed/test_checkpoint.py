from datetime import UTC, datetime

import numpy as np
import pytest

from securefed.checkpoint import Checkpoint, Snapshot, delete_checkpoint, load_checkpoint, save_checkpoint
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


@pytest.mark.parametrize("crash_at", range(1, 8))
def test_a_crash_at_any_write_leaves_the_former_checkpoint(folder, monkeypatch, crash_at):
    save_checkpoint(folder, Checkpoint(snapshot(1), snapshot(1), 0.1, {}))
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
        save_checkpoint(folder, Checkpoint(snapshot(2), snapshot(2), 0.2, {}))
    monkeypatch.undo()
    equal(load_checkpoint(folder).current, snapshot(1))
    save_checkpoint(folder, Checkpoint(snapshot(2), snapshot(2), 0.2, {}))
    equal(load_checkpoint(folder).current, snapshot(2))


def test_a_damaged_pointer_is_an_error_and_no_fresh_start(folder):
    save_checkpoint(folder, Checkpoint(snapshot(1), None, -1.0, {}))
    (folder.checkpoint / "latest.json").write_text("{}")
    with pytest.raises(RunFolderError, match="damaged"):
        load_checkpoint(folder)
