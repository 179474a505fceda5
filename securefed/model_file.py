"""fam.safetensors: the shared model of a run and all that is needed to predict with it."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from clients.method.layout import vector_layout
from clients.method.settings import TrainingSettings
from securefed.config import RunConfig, config_from_mapping
from securefed.errors import ConfigError, RunFolderError
from securefed.run_folder import RunFolder

FORMAT = "securefed-fam-1"
VECTOR_FORMAT = "securefed-fam-vector-1"
"""Format of a server's file in a deployment, which has no encoder and so no text features."""


@dataclass(frozen=True)
class SavedModel:
    """The shared model of a run.

    Attributes:
        vector: float32[d], the parameters in the order of `vector_layout`.
        text_features: float32[C, D], L2-normalised rows.
        classes: Class names in the order of the outputs.
        prompts: Prompts of each class.
        logit_scale: Scale of the similarities.
        method: Name of the method.
        settings: Training settings.
        encoder: Specification of the encoder.
        encoder_digest: SHA-256 of its weights.
        sites: Sites that trained; each has its own MLP beside the run.
    """

    vector: NDArray[np.float32]
    text_features: NDArray[np.float32]
    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    logit_scale: float
    method: str
    settings: TrainingSettings
    encoder: str
    encoder_digest: str
    sites: tuple[str, ...]


def vector_digest(vector: NDArray[np.float32]) -> str:
    """Return the SHA-256 (hex) of a vector's little-endian float32 bytes: `fam_sha256`."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").data).hexdigest()


def save_model(folder: RunFolder, model: SavedModel) -> None:
    """Write fam.safetensors: one tensor a parameter, `text_features`, and the rest as metadata."""
    arrays: dict[str, NDArray[Any]] = {"text_features": model.text_features}
    offset, names = 0, []
    for name, shape in vector_layout(model.text_features.shape[1], model.settings, model.method, len(model.classes)):
        size = int(np.prod(shape))
        arrays[name] = model.vector[offset : offset + size].reshape(shape)
        offset += size
        names.append(name)
    if offset != model.vector.size:
        raise RunFolderError(folder.model, f"{model.vector.size} parameters do not fit the layout of {offset}")
    metadata = {
        "format": FORMAT,
        "classes": json.dumps(model.classes),
        "prompts": json.dumps(model.prompts),
        "logit_scale": repr(model.logit_scale),
        "method": model.method,
        "settings": json.dumps(dataclasses.asdict(model.settings)),
        "encoder": model.encoder,
        "encoder_digest": model.encoder_digest,
        "sites": json.dumps(model.sites),
        "layout": json.dumps(names),
        "fam_sha256": vector_digest(model.vector),
    }
    folder.write_arrays(folder.model, arrays, metadata)


def save_vector(
    folder: RunFolder, vector: NDArray[np.float32], embed_dim: int, config: RunConfig, classes: int
) -> None:
    """Write a server's fam.safetensors: the parameters alone; hospitals add what predicting needs."""
    method = config.federation.method
    layout = vector_layout(embed_dim, config.training, method, classes)
    ends = np.cumsum([int(np.prod(shape)) for _, shape in layout])
    parts = np.split(vector, ends[:-1])
    arrays: dict[str, NDArray[Any]] = {
        name: part.reshape(shape) for (name, shape), part in zip(layout, parts, strict=True)
    }
    names = json.dumps([name for name, _ in layout])
    metadata = {"format": VECTOR_FORMAT, "method": method, "layout": names, "fam_sha256": vector_digest(vector)}
    folder.write_arrays(folder.model, arrays, metadata)


def load_vector(folder: RunFolder) -> NDArray[np.float32]:
    """Return the parameters float32[d] of a server's fam.safetensors.

    Raises:
        RunFolderError: It is missing, damaged or no such file.
    """
    arrays, metadata = folder.read_arrays(folder.model), folder.read_metadata(folder.model)
    try:
        flat = [arrays[name].ravel() for name in json.loads(metadata["layout"])]
    except (KeyError, ValueError) as error:
        raise RunFolderError(folder.model, f"is damaged ({error}); put a copy of it back") from error
    vector = np.concatenate(flat).astype(np.float32) if flat else np.zeros(0, np.float32)
    if vector_digest(vector) != metadata.get("fam_sha256"):
        raise RunFolderError(folder.model, "was changed: its parameters do not match the digest in it")
    return vector


def load_model(folder: RunFolder) -> SavedModel:
    """Read fam.safetensors; raises RunFolderError where it is missing, damaged or of another format."""
    path = folder.model
    arrays = folder.read_arrays(path)
    with safe_open(path, framework="numpy") as stream:
        metadata = stream.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise RunFolderError(path, f"has format {metadata.get('format')!r}; this version reads {FORMAT}")
    try:
        settings = config_from_mapping({"training": json.loads(metadata["settings"])}).training
        text = arrays["text_features"].astype(np.float32)
        layout = vector_layout(text.shape[1], settings, metadata["method"], len(text))
        flat = [arrays[name].ravel() for name, _ in layout]
        vector = np.concatenate(flat).astype(np.float32) if flat else np.zeros(0, np.float32)
        model = SavedModel(
            vector=vector,
            text_features=text,
            classes=tuple(json.loads(metadata["classes"])),
            prompts=tuple(tuple(texts) for texts in json.loads(metadata["prompts"])),
            logit_scale=float(metadata["logit_scale"]),
            method=metadata["method"],
            settings=settings,
            encoder=metadata["encoder"],
            encoder_digest=metadata["encoder_digest"],
            sites=tuple(json.loads(metadata["sites"])),
        )
    except ConfigError as error:
        raise RunFolderError(path, f"has settings that this version does not take: {error}") from error
    except (KeyError, ValueError) as error:
        raise RunFolderError(path, f"is damaged ({error}); use the file that simulate wrote") from error
    if vector_digest(vector) != metadata.get("fam_sha256"):
        raise RunFolderError(path, "was changed: its parameters do not match the digest in it")
    return model
