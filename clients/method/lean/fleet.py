"""Local training of many hospitals at once: their models stacked, every product one batched product.

For a GPU, where one hospital's products leave most of it idle. Each hospital has its own data, order, dropout and
number of steps; a hospital whose last batch is smaller fills it with rows that weigh nothing, one that has finished is
left out of the stack. The result is that of `LeanTrainer` for each, up to rounding, whoever else is in the fleet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch

from clients.method.layout import Vector
from clients.method.lean.stack import Stack, Trained, Trainee
from clients.method.lean.validation import Said
from clients.method.model import HospitalModel
from clients.method.parts import private_part, shared_part

_COPIES = 5
"""Parameter, gradient, two moments, and what a hospital gets when the round is over."""

_ACTIVATIONS = 40
"""Upper bound on the matrices float[B, 2 D] that a step holds."""

_MEMORY_SHARE = 0.5
"""Of the memory that is free on a GPU."""


@dataclass(frozen=True)
class Begun:
    """A round that has begun.

    Attributes:
        finish: Waits for it and returns what each hospital has then.
        said: Returns what the models that it began with say of validation images; None where they were not asked, or
            memory ran out since.
    """

    finish: Callable[[], list[Trained]]
    said: Callable[[], list[Said] | None] = lambda: None


class Fleet:
    """Trains hospitals of one method side by side; one round at a time.

    Args:
        model: A model of the method: names and shapes of the tensors, text features.
        method: One of `METHODS`.
        memory: Bytes that a fleet may use; None for half of what is free on a GPU, no limit on a CPU.
    """

    def __init__(self, model: HospitalModel, method: str, memory: int | None = None) -> None:
        self._model, self._memory = model, memory
        self._shared = [name for name, _ in shared_part(model, method)]
        self._private = list(private_part(model, method))
        self._kept: Stack | None = None

    def train(self, vector: Vector, trainees: Sequence[Trainee], round_number: int) -> list[Trained]:
        """Train one round from the shared vector float32[d] at every hospital.

        As many at a time as memory allows; where a GPU runs out of it all the same, half as many.

        Raises:
            ValueError: The vector's length does not fit.
        """
        return self.begin(vector, trainees, round_number).finish()

    def begin(self, vector: Vector, trainees: Sequence[Trainee], round_number: int) -> Begun:
        """Begin a round as `train` would; a GPU works on it until it is asked for.

        The memory of hospitals that all fit is kept for their next round.

        Raises:
            ValueError: The vector's length does not fit.
        """
        if not trainees:
            return Begun(list)
        size = len(trainees)
        if self._kept is None or not self._kept.is_of(trainees):
            self._kept = None
            size = min(size, self._largest(trainees))
        if size == len(trainees):
            if self._begin_together(vector, trainees, round_number):
                return Begun(partial(self._finish, vector, trainees, round_number), self._said)
            size //= 2
        trained = self._group_by_group(vector, trainees, round_number, size)
        return Begun(lambda: trained)

    def _begin_together(self, vector: Vector, trainees: Sequence[Trainee], round_number: int) -> bool:
        """Begin a round of all hospitals in the stack that is kept; return whether memory bears it, else none is kept.

        Nothing but `_kept` holds the stack: what a frame or a traceback holds as well would stay taken.
        """
        try:
            if self._kept is None:
                self._kept = self._stack(trainees)
            self._kept.begin(vector, trainees, round_number)
        except torch.OutOfMemoryError:
            self._kept = None
            if len(trainees) == 1:
                raise
        if self._kept is None:
            torch.cuda.empty_cache()
        return self._kept is not None

    def _finish(self, vector: Vector, trainees: Sequence[Trainee], round_number: int) -> list[Trained]:
        if self._kept is not None:
            try:
                return self._kept.finish()
            except torch.OutOfMemoryError:
                self._kept = None
                if len(trainees) == 1:
                    raise
            torch.cuda.empty_cache()
        return self._group_by_group(vector, trainees, round_number, max(1, len(trainees) // 2))

    def _said(self) -> list[Said] | None:
        validation = self._kept.validation if self._kept is not None else None
        return None if validation is None else validation.finish()

    def _group_by_group(
        self, vector: Vector, trainees: Sequence[Trainee], round_number: int, size: int
    ) -> list[Trained]:
        results: list[Trained] = []
        while len(results) < len(trainees):
            group = trainees[len(results) : len(results) + size]
            try:
                results += self._train_group(vector, group, round_number)
                continue
            except torch.OutOfMemoryError:
                if len(group) == 1:
                    raise
            torch.cuda.empty_cache()  # here, where no traceback holds the group's stack any more
            size = len(group) // 2
        return results

    def _train_group(self, vector: Vector, group: Sequence[Trainee], round_number: int) -> list[Trained]:
        stack = self._stack(group)
        stack.begin(vector, group, round_number)
        return stack.finish()

    def _stack(self, trainees: Sequence[Trainee]) -> Stack:
        return Stack(self._model, self._shared, self._private, trainees)

    def _largest(self, trainees: Sequence[Trainee]) -> int:
        """How many hospitals fit, whichever they are: those with the most images among them."""
        device = self._model.text_features.device
        memory = self._memory
        if memory is None:
            if device.type != "cuda":
                return 1 << 30
            memory = int(_MEMORY_SHARE * free_memory(device))
        settings, width = self._model.settings, self._model.text_features.shape[-1]
        parameters = sum(p.numel() for p in self._model.parameters())
        largest = max(p.numel() for p in self._model.parameters())
        widest = 2 * max(width, settings.mlp_width)
        step = _COPIES * parameters + largest + _ACTIVATIONS * settings.batch_size * widest
        images = (t.features.numel() + (0 if t.validation is None else t.validation.numel()) for t in trainees)
        totals = accumulate(step + features for features in sorted(images, reverse=True))
        values = memory // self._model.text_features.element_size()
        return max(1, sum(total <= values for total in totals))


def free_memory(device: torch.device) -> int:
    """Return the bytes of a GPU that new tensors can have: what nobody has, and what torch keeps of freed ones."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept
