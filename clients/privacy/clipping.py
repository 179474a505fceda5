"""The clipped sum of a step: what one unit of privacy adds to it has a norm of at most the clip norm, always."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """Parameters that are clipped together.

    Attributes:
        parameters: The parameters.
        clip_norm: L2 norm of what one unit may contribute to them.
    """

    parameters: tuple[nn.Parameter, ...]
    clip_norm: float


@dataclass(frozen=True)
class ClippedSum:
    """Sum over the units of a step of their clipped gradients.

    Privacy: its sensitivity to adding or removing one unit is `clip_norm` in each group, and the root of the sum of
    their squares over all. The counts are diagnostics about private data: they stay in the process.

    Attributes:
        gradients: For each group a tensor for each parameter.
        units: Units in the sum.
        zeroed: Units whose gradient was not finite and counted as zero.
    """

    gradients: tuple[tuple[Tensor, ...], ...]
    units: int
    zeroed: int
