"""Many hospitals in one batched computation: each gets what it gets on its own."""

import copy
import dataclasses
import gc
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from clients.method.layout import flatten
from clients.method.lean.fleet import Fleet, free_memory
from clients.method.lean.places import SamePlaces
from clients.method.lean.stack import Stack, Trainee
from clients.method.lean.trainer import LeanTrainer
from clients.method.parts import private_part, shared_part
from clients.method.settings import TrainingSettings
from tests.clients.method.test_lean import CHANGES, PROFILES, TOLERANCE, D, generator, make_model, settings_of, unit

SIZES = (40, 97, 0, 1, 64, 33)
"""Whole batches only, a last batch of one, no images, a single one, two batches, and one more."""

FLEET_CASES = [
    (profile, name)
    for profile, names in {
        "default": (
            "as it is",
            "class prompts",
            "two layers",
            "group norm",
            "bias kept",
            "rows reset",
            "two passes",
            "narrow FAM",
        ),
        "paper": (
            "as it is",
            "class-wise, half",
            "no norm",
            "mlp stops",
            "rows reset",
            "two passes",
            "linear head",
            "thresholds not learned",
        ),
    }.items()
    for name in names
]


def hospital(settings, method, number, size, dtype):
    model = make_model(settings, with_mlp=method != "fedclip", seed=10 * number, dtype=dtype)
    draw = generator(100 + number)
    x = unit(torch.randn(size, D, generator=draw)).to(dtype)
    y = torch.randint(0, 3, (size,), generator=draw)
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=dtype) if number % 2 else None
    return model, x, y, weights


def train_both_ways(settings, method, dtype=torch.float32, memory=None, sizes=SIZES):
    """{way: (updates, private states)}, hospital by hospital."""
    cohort = [hospital(settings, method, number, size, dtype) for number, size in enumerate(sizes)]
    vector = flatten(shared_part(cohort[0][0], method))
    for model, *_ in cohort:
        for (_, mine), (_, first) in zip(shared_part(model, method), shared_part(cohort[0][0], method), strict=True):
            mine.data.copy_(first.data)
    trainees = [
        Trainee(x, y, weights, copy.deepcopy(private_part(model, method)), lambda number=number: generator(number))
        for number, (model, x, y, weights) in enumerate(cohort)
    ]
    template = make_model(settings, with_mlp=method != "fedclip", dtype=dtype)
    trained = Fleet(template, method, memory).train(vector, trainees, 2)
    for number, (model, x, y, weights) in enumerate(cohort):
        LeanTrainer(model).train(x, y, weights, 2, generator(number))
    alone = [(flatten(shared_part(model, method)) - vector, private_part(model, method)) for model, *_ in cohort]
    return alone, [(result.update, result.private) for result in trained]


def moved_by_rounding_alone(settings, dtype):
    """Biases before a batch norm, whose exact gradient is 0, and the means that follow them."""
    if settings.mlp_norm != "batch" or dtype == torch.float64:
        return []
    return [f"mlp.{name}" for n in range(3) for name in (f"hidden.{n}.bias", f"norms.{n}.running_mean")]


def assert_same(alone, together, dtype, leave_out=()):
    assert len(alone) == len(together)
    for (update, private), (batched_update, batched) in zip(alone, together, strict=True):
        np.testing.assert_allclose(batched_update, update, rtol=0, atol=1e-5)
        assert private.keys() == batched.keys()
        for name, tensor in private.items():
            if name not in leave_out:
                np.testing.assert_allclose(
                    batched[name].numpy(), tensor.numpy(), rtol=0, atol=TOLERANCE[dtype], err_msg=name
                )


@pytest.mark.parametrize(("profile", "name"), FLEET_CASES)
def test_each_hospital_trains_as_on_its_own_in_double_precision(profile, name):
    """With `local` every parameter is private and so compared in full precision."""
    assert name in CHANGES
    assert_same(*train_both_ways(settings_of(profile, name), "local", torch.float64), torch.float64)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("method", ["fedmedclip", "fedclip", "fedavg-mlp", "local"])
