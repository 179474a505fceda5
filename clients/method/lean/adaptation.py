"""The feature adaptation module without autograd."""

import torch
from torch import Tensor

from clients.method.lean.masked import LayerStep
from clients.method.lean.norms import Standardise

_aten = torch.ops.aten

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
        self._length = like.new_empty(*like.shape[:-1], 1)

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
        return torch.div(self._work, self._length.clamp_(min=_LEAST_NORM), out=self.adapted)

    def backward(self, gradient: Tensor) -> None:
        """Write the gradients of the parameters, given that of I~ (which is overwritten)."""
        along = torch.mul(gradient, self.adapted, out=self._work).sum(-1, keepdim=True)
        to_attention = gradient.addcmul_(self.adapted, along, value=-1).div_(self._length).mul_(self._x)
        if self._residual:
            to_attention.mul_(gradient.shape[-1])
        mean = torch.mul(to_attention, self._attention, out=self._work).sum(-1, keepdim=True)
        to_logits = to_attention.sub_(mean).mul_(self._attention)
        self._second.backward(to_logits, self._hidden, self._to_hidden)
        to_normed = _aten.hardtanh_backward(self._to_hidden, self._normed, 0.0, 6.0)
        self._first.backward(self._norm.backward(to_normed), self._seen)
