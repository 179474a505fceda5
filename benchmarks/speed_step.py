"""One training step against its floor: the part `step` of speed.py."""

import contextlib
import statistics
import time


def in_turns(functions, turns=9):
    """{name: median processor seconds}, each function once a turn."""
    seconds = {name: [] for name in functions}
    for _ in range(turns):
        for name, function in functions.items():
            start = time.process_time()
            function()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def step():
    """One thread: a step of each profile against its floor, the products on its own matrices and the optimiser."""
    import copy

    import torch
    from speed_cohort import CLASSES, WIDTH, machine

    from clients.method.lean.trainer import LeanTrainer
    from clients.method.parts import build_model
    from clients.method.settings import TrainingSettings
    from clients.method.training import make_optimizer, train_epochs

    torch.set_num_threads(1)
    steps, batch = 20, 32
    draw = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(steps * batch, WIDTH, generator=draw), dim=-1)
    y = torch.randint(0, CLASSES, (len(x),), generator=draw)
    results = {}
    for profile in ("default", "paper"):
        settings = getattr(TrainingSettings, profile)()
        text = torch.nn.functional.normalize(torch.randn(CLASSES, WIDTH, generator=draw), dim=-1).numpy()
        lean = build_model(text, 100.0, settings, "fedmedclip", "a", 0, "cpu")
        slow = copy.deepcopy(lean)
        trainer = LeanTrainer(lean)
        optimizer = make_optimizer(slow, settings, 1)
        products, adam = floor(copy.deepcopy(lean), settings, batch)

        def both(products=products, adam=adam):
            for _ in range(steps):
                products()
                adam()

        def only(what):
            for _ in range(steps):
                what()

        trainer.train(x, y, None, 1, draw)
        seconds = in_turns(
            {
                "step": lambda t=trainer: t.train(x, y, None, 1, draw),
                "floor": both,
                "products": lambda f=products: only(f),
                "optimizer": lambda f=adam: only(f),
                "autograd": lambda m=slow, o=optimizer, s=settings: train_epochs(m, o, x, y, None, s, draw),
            }
        )
        results[profile] = {name: 1000 * value / steps for name, value in seconds.items()}
        results[profile]["of_floor"] = seconds["step"] / seconds["floor"]
        results[profile]["profile"] = where_the_time_goes(lambda t=trainer: t.train(x, y, None, 1, draw), steps)
    return {"machine": machine(), "steps": results}


def floor(model, settings, batch):
    """The products of a step, on matrices that lie in memory as the model's do, and its fused AdamW."""
    import torch

    from clients.method.masked_linear import MaskedLinear
    from clients.method.training import make_optimizer

    layers = [module.weight.detach() for module in model.modules() if isinstance(module, MaskedLinear)]
    memory = torch.empty(max(weight.numel() for weight in layers))
    gradients = [memory[: weight.numel()].view(weight.shape) for weight in layers]  # one memory, as in the step
    inputs = [torch.randn(batch, weight.shape[1]) for weight in layers]
    outputs = [torch.randn(batch, weight.shape[0]) for weight in layers]
    width = len(model.fam.second.weight)
    backward = [0, layers[1].shape[1], width if settings.mlp_input != "image" else 0]
    backward += [weight.shape[1] for weight in layers[3:]]
    to_inputs = [torch.empty(batch, n) for n in backward]

    def products():
        for weight, x, out in zip(layers, inputs, outputs, strict=True):
            torch.mm(x, weight.T, out=out)
        for weight, gradient, x, out, to in reversed(
            list(zip(layers, gradients, inputs, outputs, to_inputs, strict=True))
        ):
            torch.mm(out.T, x, out=gradient)
            if to.shape[1]:
                torch.mm(out, weight[:, : to.shape[1]], out=to)

    optimizer = make_optimizer(model, settings, 1)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return products, optimizer.step


def where_the_time_goes(function, steps):
    """{operation: milliseconds a step}, the largest twelve."""
    import torch

    from clients.method.lean.compiled import CompiledMask, CompiledMove

    with (
        named_in_profile(CompiledMove, "compiled: straight-through gradient, AdamW, sums of |w|"),
        named_in_profile(CompiledMask, "compiled: bias and mask"),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile,
    ):
        function()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    return {event.key: event.self_cpu_time_total / steps / 1000 for event in events[:12]}


@contextlib.contextmanager
def named_in_profile(kind, name):
    """The calls of a compiled loop, which torch's profiler does not see by itself."""
    import torch

    call = kind.__call__

    def named(self, *arguments):
        with torch.profiler.record_function(name):
            call(self, *arguments)

    kind.__call__ = named
    try:
        yield
    finally:
        kind.__call__ = call
