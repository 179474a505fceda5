"""For which models there is a fused step."""

from importlib.util import find_spec

import torch

from clients.method.model import HospitalModel

_OLDEST = (3, 6)
"""Of Triton, that the kernels were tried with."""

_CAPABILITY = (8, 0)
"""The first whose tensor cores take single precision in parts."""

DEVICES = ("cuda",)
"""Where there is a fused step; the tests add the processor, on which Triton interprets the kernels."""

_ROWS = 64
"""Images of a step, at most: a program has those of one hospital in registers."""

_WIDTH = 4096
"""Of a layer, at most: a program has a row of it in registers."""

_ENTRIES = 32768
"""Of class prompts or head, padded to powers of two, at most: a program has them in registers."""

_SETTINGS = {
    "fam_form": ("residual",),
    "fam_loss": ("class-prompt",),
    "distillation": ("off", "per-example"),
    "mlp_layers": (1,),
    "mlp_norm": ("layer",),
    "mlp_input": ("both",),
    "learn_thresholds": (True,),
    "mask_bias": (True,),
}


def power_of_two(least: int) -> int:
    """Return the smallest power of two that is at least as large."""
    return 1 << (least - 1).bit_length()


def reason_for_general_step(model: HospitalModel) -> str | None:
    """Return why a model is trained by the general step; None where there is a fused one for it."""
    settings, text = model.settings, model.text_features
    classes, width = text.shape
    if model.mlp is None:
        return "there is no MLP"
    for name, values in _SETTINGS.items():
        if getattr(settings, name) not in values:
            return f"{name} is {getattr(settings, name)}"
    widths = (width, settings.fam_width or width, settings.mlp_width or width)
    if any(w % 16 or w > _WIDTH for w in widths):
        return f"one of the widths {widths} is no multiple of 16 up to {_WIDTH}"
    if settings.batch_size > _ROWS:
        return f"batch_size is above {_ROWS}"
    if power_of_two(classes) * power_of_two(max(widths)) > _ENTRIES:
        return f"{classes} classes are too many"
    if text.dtype != torch.float32:
        return f"parameters are {text.dtype}"
    if text.device.type not in DEVICES:
        return f"parameters are on the device {text.device.type}"
    if text.is_cuda and (torch.version.hip or torch.cuda.get_device_capability(text.device) < _CAPABILITY):
        return f"{torch.cuda.get_device_name(text.device)} is not one of NVIDIA's since Ampere"
    if find_spec("triton") is None:
        return "Triton is not installed"
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < _OLDEST:
        return f"Triton is {triton.__version__}"
    return None
