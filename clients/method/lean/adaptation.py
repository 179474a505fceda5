"""The feature adaptation module without autograd."""

import torch
from torch import Tensor

from clients.method.lean.masked import LayerStep
from clients.method.lean.norms import Standardise

_softmax_backward = torch.ops.aten._softmax_backward_data.out  # noqa: SLF001 (an operator)
_clamp_backward = torch.ops.aten.hardtanh_backward.grad_input

_LEAST_NORM = 1e-12
"""As in torch.nn.functional.normalize."""


class AdaptationStep:
    """Forward and backward pass of clients.method.fam in one step.

    Args:
        first: Its first masked layer.
        second: The second.
        residual: Whether the form is `residual`.
        gain: Factor on what the first layer sees.
    """

    def __init__(self, first: LayerStep, second: LayerStep, residual: bool, gain: float) -> None:
        self._first, self._second, self._residual, self._gain = first, second, residual, gain
        self._norm = Standardise()
        self._hidden, self._to_hidden = torch.empty_like(first.output), torch.empty_like(first.output)
        like = second.output
        self._attention, self._work, self._scaled, self.adapted = (torch.empty_like(like) for _ in range(4))
        self._length, self._divisor = like.new_empty(2, *like.shape[:-1], 1).unbind()

    def forward(self, x: Tensor) -> Tensor:
        """Return I~ float[..., B, D] of features float[..., B, D]; it is overwritten by the next call."""
        self._x = x
        self._seen = x if self._gain == 1.0 else torch.mul(x, self._gain, out=self._scaled)
        self._normed = self._norm.forward(self._first.forward(self._seen))
        torch.clamp(self._normed, 0.0, 6.0, out=self._hidden)
        torch.softmax(self._second.forward(self._hidden), -1, out=self._attention)
        if self._residual:
            torch.addcmul(x, self._attention, x, value=x.shape[-1], out=self._work)
        else:
            torch.mul(self._attention, x, out=self._work)
        torch.linalg.vector_norm(self._work, dim=-1, keepdim=True, out=self._length)
        torch.div(self._length.clamp_(min=_LEAST_NORM), x.shape[-1] if self._residual else 1, out=self._divisor)
        return torch.div(self._work, self._length, out=self.adapted)

    def backward(self, gradient: Tensor) -> None:
        """Write the gradients of the parameters, given that of I~ (which is overwritten)."""
        along = torch.mul(gradient, self.adapted, out=self._work).sum(-1, keepdim=True)
        to_attention = gradient.addcmul_(self.adapted, along, value=-1).div_(self._divisor).mul_(self._x)
        _softmax_backward(to_attention, self._attention, -1, to_attention.dtype, grad_input=self._work)
        self._second.backward(self._work, self._hidden, self._to_hidden)
        _clamp_backward(self._to_hidden, self._normed, 0.0, 6.0, grad_input=self._to_hidden)
        self._first.backward(self._norm.backward(self._to_hidden), self._seen)
        del self._x, self._seen, self._normed  # not kept beside those of another step
