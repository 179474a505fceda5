import errno
import os
import resource
import signal
import stat
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from securefed.config import config_from_mapping, write_config
from securefed.errors import RunFolderError
from securefed.nodes.memory import RoundMemory
from securefed.nodes.site_state import SiteState
from securefed.plots.style import figure
from securefed.run_folder import ByteRow, MetricRow, RunFolder, read_byte_rows, read_metric_rows
from securefed.simulation import simulate

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_second_run_of_the_same_second_gets_its_own_folder(tmp_path):
    first, second = (RunFolder.create(tmp_path, "fedmedclip-demo", NOW) for _ in range(2))
    assert first.path.name == "20260102T030405Z-fedmedclip-demo"
    assert second.path.name == "20260102T030405Z-fedmedclip-demo-1"


def test_a_folder_that_holds_something_is_never_written_to(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RunFolderError, match="never overwrites"):
        RunFolder.create(tmp_path, "x", NOW, exact=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="writable place"):
        RunFolder.create(tmp_path, "x", NOW, exact=tmp_path / "file" / "run")


def test_a_name_that_is_no_text_is_refused_before_it_reaches_the_log(tmp_path):
    name = os.fsdecode(b"run\xff")
    with pytest.raises(RunFolderError, match="no valid Unicode here; name another folder with --output, or set LC_ALL"):
        RunFolder.create(tmp_path, "x", NOW, exact=tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["run ", "\t", " ", "a\nb", "n" * 201])
def test_a_name_that_no_record_can_hold_is_refused_before_anything_is_made(tmp_path, name):
    says = "which .*: a name has 1 to 200 characters, .*; name another folder with --output"
    with pytest.raises(RunFolderError, match=says):
        simulate(config_from_mapping({}), output=tmp_path / name)
    with pytest.raises(RunFolderError, match=says):
        RunFolder.create(tmp_path, name, NOW)
    assert not list(tmp_path.iterdir())


