"""The hospitals of a simulation: alone, in threads, or a round for all of them in one computation."""

import os
import signal
import threading
from contextlib import closing, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clients.method import shared_arrays
from clients.method.crew import CrewError
from clients.method.hospital import Hospital
from clients.method.layout import initial_vector
from clients.method.lean.fleet import Fleet
from clients.method.settings import METHODS, TrainingSettings
from clients.method.threads import one_thread_each
from securefed import training_processes
from securefed.errors import TrainingProcessError
from securefed.hospitals import Hospitals
from securefed.training_processes import TrainingProcesses
from tests.securefed.conftest import CLASSES, WIDTH, bundle

PROFILES = {"default": TrainingSettings.default(), "paper": TrainingSettings.paper()}
FAST = {"fast": TrainingSettings(fam_learning_rate=0.02, mlp_learning_rate=0.02)}


def make(method, profile="default", **how):
    return Hospitals(bundle(sites=3), (PROFILES | FAST)[profile], method, 0, "cpu", **how)


def start(method, profile="default"):
    return initial_vector(WIDTH, (PROFILES | FAST)[profile], 0, method, len(CLASSES))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("method", METHODS)
def test_a_round_in_one_computation_is_a_round_of_each(method, profile):
    """But for the biases before a batch norm (paper's MLP), which nothing but rounding moves."""
    alone, together = make(method, profile), make(method, profile, together=True)
    vector = start(method, profile)
    fam = start("fedclip", profile).size
    for site in alone.sites:
        expected, got = (way.train(site, vector, 1)[:fam] for way in (alone, together))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    a, b = (way.validation_accuracy(vector) for way in (alone, together))
    assert a.keys() == b.keys()
    assert all(abs(a[site][part] - b[site][part]) < 0.1 for site in a for part in a[site])


@pytest.mark.parametrize("method", ["fedmedclip", "fedclip", "fedavg-mlp", "local"])
def test_what_is_begun_early_is_what_each_site_says_and_trains(method):
    """Three rounds; what a fleet says of validation images comes from before the training that has begun."""
    alone, together = make(method), make(method, together=True)
    vector = start(method)
    for number in (1, 2, 3):
        together.begin(vector, number)
        a, b = (way.validation_accuracy(vector) for way in (alone, together))
        assert a.keys() == b.keys()
        assert all(abs(a[site][part] - b[site][part]) < 0.1 for site in a for part in a[site])
        a, b = (way.keep_ratios(vector) for way in (alone, together))
        assert all(b[site] == pytest.approx(a[site], abs=0.01) for site in a)
        before = [
            {site: way.predict(site, vector, "test")["ensemble"] for site in way.sites} for way in (alone, together)
        ]
        for site in alone.sites:
            np.testing.assert_allclose(before[1][site], before[0][site], rtol=0, atol=2e-4)
        updates = [way.train_all(vector, number) for way in (alone, together)]
        for site in alone.sites:
            np.testing.assert_allclose(updates[1][site], updates[0][site], rtol=0, atol=2e-5)
            states = [way.private_states()[site] for way in (alone, together)]
            for name in states[0]:
                np.testing.assert_allclose(states[1][name], states[0][name], rtol=0, atol=1e-3, err_msg=name)
        vector = vector + np.mean(list(updates[0].values()), axis=0, dtype=np.float32)


def test_what_was_begun_for_another_model_or_round_is_thrown_away():
    alone, together = make("fedmedclip"), make("fedmedclip", together=True)
    vector = start("fedmedclip")
    together.begin(vector + np.float32(1e-3), 1)
    got = together.train_all(vector, 1)
    expected = alone.train_all(vector, 1)
    for site in alone.sites:
        np.testing.assert_allclose(got[site], expected[site], rtol=0, atol=1e-5)
    together.begin(vector, 3)
    got, expected = (way.train_all(vector, 2) for way in (together, alone))
    for site in alone.sites:
        np.testing.assert_allclose(got[site], expected[site], rtol=0, atol=1e-5)


