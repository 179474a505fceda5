"""States that wait in a file come back as they were, and an interrupted run goes on from them."""

import errno
import gc
import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from securefed import spill
from securefed.federation import Federation
from securefed.simulation import resume_run, simulate
from securefed.spill import SpilledStates, spilled

STATES = {
    "a": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(7), "none": np.zeros((0, 4))},
    "b": {"w": np.array([[np.nan, -0.0, np.inf]], np.float32), "turned": np.arange(6.0).reshape(2, 3).T},
}


def assert_same(states, expected):
    assert list(states) == list(expected)
    for site, arrays in expected.items():
        got = states[site]
        assert got.keys() == arrays.keys()
        for name, array in arrays.items():
            assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
            assert got[name].tobytes() == array.tobytes(), name
            assert not got[name].flags.writeable


def test_every_bit_comes_back():
    assert_same(SpilledStates(STATES), STATES)
    assert len(SpilledStates(STATES)) == 2


@pytest.mark.parametrize("values", [1, 1023, 1024, 1025, 5000])
def test_every_bit_comes_back_over_blocks(monkeypatch, values):
    monkeypatch.setattr(spill, "_BLOCK", 4096)
    numbers = np.random.default_rng(values)
    states = {name: {"w": numbers.random(values, np.float32), "b": numbers.random(3)} for name in "ab"}
    assert_same(SpilledStates(states), states)


def test_a_file_system_that_wants_its_cache_gets_the_same_bytes(monkeypatch):
    monkeypatch.setattr(spill, "_BLOCK", 4096)
    states = {"a": {"w": np.arange(5000.0)}}
    monkeypatch.setattr(spill, "_write_past_cache", lambda _fd, _past: False)
    assert_same(SpilledStates(states), states)


def test_a_write_that_is_refused_past_the_cache_goes_through_it(monkeypatch):
    switched, write = [], os.pwrite

    def refuse(fd, data, place):
        if switched == [True]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(fd, data, place)

    monkeypatch.setattr(spill, "_BLOCK", 4096)
    monkeypatch.setattr(spill, "_write_past_cache", lambda _fd, past: switched.append(past) or past)
    monkeypatch.setattr(os, "pwrite", refuse)
    states = {"a": {"w": np.arange(5000.0)}}
    assert_same(SpilledStates(states), states)
    assert switched == [True, False]


def test_a_full_disk_is_said(monkeypatch):
    def refuse(_fd, _data, _place):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        SpilledStates(STATES)


def test_what_changes_later_is_not_in_the_file():
    array = np.zeros(3)
    states = SpilledStates({"a": {"w": array}})
    array += 1
    assert not states["a"]["w"].any()


def test_small_states_and_those_in_a_file_are_left_alone():
    assert spilled(STATES) is STATES
    states = spilled(STATES, in_memory=0)
    assert isinstance(states, SpilledStates)
    assert spilled(states, in_memory=0) is states


def test_the_file_is_closed_with_its_mapping():
    states = SpilledStates(STATES)
    file = states._file
    del states
    gc.collect()
    assert file.closed


def test_a_file_that_was_cut_is_noticed():
    states = SpilledStates(STATES)
    states._file.truncate(3)
    with pytest.raises(OSError, match="ends before w of a"):
        states["a"]


def test_a_run_from_files_and_its_resumption_end_as_the_one_in_memory(small_run, tmp_path, monkeypatch):
    def run(name):
        return simulate(small_run(), output=tmp_path / name, cache_dir=tmp_path / "cache")

    def end(result):
        files = sorted((result.folder.path / "sites").rglob("*.safetensors"))
        models = [{name: array.tobytes() for name, array in load_file(path).items()} for path in files]
        return result.summary["fam_sha256"], result.summary["mean"], result.summary["chosen_round"], models

    expected = end(run("in memory"))
    monkeypatch.setattr("securefed.federation.spilled", SpilledStates)
    assert end(run("in files")) == expected
    take, stopped = Federation._take_score, []

    def stop_once(self, score):
        if score.number == 2 and not stopped:
            stopped.append(score)
            raise KeyboardInterrupt
        take(self, score)

    monkeypatch.setattr(Federation, "_take_score", stop_once)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    assert end(resume_run(tmp_path / "stopped", cache_dir=tmp_path / "cache")) == expected
