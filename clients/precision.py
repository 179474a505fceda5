"""Single precision means single precision on a GPU, too."""

import torch


def forbid_tf32() -> None:
    """Have GPUs multiply and convolve float32 as float32, for the rest of the process.

    With TF32 a GPU keeps 10 bits of each factor. Norms of gradients are then off by more than the margin of clipping
    (`clients.privacy.step`): one image could move a clipped sum by more than its clip norm. Torch has TF32 for
    convolutions unless it is told otherwise, and for products where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set, as in
    images of NVIDIA's. The fused step of training (`clients.method.lean.fused`) chooses its own precision.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