def test_a_round_that_a_fleet_could_not_begin_is_begun_anew(monkeypatch):
    """The update of the round before is not handed out as that of this one."""
    alone, together = make("fedmedclip"), make("fedmedclip", together=True)
    vector = start("fedmedclip")
    updates = [way.train("site0", vector, 1) for way in (alone, together)]
    moved = vector + updates[0]
    begin = Fleet.begin

    def fails(fleet, *args):
        monkeypatch.setattr(Fleet, "begin", begin)
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(Fleet, "begin", fails)
    with pytest.raises(torch.OutOfMemoryError):
        together.train("site0", moved, 2)
    expected, got = (way.train("site0", moved, 2) for way in (alone, together))
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
    assert not np.allclose(got, updates[1], rtol=0, atol=2e-5)


def test_hospitals_that_train_each_for_itself_have_no_fleet(monkeypatch):
    """Private ones: a fleet's model would lie on the GPU for nothing."""
    monkeypatch.setattr("securefed.hospitals.make_fleet", lambda *_: pytest.fail("it would never be asked"))
    own = {site: make("fedmedclip")._hospitals[site] for site in make("fedmedclip").sites}
    Hospitals(bundle(sites=3), PROFILES["default"], "fedmedclip", 0, "cuda", hospitals=own)


def test_a_site_that_received_another_model_trains_from_that_one():
    alone, together = make("fedmedclip"), make("fedmedclip", together=True)
    vector = start("fedmedclip")
    other = vector + np.float32(1e-3)
    together.train("site0", vector, 1)
    np.testing.assert_array_equal(together.train("site1", other, 1), alone.train("site1", other, 1))


def test_a_site_that_is_lost_keeps_what_it_had():
    together = make("fedmedclip", together=True)
    before = together.private_states()["site1"]
    vector = start("fedmedclip")
    together.train("site0", vector, 1)
    after = together.private_states()["site1"]
    assert all(np.array_equal(before[name], after[name]) for name in before)
    alone = make("fedmedclip")
    np.testing.assert_allclose(together.train("site1", vector, 2), alone.train("site1", vector, 2), rtol=0, atol=1e-5)


def test_a_score_is_that_of_the_present_model():
    hospitals, vector = make("fedmedclip", "fast"), start("fedmedclip", "fast")
    scores = [hospitals.score("site0", vector)]
    for number in range(1, 5):
        vector = vector + hospitals.train("site0", vector, number)
        scores.append(hospitals.score("site0", vector))
        assert scores[-1] == hospitals.validation_accuracy(vector)["site0"]["ensemble"]
        assert scores[-1] == score_of_fresh_ones(number)
    assert len(set(scores)) > 1
    assert hospitals.seconds > 0


def test_views_of_one_download_are_told_from_those_of_the_next():
    hospitals = make("fedclip")
    site, vector = hospitals.sites[0], start("fedclip")
    draws = np.random.default_rng(0).standard_normal((2, vector.size)).astype(np.float32)
    downloads = [(vector + draws[step]).tobytes() for step in (0, 1, 0)]
    updates = []
    for download in downloads:
        views = [np.frombuffer(download, np.float32) for _ in range(2)]
        scores = {hospitals.score(site, view) for view in views}
        assert scores == {make("fedclip").score(site, views[0].copy())}
        updates.append(hospitals.train(site, views[1], 1))
        np.testing.assert_array_equal(updates[-1], make("fedclip").train(site, views[0].copy(), 1))
    assert not np.array_equal(updates[0], updates[1])


def score_of_fresh_ones(rounds):
    """The score of hospitals that remember nothing of the rounds before."""
    fresh, vector = make("fedmedclip", "fast"), start("fedmedclip", "fast")
    for number in range(1, rounds + 1):
        vector = vector + fresh.train("site0", vector, number)
    return fresh.score("site0", vector.copy())