def test_each_hospital_trains_as_on_its_own_in_single_precision(profile, method):
    settings = PROFILES[profile]
    alone, together = train_both_ways(settings, method)
    if settings.mlp_norm == "batch" and method == "fedavg-mlp":  # the same biases are in the update here
        fam = sum(p.numel() for p in make_model(settings, with_mlp=False).parameters())
        alone, together = ([(u[:fam], p) for u, p in way] for way in (alone, together))
    assert_same(alone, together, torch.float32, moved_by_rounding_alone(settings, torch.float32))


def test_where_memory_is_short_fewer_train_at_a_time_with_the_same_result():
    settings = TrainingSettings.default()
    whole, split = (train_both_ways(settings, "local", torch.float64, memory)[1] for memory in (None, 1))
    for (_, a), (_, b) in zip(whole, split, strict=True):
        for name, tensor in a.items():
            np.testing.assert_allclose(b[name].numpy(), tensor.numpy(), rtol=0, atol=1e-12, err_msg=name)


def test_when_the_memory_runs_out_half_as_many_begin_anew(monkeypatch):
    settings = TrainingSettings.default()
    expected = train_both_ways(settings, "fedmedclip", sizes=(40, 33, 20))[1]
    stack = torch.stack

    def scarce(tensors, *args, **kwargs):
        if len(tensors) > 1 and tensors[0].dim() == 2 and tensors[0].shape[0] == D:
            raise torch.OutOfMemoryError("none left")
        return stack(tensors, *args, **kwargs)

    monkeypatch.setattr(torch, "stack", scarce)
    got = train_both_ways(settings, "fedmedclip", sizes=(40, 33, 20))[1]
    for (a, _), (b, _) in zip(expected, got, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-6)


class Room:
    """A device with memory for some hospitals: stacks that are alive take it, and fail at a stage where it is short."""

    def __init__(self, monkeypatch, hospitals, stage):
        self.alive, self.sizes = weakref.WeakKeyDictionary(), []
        monkeypatch.setattr("clients.method.lean.fleet.Stack", self.make)
        for name in ("begin", "finish"):
            monkeypatch.setattr(Stack, name, self.short_of(hospitals, getattr(Stack, name), name == stage))
        self.refuses = hospitals if stage == "make" else len(SIZES)

    def make(self, *args):
        self.sizes.append(len(args[3]))
        if sum(self.alive.values()) + len(args[3]) > self.refuses:
            raise torch.OutOfMemoryError("none left")
        stack = Stack(*args)
        self.alive[stack] = len(args[3])
        return stack

    def short_of(self, hospitals, step, is_here):
        def taken(stack, *args):
            if is_here and sum(self.alive.values()) > hospitals:
                raise torch.OutOfMemoryError("none left")
            return step(stack, *args)

        return taken


