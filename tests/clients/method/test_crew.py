"""Processes in which hospitals train: what they compute is what a workbench computes, and they end with certainty."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clients.method import shared_arrays
from clients.method.crew import Crew, CrewError, ModelArguments
from clients.method.hospital import Hospital, workbenches
from clients.method.layout import initial_vector
from clients.method.settings import TrainingSettings
from clients.method.threads import one_thread_each
from tests.clients.method.test_hospital import TEXT, make_site

pytestmark = pytest.mark.skipif(not shared_arrays.available(), reason="needs memory without a name (Linux)")

SITES = {"a": make_site("a", 0, 40), "b": make_site("b", 1, 70)}
BALANCED = TrainingSettings(class_balance=0.5)


def hospitals(settings, method="fedmedclip"):
    benches = workbenches(TEXT, 100.0, settings, method, "cpu")
    made = {n: Hospital(s, TEXT, 100.0, settings, method, 3, benches=benches) for n, s in SITES.items()}
    return benches, made


def crew_for(made, settings, method="fedmedclip", processes=1):
    vector = initial_vector(TEXT.shape[1], settings, 3, method, len(TEXT))
    rows = {name: hospital.rows_for_a_crew() for name, hospital in made.items()}
    private = next(iter(made.values())).private_tensors
    return Crew(processes, ModelArguments(TEXT, 100.0, settings, method), 3, rows, private, vector.size)


def is_alive(pid):
    """Whether a process is there and has not ended (one that nobody has asked about yet shows as Z)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        (BALANCED, "fedmedclip"),
        (TrainingSettings.paper(), "fedavg-mlp"),
    ],
)
def test_a_process_trains_and_validates_bit_for_bit_as_a_thread(settings, method):
    _, alone = hospitals(settings, method)
    benches, led = hospitals(settings, method)
    vector = initial_vector(TEXT.shape[1], settings, 3, method, len(TEXT))
    with one_thread_each(), closing(crew_for(led, settings, method)) as crew:
        benches.crew = crew
        for number in (1, 2):
            for name in SITES:
                expected, got = (way[name].train_round(vector, number) for way in (alone, led))
                np.testing.assert_array_equal(got, expected)
                for a, b in zip(alone[name].private_state().items(), led[name].private_state().items(), strict=True):
                    assert a[0] == b[0]
                    np.testing.assert_array_equal(a[1], b[1])
            vector = vector + got
            vector.flags.writeable = False
            for name in SITES:
                expected, got_parts = (way[name].predict(vector, "val") for way in (alone, led))
                assert expected.keys() == got_parts.keys()
                for part in expected:
                    np.testing.assert_array_equal(got_parts[part], expected[part])
                assert led[name].keep_ratios(vector) == alone[name].keep_ratios(vector)
                a, b = (way[name].predict(vector, "test") for way in (alone, led))
                np.testing.assert_array_equal(a["ensemble"], b["ensemble"])


@pytest.mark.parametrize(
    ("tuned", "expected"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=1:glibc.malloc.hugetlb=0"),  # the last one holds
    ],
)
def test_processes_ask_for_huge_pages_and_keep_what_the_user_has_tuned(monkeypatch, tuned, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    if tuned is None:
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    else:
        monkeypatch.setenv("GLIBC_TUNABLES", tuned)
    _, made = hospitals(BALANCED)
    with closing(crew_for(made, BALANCED)) as crew:
        environment = Path(f"/proc/{crew.process_ids[0]}/environ").read_bytes().replace(b"\0", b":")  # as glibc does
    assert f":GLIBC_TUNABLES={expected}:".encode() in environment
    assert b":OMP_NUM_THREADS=1:" in environment


def test_what_goes_wrong_in_a_process_is_an_error_with_a_name_and_the_process_goes_on():
    _, made = hospitals(BALANCED)
    private, vector = made["a"].private_tensors, initial_vector(TEXT.shape[1], BALANCED, 3)
    with closing(crew_for(made, BALANCED)) as crew:
        with pytest.raises(CrewError, match=r"training process of nobody failed: KeyError: 'nobody'") as caught:
            crew.train_round("nobody", vector, private, 1)
        assert "crew_process.py" in caught.value.__notes__[0]
        with pytest.raises(ValueError, match="the shared vector has shape"):
            crew.train_round("a", vector[1:], private, 1)
        _, update = crew.train_round("a", vector, private, 1)
        np.testing.assert_array_equal(update, made["a"].train_round(vector, 1))
        os.kill(crew.process_ids[0], signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(CrewError, match="training process of a was ended by signal 9"):
                crew.train_round("a", vector, private, 2)
    crew.close()
    assert not any(is_alive(pid) for pid in crew.process_ids)


def test_a_process_does_not_outlive_the_one_that_started_it():
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from tests.clients.method.test_crew import *\n"
        "crew = crew_for(hospitals(BALANCED)[1], BALANCED)\n"
        "print(crew.process_ids[0], flush=True)\n"
        "import os; os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    pid, deadline = int(done.stdout), time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)


def test_shared_arrays_lie_apart_and_are_seen_twice():
    likes = {"a": np.zeros((3, 5), np.float32), "b": np.zeros((), np.int64), "c": np.zeros(0, np.float32)}
    places = shared_arrays.layout(likes.items())
    descriptor = shared_arrays.create(places)
    one, other = shared_arrays.views(descriptor, places), shared_arrays.views(descriptor, places)
    os.close(descriptor)
    one["a"][...] = 1
    one["b"][...] = -7
    assert other["a"].sum() == 15
    assert other["b"] == -7
    assert other["c"].shape == (0,)
