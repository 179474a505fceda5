"""Memory of steps of fewer and fewer hospitals, of which no two are taken at once: they have it in the same place."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class SamePlaces(TorchFunctionMode):
    """While a step is made within `again()`: its n-th empty tensor lies where the n-th of the first step made so does.

    The step of most hospitals is made first, and its memory is all that is taken. Tensors that are made with contents
    (`new_full`, `eye`) are not touched: a step may rely on those from one call to the next, not on empty ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first: list[Tensor] = []
        self._number = 0

    def again(self) -> "SamePlaces":
        """Return what to make the next step within."""
        self._number = 0
        return self

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Make what is asked for; an empty tensor in the place of the one before."""
        del types
        if func is torch.empty_like and not kwargs:
            return self._empty(args[0], args[0].shape)
        if func is Tensor.new_empty and not kwargs:
            return self._empty(args[0], torch.Size(args[1:] if isinstance(args[1], int) else args[1]))
        return func(*args, **(kwargs or {}))

    def _empty(self, like: Tensor, shape: torch.Size) -> Tensor:
        if self._number == len(self._first):
            self._first.append(like.new_empty(shape))
        self._number += 1
        return self._first[self._number - 1].view(-1)[: shape.numel()].view(shape)
