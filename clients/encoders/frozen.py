"""A CLIP that cannot be trained."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize, ToTensor

from clients.encoders.card import EncoderCard

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _stay_in_eval(self: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001 (as nn.Module.train)
    """Stand in for nn.Module.train: whatever `mode` says, the module is left in eval mode."""
    self.training = False
    return self


class FrozenEncoder:
    """A CLIP whose towers are in eval mode and without gradients, for good.

    One forward pass in train mode would overwrite the statistics of batch-norm layers and spoil every later feature,
    even without gradients. So `train` of every module inside is replaced by one that stays in eval mode, and each call
    sets the flag once more before it computes.

    Images are resized one by one, in threads or processes, to uint8; a quarter of the bytes of float32 passes between
    them. What is left of the preprocessing, scale, mean and deviation of the channels, is done by batch where the model
    computes.

    Args:
        model: A model with `encode_image` and `encode_text`; it is changed in place.
        tokenize: Texts to token numbers int64[N, L].
        preprocess: The encoder's own: steps from an RGB image to one of its size, then ToTensor and Normalize.
        card: Digest, width and logit scale.
        device: Where it computes.
        precision: `fp32`, or `bf16` or `fp16` for autocast of the image tower; texts are always encoded in fp32.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenize: Callable[[list[str]], Tensor],
        preprocess: Compose,
        card: EncoderCard,
        device: torch.device,
        precision: str,
    ) -> None:
        self.card = card
        self.device = device
        *steps, to_tensor, scaling = preprocess.transforms
        if not (isinstance(to_tensor, ToTensor) and isinstance(scaling, Normalize)):
            raise TypeError("this version of open_clip does not end its preprocessing with ToTensor and Normalize")
        self.resize = Resize(Compose(steps))
        self._scaling = [torch.tensor(values, device=device) for values in (255.0, scaling.mean, scaling.std)]
        self._tokenize = tokenize
        self._autocast = _AUTOCAST.get(precision)
        self._model: Any = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model.requires_grad_(requires_grad=False)
        for module in self._model.modules():
            module.train = _stay_in_eval.__get__(module)
        self._freeze()

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the features of images of the encoder's size, rows of norm 1, on the CPU.

        Shapes: uint8[B, H, W, 3] -> float32[B, D].
        """
        return self.begin_images(images)()

    def begin_images(self, images: Tensor) -> Callable[[], Tensor]:
        """Have images encoded; what is returned waits for the features of `encode_images`.

        A GPU takes them from memory that the system keeps in place, and computes while the caller does something else.
        """
        features = self.features(self.scaled(images.pin_memory() if self.device.type == "cuda" else images))
        if self.device.type != "cuda":
            return lambda: features
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        host.copy_(features, non_blocking=True)
        done = torch.cuda.current_stream(self.device).record_event()

        def wait() -> Tensor:
            done.synchronize()
            return host

        return wait

    def scaled(self, images: Tensor) -> Tensor:
        """Return images as the model takes them, where it computes, bit by bit as ToTensor and Normalize on a CPU.

        Shapes: uint8[B, H, W, 3] -> float32[B, 3, H, W], channels last in memory.
        """
        whole, mean, deviation = self._scaling
        row = images.shape[2:]  # as wide as a row: with three values at a time a CPU takes three times as long
        batch = images.to(self.device, non_blocking=True).float().div_(whole)
        batch = batch.sub_(mean.expand(row).contiguous()).div_(deviation.expand(row).contiguous())
        return batch.permute(0, 3, 1, 2)

    def features(self, batch: Tensor) -> Tensor:
        """Return the features of scaled images, rows of norm 1, where the model computes.

        Shapes: float32[B, 3, H, W] -> float32[B, D].
        """
        self._freeze()
        autocast = (
            contextlib.nullcontext()
            if self._autocast is None
            else torch.autocast(self.device.type, dtype=self._autocast)
        )
        with torch.inference_mode(), autocast:
            features = self._model.encode_image(batch)
        return _normalised(features)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the features of texts, rows of norm 1, on the CPU: float32[N, D]."""
        self._freeze()
        with torch.inference_mode():
            features = self._model.encode_text(self._tokenize(list(texts)).to(self.device))
        return _normalised(features).cpu()

    def _freeze(self) -> None:
        for module in self._model.modules():
            module.training = False


class Resize:
    """An RGB image to uint8[H, W, 3] of the encoder's size; picklable, for worker processes."""

    def __init__(self, steps: Callable[[Image.Image], Image.Image]) -> None:
        self._steps = steps

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels."""
        return np.asarray(self._steps(image), dtype=np.uint8)


def _normalised(features: Tensor) -> Tensor:
    with torch.no_grad():  # and not in inference mode, whose tensors could not be used in training
        return nn.functional.normalize(features.clone().float(), dim=-1)
