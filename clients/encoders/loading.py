"""Loading an encoder with open_clip, and naming it by its content."""

import hashlib
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from clients.encoders.card import EncoderCard
from clients.encoders.errors import InvalidEncoderError
from clients.encoders.frozen import FrozenEncoder
from clients.encoders.spec import EncoderSpec
from clients.encoders.weights import fetch_files, local_files, tag_configuration
from clients.precision import forbid_tf32

_LABEL = b"securefed/encoder/v1"


@dataclass(frozen=True)
class Compute:
    """Where and how precisely to compute: a torch device and `fp32`, `bf16` or `fp16`."""

    device: torch.device
    precision: str


def choose_compute(device: str, precision: str) -> Compute:
    """Resolve `auto`: a CUDA device where there is one; fp32 on a CPU, bf16 on CUDA (fp16 where that is emulated).

    On CUDA, fp32 is that and no TF32 from then on.

    Raises:
        InvalidEncoderError: CUDA is asked for and not there, or half precision is asked for on a CPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidEncoderError("cuda", "this machine has no CUDA device that torch can use; use --device cpu")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cpu":
        if precision not in ("auto", "fp32"):
            raise InvalidEncoderError(precision, "half precision needs a CUDA device; use fp32")
        return Compute(torch.device("cpu"), "fp32")
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    forbid_tf32()
    return Compute(torch.device("cuda"), precision)


def load_encoder(spec: EncoderSpec, compute: Compute) -> FrozenEncoder:
    """Load an encoder with its own preprocessing and tokenizer, frozen.

    Raises:
        WeightsMissingError: Its files are not here and cannot be downloaded.
        InvalidEncoderError: Its files do not make a model.
    """
    import open_clip

    fetch_files(spec)
    tag: dict[str, Any] = {}
    weights: str | None = None
    if spec.kind == "pretrained":  # by its file, so that the hub is not asked again for what is here
        tag = tag_configuration(spec)
        files = local_files(spec)
        weights = spec.pretrained if files is None else str(files[0])
    quick_gelu = bool(tag.get("quick_gelu", False))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, _, preprocess = open_clip.create_model_and_transforms(
                spec.model,
                pretrained=weights,
                precision="fp32",
                device="cpu",
                force_quick_gelu=quick_gelu,
                image_mean=tag.get("mean"),
                image_std=tag.get("std"),
                image_interpolation=tag.get("interpolation"),
                image_resize_mode=tag.get("resize_mode"),
                require_pretrained=True,
            )
            tokenize = open_clip.get_tokenizer(spec.model)
            model.eval()
            configuration = {**open_clip.get_model_config(spec.model), "force_quick_gelu": quick_gelu}
            card = describe(model, tokenize, configuration)
        return FrozenEncoder(model, tokenize, preprocess, card, compute.device, compute.precision)
    except torch.OutOfMemoryError:  # of the device, not of the encoder
        raise
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        AssertionError,
        ImportError,
        OSError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        raise InvalidEncoderError(spec.text, f"cannot be loaded ({' '.join(str(error).split())[:240]})") from error


def describe(model: Any, tokenize: Callable[[list[str]], Tensor], configuration: Mapping[str, object]) -> EncoderCard:
    """Make the card of a loaded model, before it is moved or cast.

    Its digest is SHA-256 over the label `securefed/encoder/v1`, the digest of the weights, and the canonical JSON of
    configuration and preprocessing.
    """
    preprocessing = dict(model.visual.preprocess_cfg)
    content = json.dumps([dict(configuration), preprocessing], sort_keys=True, default=str)
    digest = hashlib.sha256(_LABEL + bytes.fromhex(weights_digest(model)) + content.encode()).hexdigest()
    with torch.inference_mode():
        embed_dim = int(model.encode_text(tokenize(["a picture"])).shape[-1])
    return EncoderCard(digest, embed_dim, float(model.logit_scale.detach().exp()))


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 (hex) of all tensors of a model's state.

    Format: in sorted order of the names, for every tensor its name, type, shape and elements (C order, little
    endian), each as its length in bytes (8 bytes, big endian) and its bytes.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        for part in (name.encode(), str(tensor.dtype).encode(), str(tuple(tensor.shape)).encode(), _bytes(tensor)):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