def test_sites_that_see_a_new_model_at_the_same_time_are_validated_once(monkeypatch):
    """All of them know it again in the next round, though it comes to each as a copy."""
    hospitals, vector = make("fedmedclip", "fast", workers=3), start("fedmedclip", "fast")
    hospitals.validation_accuracy(vector)
    asked = threading.Barrier(3)
    compare = np.array_equal

    def together(left, right):
        with suppress(threading.BrokenBarrierError):  # where they are asked one after the other
            asked.wait(0.2)
        return compare(left, right)

    moved = vector + hospitals.train("site0", vector, 1)
    monkeypatch.setattr("securefed.hospitals.np.array_equal", together)
    accuracy = hospitals.validation_accuracy(moved)
    monkeypatch.undo()
    monkeypatch.setattr(Hospital, "predict", lambda *_: pytest.fail("it was validated already"))
    assert {site: hospitals.score(site, moved.copy()) for site in hospitals.sites} == {
        site: parts["ensemble"] for site, parts in accuracy.items()
    }


class Clock:
    """Seconds of training so far, and crews that are counted and not started."""

    def __init__(self, worth, rounds):
        self.seconds, self.started, self.benches = 0.0, 0, SimpleNamespace(crew=None)
        self.processes = TrainingProcesses(self.benches, self.start, rounds, lambda: self.seconds, worth)

    def start(self):
        self.started += 1
        return SimpleNamespace(close=lambda: setattr(self, "started", -self.started))

    def round(self, number, seconds):
        for _ in range(3):  # once for each site
            self.processes.begin(number)
        self.seconds += seconds


def test_processes_are_started_once_where_what_is_left_is_worth_it():
    clock = Clock(worth=30, rounds=10)
    clock.round(1, 3.0)
    assert not clock.started
    clock.round(2, 3.0)  # nothing but threads until then: 9 rounds of 3 seconds are left
    assert not clock.started
    clock.round(3, 4.0)
    clock.round(4, 0.5)  # 7 of 4 are not worth it
    assert not clock.started
    longer = Clock(worth=30, rounds=10)
    longer.round(1, 3.5)
    longer.round(2, 0.1)
    longer.round(3, 0.1)
    assert longer.started == 1
    assert longer.benches.crew
    longer.processes.close()
    assert longer.started == -1
    assert longer.benches.crew is None


def test_a_process_that_does_not_start_is_an_error_with_a_name():
    clock = Clock(worth=0, rounds=3)

    def fails():
        raise CrewError("a simulation", "was ended by signal 9")

    clock.processes = TrainingProcesses(clock.benches, fails, 3, lambda: 1.0, 0)
    clock.processes.begin(1)
    with pytest.raises(TrainingProcessError, match=r"do not start: .* signal 9. The finished rounds are kept: go on"):
        clock.processes.begin(2)


@pytest.mark.parametrize("workers", [1, 2])
def test_hospitals_in_processes_are_hospitals_in_threads_bit_for_bit(workers, monkeypatch):
    """With one worker there are none; the first round, from which it follows whether they pay, is one of threads."""
    monkeypatch.setattr(training_processes, "WORTH_SECONDS", 0.0)
    threads, vector = make("fedmedclip", "fast", workers=workers), start("fedmedclip", "fast")
    with one_thread_each(), closing(make("fedmedclip", "fast", workers=workers, rounds=3)) as led:
        for number in (1, 2, 3):
            expected, got = (way.train_all(vector, number) for way in (threads, led))
            assert (led.crew is not None) == (workers > 1 and number > 1 and shared_arrays.available())
            for site in threads.sites:
                np.testing.assert_array_equal(got[site], expected[site])
            vector = vector + got["site0"]
            assert led.validation_accuracy(vector) == threads.validation_accuracy(vector)
            assert led.keep_ratios(vector) == threads.keep_ratios(vector)
        if led.crew is not None:
            for pid in led.crew.process_ids:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(TrainingProcessError, match="was ended by signal 9"):
                led.train_all(vector, 4)
    assert led.train("site0", vector, 4).any()  # in this process, again