def test_a_run_in_the_current_folder_has_the_name_of_that_folder(tmp_path, monkeypatch):
    (tmp_path / "mine" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    names = [RunFolder(Path(path)).name for path in (".", "", "below/..", "../mine", "../other/run")]
    assert names == ["mine", "mine", "mine", "mine", "run"]
    assert RunFolder(Path("/")).name == ""


def test_sites_with_like_names_have_folders_apart(tmp_path):
    folder = RunFolder.create(tmp_path, "x", NOW)
    names = ["north wing", "north-wing", "north/wing", "Nord-Flügel", ".."]
    paths = [folder.site(name) for name in names]
    assert len(set(paths)) == len(names)
    assert all(path.parent == folder.path / "sites" for path in paths)
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o700


def test_rows_survive_the_way_to_disk_and_are_cut_by_round(tmp_path):
    folder = RunFolder.create(tmp_path, "x", NOW)
    metrics = [MetricRow(number, 'a "b", c', "val", "fam", "accuracy", 1 / 3) for number in (1, 2, 3)]
    sent = [ByteRow(number, "a", "upload", "ShareKeys", "shares", 10 * number) for number in (1, 2, 3)]
    folder.append_rows(folder.metrics, metrics[:2])
    folder.append_rows(folder.metrics, metrics[2:])
    folder.append_rows(folder.bytes, sent)
    assert read_metric_rows(folder.metrics) == metrics
    assert read_byte_rows(folder.bytes) == sent
    folder.keep_rows_until(folder.metrics, 2)
    folder.append_rows(folder.metrics, metrics[2:])
    assert read_metric_rows(folder.metrics) == metrics


@pytest.mark.parametrize("left", [b"", b"round,site,spl", b"round,site,split,part,metric,value\r"])
def test_a_file_of_rows_whose_header_is_not_whole_is_as_none(tmp_path, left):
    """A full disk or a kill leaves so much at the first write."""
    folder = RunFolder.create(tmp_path, "x", NOW)
    rows = [MetricRow(1, "a", "val", "fam", "accuracy", 0.5)]
    folder.metrics.write_bytes(left)
    assert folder.keep_rows_until(folder.metrics, 3) == set()
    assert read_metric_rows(folder.metrics) == []
    folder.append_rows(folder.metrics, rows)
    assert read_metric_rows(folder.metrics) == rows
    assert folder.keep_rows_until(folder.metrics, 3) == {1}


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_part_of_a_row_is_no_row(tmp_path, cut):
    """With its line end or a digit of its value cut it has all columns, and another value."""
    folder = RunFolder.create(tmp_path, "x", NOW)
    folder.append_rows(folder.metrics, [MetricRow(number, "a", "val", "fam", "accuracy", 0.25) for number in (1, 2)])
    folder.metrics.write_bytes(folder.metrics.read_bytes()[:-cut])
    assert folder.keep_rows_until(folder.metrics, 2) == {1}
    assert [row.round for row in read_metric_rows(folder.metrics)] == [1]


def test_rows_that_cannot_be_made_durable_are_taken_back(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path, "x", NOW)
    rows = [MetricRow(number, "a", "val", "fam", "accuracy", 0.25) for number in (1, 2)]
    folder.append_rows(folder.metrics, rows[:1])

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("audit.durable.os.fsync", full)
        with pytest.raises(RunFolderError, match=r"metrics.csv: cannot be written \(No space left"):
            folder.append_rows(folder.metrics, rows[1:])
    assert read_metric_rows(folder.metrics) == rows[:1]


def test_the_same_arrays_and_metadata_give_the_same_bytes(tmp_path):
    folder = RunFolder(tmp_path)
    arrays, metadata = {"b": np.arange(3.0), "a": np.zeros(0)}, {f"k{i}": f"{i} é" for i in range(40)}
    for turn in (metadata, dict(reversed(metadata.items()))):
        folder.write_arrays(tmp_path / f"{len(list(tmp_path.iterdir()))}", arrays, turn)
    first, second = sorted(tmp_path.iterdir())
    assert first.read_bytes() == second.read_bytes()
    assert folder.read_metadata(first) == metadata
    assert list(folder.read_arrays(first)["b"]) == [0, 1, 2]


def test_private_arrays_are_for_their_owner_only(tmp_path):
    folder = RunFolder.create(tmp_path, "x", NOW)
    path = folder.site("a") / "mlp.safetensors"
    folder.write_arrays(path, {"w": np.arange(6.0).reshape(2, 3)}, {}, private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert np.array_equal(folder.read_arrays(path)["w"], np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("array", [np.array(7), np.zeros((0, 3)), np.arange(12.0).reshape(3, 4).T])
def test_arrays_keep_their_shapes(tmp_path, array):
    """A number as well: what was written as one is not read as a list of one."""
    folder = RunFolder.create(tmp_path, "x", NOW)
    folder.write_arrays(folder.model, {"a": array}, {})
    np.testing.assert_array_equal(folder.read_arrays(folder.model)["a"], array, strict=True)
    state = SiteState(bytes(32), "run", b"", {"a": array}, {"a": array}, RoundMemory())
    read = SiteState.decode(state.encode(), bytes(32))
    np.testing.assert_array_equal(read.channel["a"], array, strict=True)
    np.testing.assert_array_equal(read.hospital["a"], array, strict=True)


@pytest.mark.parametrize("content", [b"", b"not a tensor file", b"\xff" * 100])
def test_damaged_arrays_are_refused_by_name(tmp_path, content):
    folder = RunFolder.create(tmp_path, "x", NOW)
    folder.model.write_bytes(content)
    with pytest.raises(RunFolderError, match="cannot be read"):
        folder.read_arrays(folder.model)


def test_json_with_nan_is_refused(tmp_path):
    folder = RunFolder.create(tmp_path, "x", NOW)
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json(folder.summary, {"x": float("nan")})
    assert not folder.summary.exists()


@pytest.fixture
def little_space():
    """Files of this process end at 2 KiB, as on a disk that is full."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_named_whatever_is_written(tmp_path, little_space):
    folder = RunFolder.create(tmp_path, "x", NOW)
    writers = {
        "fam.safetensors": lambda: folder.write_arrays(folder.model, {"a": np.zeros(4096)}, {}),
        "config.toml": lambda: write_config(config_from_mapping({"data": {"source": "x" * 4000}}), folder.config),
        "plots/x": lambda: draw_one(folder.plots),
    }
    for name, write in writers.items():
        with pytest.raises(RunFolderError, match=f"{name}: cannot be written .*large.*; see that the disk works"):
            write()
        assert not (folder.path / name).exists()


def draw_one(folder):
    with figure(folder, "x") as drawing:
        drawing.subplots().plot([1, 2], [3, 4])
