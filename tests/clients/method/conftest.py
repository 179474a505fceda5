"""Without a GPU Triton's kernels are interpreted; Triton looks as it is imported, by whichever test comes first."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
