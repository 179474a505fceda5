"""The private MLP without autograd."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from clients.method.lean.masked import LayerStep
from clients.method.lean.norms import NormStep, Rows

_aten = torch.ops.aten


class Draw(Protocol):
    """Fills float[..., B, n] with ones at a probability and zeros, from the generators of the hospitals."""

    def __call__(self, target: Tensor, probability: float) -> Tensor:
        """Return the target."""
        ...


class MlpStep:
    """Forward and backward pass of clients.method.mlp in one step.

    Args:
        hidden: Masked layers and norms of the hidden layers.
        head: Masked layer to the logits.
        seen: `adapted`, `image` or `both`.
        gain: Factor on the input.
        dropout: Share dropped behind each hidden layer.
        to_fam: Whether the gradient goes on to I~.
        like: float[..., B, D]; gives the shape and type of the input.
    """

    def __init__(
        self,
        hidden: Sequence[tuple[LayerStep, NormStep]],
        head: LayerStep,
        *,
        seen: str,
        gain: float,
        dropout: float,
        to_fam: bool,
        like: Tensor,
    ) -> None:
        self._hidden, self._head, self._seen, self._gain = tuple(hidden), head, seen, gain
        self._keep = 1.0 - dropout
        self._to_fam = to_fam and seen != "image"
        *shape, width = like.shape
        self._input = like.new_empty(*shape, 2 * width if seen == "both" else width)
        self._drops = [torch.empty_like(layer.output) for layer, _ in hidden] if dropout else []
        self._inner = [torch.empty_like(layer.output) for layer, _ in hidden]
        self._to_adapted = torch.empty_like(like)

    def forward(self, adapted: Tensor, image: Tensor, rows: Rows, draw: Draw) -> Tensor:
        """Return the logits float[..., B, C]; they are overwritten by the next call."""
        width = adapted.shape[-1]
        if self._seen != "image":
            torch.mul(adapted, self._gain, out=self._input[..., :width])
        if self._seen != "adapted":
            torch.mul(image, self._gain, out=self._input[..., -width:])
        x = self._input
        self._inputs, self._positive = [], []
        for number, (layer, norm) in enumerate(self._hidden):
            self._inputs.append(x)
            positive = norm.forward(layer.forward(x), rows).relu_()
            self._positive.append(positive)
            x = positive
            if self._drops:
                keep = draw(self._drops[number], self._keep).div_(self._keep)
                x = positive * keep
        self._inputs.append(x)
        return self._head.forward(x)

    def backward(self, gradient: Tensor, rows: Rows) -> Tensor | None:
        """Write the gradients of the parameters, given that of the logits; return that of I~ or None."""
        layers = [self._head, *(layer for layer, _ in reversed(self._hidden))]
        for number, layer in zip(range(len(self._hidden), -1, -1), layers, strict=True):
            first = self._to_adapted if self._to_fam else None
            to_input = self._inner[number - 1] if number else first
            layer.backward(gradient, self._inputs[number], to_input)
            if number:
                gradient = self._inner[number - 1]
                if self._drops:
                    gradient.mul_(self._drops[number - 1])
                positive = self._positive[number - 1]
                gradient = _aten.threshold_backward.grad_input(gradient, positive, 0.0, grad_input=gradient)
                gradient = self._hidden[number - 1][1].backward(gradient, rows)
        self._inputs, self._positive = [], []  # not kept beside those of another step
        return self._to_adapted.mul_(self._gain) if self._to_fam else None