@pytest.mark.parametrize("stage", ["make", "begin", "finish"])
def test_a_stack_that_did_not_fit_is_gone_before_a_smaller_one_is_made(monkeypatch, stage):
    settings = TrainingSettings.default()
    expected = train_both_ways(settings, "local", torch.float64)[1]
    gc.disable()  # what has to wait for the collector stays taken
    try:
        room = Room(monkeypatch, hospitals=3, stage=stage)
        got = train_both_ways(settings, "local", torch.float64)[1]
        assert room.sizes == [6, 3, 3]
    finally:
        gc.enable()
    for (_, a), (_, b) in zip(expected, got, strict=True):
        for name, tensor in a.items():
            np.testing.assert_allclose(b[name].numpy(), tensor.numpy(), rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("stage", ["begin", "finish"])
def test_a_kept_stack_that_does_not_fit_any_more_is_gone_too(monkeypatch, stage):
    """From the second round on, with what the models said still to be asked for."""
    settings, model = TrainingSettings.default(), make_model(TrainingSettings.default())
    cohort = [hospital(settings, "local", number, 40, torch.float32) for number in range(4)]
    trainees = [
        Trainee(x, y, weights, copy.deepcopy(private_part(own, "local")), generator, x[:9])
        for own, x, y, weights in cohort
    ]
    fleet, nothing = Fleet(model, "local"), np.zeros(0, np.float32)
    first = fleet.begin(nothing, trainees, 1)
    assert first.finish()
    assert first.said()
    room = Room(monkeypatch, hospitals=2, stage=stage)
    room.alive[fleet._kept] = 4
    second = fleet.begin(nothing, trainees, 2)
    assert bool(second.said()) is (stage == "finish")
    assert len(second.finish()) == 4
    assert second.said() is None
    assert room.sizes == [2, 2]


def bytes_held():
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("profile", PROFILES)
def test_what_steps_of_fewer_and_fewer_hospitals_hold_is_what_one_step_of_all_does(profile):
    """Hospitals whose last steps all have another number."""
    settings, taken = dataclasses.replace(PROFILES[profile], batch_size=32), []
    images = 32 * 12
    for sizes in ([images] * 12, range(32, images + 1, 32)):
        cohort = [hospital(settings, "local", number, images, torch.float32) for number in range(12)]
        trainees = [
            Trainee(x[:size], y[:size], None, private_part(model, "local"), generator)
            for (model, x, y, _), size in zip(cohort, sizes, strict=True)
        ]
        fleet, before = Fleet(make_model(settings), "local"), bytes_held()
        fleet.train(np.zeros(0, np.float32), trainees, 1)
        taken.append(bytes_held() - before)
        assert len(fleet._kept._steps) == len(set(sizes))
    assert taken[1] < 1.05 * taken[0]


@pytest.mark.parametrize("profile", PROFILES)
def test_where_steps_have_their_memory_does_not_show(monkeypatch, profile):
    shared = train_both_ways(PROFILES[profile], "local", sizes=(20, 97, 40))[1]
    monkeypatch.setattr(SamePlaces, "again", lambda _: nullcontext())
    for (_, a), (_, b) in zip(shared, train_both_ways(PROFILES[profile], "local", sizes=(20, 97, 40))[1], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_images_are_reckoned_with_as_well_as_steps():
    model = make_model(TrainingSettings.default())

    def trainee(images, validation=0):
        x = torch.zeros(1, D)
        return Trainee(x.expand(images, D), torch.zeros(images), None, {}, generator, x.expand(validation, D))

    step = next(n for n in range(1 << 30) if Fleet(model, "local", n << 10)._largest([trainee(1)] * 2) == 2) << 9
    for many in (trainee(step // (4 * D)), trainee(1, step // (4 * D))):  # as much as a step
        assert Fleet(model, "local", 7 * step)._largest([trainee(1)] * 6) == 6
        assert Fleet(model, "local", 7 * step)._largest([*[trainee(1)] * 6, many, many]) == 5
        assert Fleet(model, "local", 1)._largest([many]) == 1


def test_what_torch_keeps_of_freed_tensors_is_free(monkeypatch):
    for name, value in (("mem_get_info", (100, 1000)), ("memory_reserved", 700), ("memory_allocated", 300)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_memory(torch.device("cuda")) == 500


def test_a_vector_of_another_length_is_refused():
    fleet = Fleet(make_model(TrainingSettings.default()), "fedmedclip")
    x, y = torch.zeros(1, D), torch.zeros(1, dtype=torch.int64)
    private = private_part(make_model(TrainingSettings.default()), "fedmedclip")
    with pytest.raises(ValueError, match="shape"):
        fleet.train(np.zeros(7, np.float32), [Trainee(x, y, None, private, generator)], 1)


def test_what_is_kept_of_one_round_does_not_show_in_the_next():
    settings = TrainingSettings.default()
    model = make_model(settings, dtype=torch.float64)
    x, y = unit(torch.randn(97, D, generator=generator(1))).double(), torch.arange(97) % 3
    data = [(x, y), (x[:40], y[:40]), (x[:33], y[:33])]
    kept, private = Fleet(model, "local"), [private_part(model, "local")] * 3
    for number in (1, 2, 3):
        cohort = [
            Trainee(*rows, None, mine, lambda seed=10 * number + k: generator(seed))
            for k, (rows, mine) in enumerate(zip(data, private, strict=True))
        ]
        fresh = Fleet(model, "local").train(np.zeros(0, np.float32), cohort, number)
        trained = kept.train(np.zeros(0, np.float32), cohort, number)
        private = [result.private for result in trained]
        for a, b in zip(trained, fresh, strict=True):
            assert all(torch.equal(a.private[name], b.private[name]) for name in b.private)


@pytest.mark.gpu
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gpu_trains_each_hospital_of_a_fleet_as_on_its_own(profile, dtype):
    """Dropout too, and in rounds whose steps are recorded, replayed and begun by call."""
    settings = PROFILES[profile]
    cohort = [hospital(settings, "local", number, size, dtype) for number, size in enumerate((40, 353, 0, 1, 340, 33))]
    models = [model.to("cuda") for model, *_ in cohort]
    data = [(x.to("cuda"), y.to("cuda"), None if w is None else w.to("cuda")) for _, x, y, w in cohort]
    fleet = Fleet(copy.deepcopy(models[0]), "local")
    trainers = [LeanTrainer(copy.deepcopy(model)) for model in models]
    private = [copy.deepcopy(private_part(model, "local")) for model in models]

    def drawn(number, k):
        return torch.Generator("cuda").manual_seed(100 * number + k)

    for number in (1, 2, 3):
        trainees = [
            Trainee(*rows, mine, lambda number=number, k=k: drawn(number, k))
            for k, (rows, mine) in enumerate(zip(data, private, strict=True))
        ]
        private = [result.private for result in fleet.train(np.zeros(0, np.float32), trainees, number)]
        for k, trainer in enumerate(trainers):
            trainer.train(*data[k], number, drawn(number, k))
            for name, tensor in private_part(trainer._model, "local").items():
                if name in moved_by_rounding_alone(settings, dtype):
                    continue
                tolerance = 1e-5 if dtype == torch.float32 else 1e-10
                np.testing.assert_allclose(
                    private[k][name].cpu().numpy(), tensor.cpu().numpy(), rtol=0, atol=tolerance, err_msg=name
                )
            private[k] = copy.deepcopy(private_part(trainer._model, "local"))  # rounding is not to add up


@pytest.mark.gpu
@pytest.mark.parametrize("profile", PROFILES)
def test_a_gpu_trains_the_fleet_as_the_processor_does(profile):
    settings = dataclasses.replace(PROFILES[profile], feature_dropout=0.0, mlp_dropout=0.0, batch_size=97)
    model = make_model(settings, dtype=torch.float64)
    x, y = unit(torch.randn(97, D, generator=generator(1))).double(), torch.arange(97) % 3
    states = []
    for device in ("cpu", "cuda"):
        here = copy.deepcopy(model).to(device)
        trainee = Trainee(
            x.to(device), y.to(device), None, private_part(here, "local"), lambda at=device: torch.Generator(at)
        )
        states.append(Fleet(here, "local").train(np.zeros(0, np.float32), [trainee, trainee], 1)[1].private)
    for name, tensor in states[0].items():
        np.testing.assert_allclose(states[1][name].cpu().numpy(), tensor.numpy(), rtol=0, atol=1e-8, err_msg=name)


@pytest.mark.gpu
def test_a_gpu_without_the_memory_for_all_trains_half_of_them_at_a_time(monkeypatch):
    """Eight hospitals of about 70 MiB each, then on a GPU of which four fifths of what they took may be used."""
    settings = dataclasses.replace(TrainingSettings.paper(), mlp_width=2048, mlp_layers=2)
    cohort = [hospital(settings, "local", number, 40, torch.float32) for number in range(8)]
    model, sizes, results, make = make_model(settings).to("cuda"), [], [], Fleet._stack
    monkeypatch.setattr(Fleet, "_stack", lambda fleet, some: sizes.append(len(some)) or make(fleet, some))
    trainees = [
        Trainee(x.cuda(), y.cuda(), None, private_part(own.cuda(), "local"), lambda: torch.Generator("cuda"))
        for own, x, y, _ in cohort
    ]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(2):
            trained = Fleet(model, "local", memory=1 << 50).train(np.zeros(0, np.float32), trainees, 1)
            results.append([{name: tensor.cpu() for name, tensor in one.private.items()} for one in trained])
            del trained
            gc.collect()
            torch.cuda.empty_cache()
            of_all = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(0.8 * torch.cuda.max_memory_reserved() / of_all)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert sizes == [8, 8, 4, 4]
    for a, b in zip(*results, strict=True):
        for name in a.keys() - set(moved_by_rounding_alone(settings, torch.float32)):
            np.testing.assert_allclose(b[name].numpy(), a[name].numpy(), rtol=0, atol=1e-4, err_msg=name)
