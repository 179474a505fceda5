"""What a round of a fleet takes on a GPU by the general step and by the fused one, and how far their results are apart.

python benchmarks/fleet_step.py

Prints, for each: milliseconds of a round until it is asked for and until it is done, kernels a step, and their
microseconds; then the largest differences of what the hospitals have after a round. ADR 21 has figures.
"""

import copy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from clients.method.layout import initial_vector, seeded_generator
from clients.method.lean import stack as stacks
from clients.method.parts import build_model, private_part, shared_part
from clients.method.settings import TrainingSettings

SIZES = (4864, 3344, 2584, 1824, 1520, 1064)
"""Training images of the hospitals of the set of the size of ISIC 2019."""

WIDTH, CLASSES, METHOD, ROUNDS = 512, 8, "fedmedclip", 4


def main():
    if not torch.cuda.is_available():
        sys.exit("this machine has no CUDA device that torch can use")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, hospitals of {SIZES} images")
    model, data = model_and_data()
    trained = {name: measured(name, model, data) for name in ("general", "fused")}
    for number, (a, b) in enumerate(zip(*trained.values(), strict=True), start=1):
        update = [float(np.abs(x.update - y.update).max()) for x, y in zip(a, b, strict=True)]
        private = [
            max(float((x.private[n] - y.private[n]).abs().max()) for n in x.private) for x, y in zip(a, b, strict=True)
        ]
        largest = max(float(np.abs(x.update).max()) for x in a)
        print(f"round {number}, largest differences by hospital: updates {shown(update)} (of up to {largest:.1e})")
        print(f"         what hospitals keep {shown(private)}")


def model_and_data():
    settings = TrainingSettings.default()
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, WIDTH, generator=draw)
    text = torch.nn.functional.normalize(centres, dim=-1).numpy()
    data = []
    for size in SIZES:
        labels = torch.randint(0, CLASSES, (size,), generator=draw)
        x = centres[labels] + 2 * torch.randn(size, WIDTH, generator=draw)
        data.append((torch.nn.functional.normalize(x, dim=-1).cuda(), labels.cuda()))
    return build_model(text, 100.0, settings, METHOD, "a", 0, "cuda"), data


def measured(name, model, data):
    """Take rounds by one kind of step, each from the same beginning; return what the hospitals have after each."""
    choice = stacks.reason_for_general_step
    if name == "general":
        stacks.reason_for_general_step = lambda _model: "it is measured"
    shared, private = [n for n, _ in shared_part(model, METHOD)], list(private_part(model, METHOD))
    stack = stacks.Stack(model, shared, private, trainees(model, data, 1))
    stacks.reason_for_general_step = choice
    if name == "fused" and stack.general_because is not None:
        sys.exit(f"there is no fused step here: {stack.general_because}")
    rounds = [one_round(stack, model, data, number) for number in range(1, ROUNDS + 1)]
    print(f"{name}: ms asked for / done", *(f"{1000 * asked:.1f}/{1000 * done:.1f}" for _, asked, done in rounds))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        one_round(stack, model, data, ROUNDS)
    events = profile.key_averages()
    steps = -(-max(SIZES) // model.settings.batch_size)
    kernels, us = sum(e.count for e in events), sum(e.self_device_time_total for e in events)
    print(f"{name}: {kernels / steps:.0f} kernels and {us / steps:.0f} us of them a step")
    for event in sorted(events, key=lambda e: -e.self_device_time_total)[:8]:
        print(f"  {event.self_device_time_total / steps:7.1f} us a step  {event.key[:80]}")
    return [result for result, _, _ in rounds]


def one_round(stack, model, data, number):
    given = trainees(model, data, number)
    vector = initial_vector(WIDTH, model.settings, 0, METHOD, CLASSES)
    torch.cuda.synchronize()
    start = time.perf_counter()
    stack.begin(vector, given, number)
    asked = time.perf_counter() - start
    result = stack.finish()
    torch.cuda.synchronize()
    return result, asked, time.perf_counter() - start


def trainees(model, data, number):
    def generator(k):
        return lambda: seeded_generator("round", number, k, device="cuda")

    private = private_part(model, METHOD)
    return [stacks.Trainee(*rows, None, copy.deepcopy(private), generator(k)) for k, rows in enumerate(data)]


def shown(values):
    return " ".join(f"{value:.1e}" for value in values)


if __name__ == "__main__":
    main()
