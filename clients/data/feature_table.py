"""A file of precomputed features: the one format for export, for import and for data sets without images.

Names (`*` must be there; N images, C classes, D features):

    features*       float32[N, D]   one row an image, not zero
    classes*        C strings       sorted or not, all different
    text_features*  float32[C, D]   one row a class, not zero
    logit_scale*    float32[1]      above 0
    paths | digests                 N strings (at least one of them): paths, or SHA-256 (hex) of the image files
    labels          int64[N]        numbers of classes
    sites, splits   N strings       hospital; train, val or test (as in tables: any case, "" where not given)
    patients        N strings       "" where unknown
    prompts         C strings       each a JSON list of the prompts of a class
    encoder, encoder_digest         1 string        what computed the features; without the digest (`encode --json`
                                    prints it) no encoder is known to be the same, so runs cannot predict images

In an .npz every name is an array (strings as NumPy unicode arrays; pickled objects are refused). In a .safetensors
file the numbers are tensors, and every list of strings is a JSON list in the file's metadata.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from clients.data.arrays import read_npz
from clients.data.errors import SourceFormatError
from clients.data.rows import composed, is_utf8
from clients.data.splits import split_name

_ARRAYS = frozenset({"features", "text_features", "logit_scale", "labels"})
_STRINGS = frozenset(
    {"classes", "paths", "digests", "sites", "splits", "patients", "prompts", "encoder", "encoder_digest"}
)
_NEEDED = ("features", "classes", "text_features", "logit_scale")
_UNIT_TOLERANCE = 1e-5
"""Rows this close to norm 1 are taken as they are, so that export and import keep every bit."""

_BLOCK = 1024
"""Rows whose norm is taken at a time."""


@dataclass(frozen=True)
class FeatureTable:
    """Precomputed features and what is known about their images.

    Attributes:
        features: float32[N, D], rows of norm 1.
        classes: Names of the C classes.
        text_features: float32[C, D], rows of norm 1.
        logit_scale: Factor of the cosines in the encoder's softmax.
        paths: N paths, or () where the file has none; likewise `digests`, `sites`, `splits` and `patients`.
        digests: SHA-256 (hex) of the image files.
        labels: int64[N], None where the file has none.
        sites: Hospitals.
        splits: train, val or test, "" where not given.
        patients: "" where unknown.
        prompts: For every class its prompts, () where the file has none.
        encoder: What computed the features, in words.
        encoder_digest: SHA-256 (hex) that names it.
    """

    features: NDArray[np.float32]
    classes: tuple[str, ...]
    text_features: NDArray[np.float32]
    logit_scale: float
    paths: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    labels: NDArray[np.int64] | None = None
    sites: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    prompts: tuple[tuple[str, ...], ...] = ()
    encoder: str = "precomputed"
    encoder_digest: str = ""

    def __len__(self) -> int:
        return len(self.features)


def read_feature_table(path: Path) -> FeatureTable:
    """Read and check a file of features; the rows come back with norm 1.

    Raises:
        SourceFormatError: A name is missing or unknown, or a type, shape, length or value is wrong.
    """
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_npz(path)
    return _checked(path, content)


def write_feature_table(table: FeatureTable, path: Path) -> None:
    """Write a file of features, as .npz or .safetensors by its ending.

    Raises:
        SourceFormatError: The ending is another one.
        OSError: The file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {
        "features": table.features,
        "text_features": table.text_features,
        "logit_scale": np.array([table.logit_scale], dtype=np.float32),
    }
    if table.labels is not None:
        arrays["labels"] = table.labels
    strings: dict[str, list[str]] = {"classes": list(table.classes), "encoder": [table.encoder]}
    for name in ("paths", "digests", "sites", "splits", "patients"):
        if getattr(table, name):
            strings[name] = list(getattr(table, name))
    if table.prompts:
        strings["prompts"] = [json.dumps(list(prompts)) for prompts in table.prompts]
    if table.encoder_digest:
        strings["encoder_digest"] = [table.encoder_digest]
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        metadata = {name: json.dumps(values) for name, values in strings.items()}
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        path.write_bytes(safetensors.numpy.save(contiguous, metadata=metadata))
    elif suffix == ".npz":
        everything: dict[str, Any] = {**arrays, **{name: np.array(values) for name, values in strings.items()}}
        with path.open("wb") as file:
            np.savez(file, **everything)
    else:
        raise SourceFormatError(path, "features are written as .npz or .safetensors; name such a file")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            content: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, safetensors.SafetensorError, ValueError, TypeError) as error:
        raise SourceFormatError(path, f"is not a safetensors file ({' '.join(str(error).split())[:120]})") from error
    for name, text in metadata.items():
        if name == "format":
            continue
        try:
            values = json.loads(text)
        except ValueError as error:
            raise SourceFormatError(path, f"its metadata {name!r} is not JSON") from error
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise SourceFormatError(path, f"its metadata {name!r} must be a JSON list of strings")
        content[name] = values
    return content


def _read_npz(path: Path) -> dict[str, Any]:
    arrays = read_npz(path)
    return {name: array.reshape(-1).tolist() if array.dtype.kind == "U" else array for name, array in arrays.items()}


def _checked(path: Path, content: Mapping[str, Any]) -> FeatureTable:
    unknown = sorted(set(content) - _ARRAYS - _STRINGS)
    if unknown:
        raise SourceFormatError(path, f"has the unknown entry {unknown[0]!r} (docs/data.md lists the names)")
    for name in _NEEDED:
        if name not in content:
            raise SourceFormatError(path, f"lacks {name!r} (docs/data.md lists what a file of features needs)")
    for name, value in content.items():
        if (name in _STRINGS) != isinstance(value, list):
            raise SourceFormatError(path, f"{name!r} must be {'strings' if name in _STRINGS else 'numbers'}")
        if name in _STRINGS and not is_utf8("".join(value)):
            raise SourceFormatError(path, f"{name!r} has a text that is not Unicode; correct it")
    features = _unit_rows(path, "features", content["features"])
    text_features = _unit_rows(path, "text_features", content["text_features"])
    classes = tuple(map(composed, content["classes"]))
    count, num_classes = len(features), len(classes)
    if text_features.shape != (num_classes, features.shape[1]):
        raise SourceFormatError(
            path, f"text_features has shape {text_features.shape}, expected {(num_classes, features.shape[1])}"
        )
    if len(set(classes)) != num_classes or not all(classes):
        raise SourceFormatError(path, "classes must be different and not empty")
    scale = content["logit_scale"]
    is_number = scale.dtype.kind in "fiu" and scale.size == 1 and bool(np.isfinite(scale).all())
    if not is_number or float(scale.reshape(-1)[0]) <= 0:
        raise SourceFormatError(path, "logit_scale must be one number above 0")
    columns = {
        name: _column(path, content, name, count) for name in ("paths", "digests", "sites", "splits", "patients")
    }
    _check_columns(path, columns)
    columns["splits"] = tuple(split_name(split) or "" for split in columns["splits"])
    _check_copies(path, columns["digests"], features)
    encoder = "".join(content.get("encoder", ["precomputed"]))
    digest = "".join(content.get("encoder_digest", [])) or _digest(encoder, text_features, scale)
    return FeatureTable(
        features=features,
        classes=classes,
        text_features=text_features,
        logit_scale=float(scale.reshape(-1)[0]),
        labels=_labels(path, content, count, num_classes),
        prompts=_prompts(path, content, num_classes),
        encoder=encoder,
        encoder_digest=digest,
        **columns,
    )


def _unit_rows(path: Path, name: str, rows: NDArray[Any]) -> NDArray[np.float32]:
    if rows.dtype != np.float32 or rows.ndim != 2 or 0 in rows.shape:
        raise SourceFormatError(path, f"{name} is {rows.dtype}{list(rows.shape)}; float32 in rows is expected")
    blocks = np.split(rows, range(_BLOCK, len(rows), _BLOCK))
    norms = np.concatenate([np.linalg.norm(block.astype(np.float64), axis=1) for block in blocks])
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise SourceFormatError(path, f"{name} has a row that is zero or not finite")
    far = np.flatnonzero(np.abs(norms - 1.0) > _UNIT_TOLERANCE)
    if not len(far):
        return rows
    scaled = rows.copy()
    scaled[far] = rows[far] / norms[far, None]
    return scaled


def _column(path: Path, content: Mapping[str, Any], name: str, count: int) -> tuple[str, ...]:
    values = tuple(content.get(name, ()))
    if values and len(values) != count:
        raise SourceFormatError(path, f"{name} has {len(values)} entries for {count} features")
    return values


def _check_columns(path: Path, columns: Mapping[str, tuple[str, ...]]) -> None:
    if not columns["paths"] and not columns["digests"]:
        raise SourceFormatError(path, "has neither paths nor digests, so nobody knows which image a row belongs to")
    if len(set(columns["paths"])) != len(columns["paths"]):
        raise SourceFormatError(path, "has a path more than once")
    hexadecimal = frozenset("0123456789abcdef")
    if not all(len(digest) == 64 and hexadecimal.issuperset(digest) for digest in columns["digests"]):
        raise SourceFormatError(path, "digests must be SHA-256 in 64 lower-case hexadecimal digits")
    unknown = sorted(split for split in set(columns["splits"]) if split and split_name(split) is None)
    if unknown:
        raise SourceFormatError(path, f"has the split {unknown[0]!r}; use train, val or test")


def _check_copies(path: Path, digests: tuple[str, ...], features: NDArray[np.float32]) -> None:
    """Refuse one image with several features: nobody could say which of them are its own."""
    first: dict[str, int] = {}
    differing = [i for i, digest in enumerate(digests) if (features[i] != features[first.setdefault(digest, i)]).any()]
    if differing:
        raise SourceFormatError(
            path,
            f"has {len(differing)} rows with the digest of an earlier row and other features; give every row the "
            "digest of its own image, or leave digests out and name the images by paths",
        )


def _labels(path: Path, content: Mapping[str, Any], count: int, num_classes: int) -> NDArray[np.int64] | None:
    labels = content.get("labels")
    if labels is None:
        return None
    if labels.dtype != np.int64 or labels.shape != (count,):
        raise SourceFormatError(path, f"labels is {labels.dtype}{list(labels.shape)}; int64[{count}] is expected")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise SourceFormatError(path, f"labels must be numbers of classes, 0 to {num_classes - 1}")
    return np.asarray(labels, dtype=np.int64)


def _prompts(path: Path, content: Mapping[str, Any], num_classes: int) -> tuple[tuple[str, ...], ...]:
    texts = content.get("prompts", [])
    if texts and len(texts) != num_classes:
        raise SourceFormatError(path, f"prompts has {len(texts)} entries for {num_classes} classes")
    prompts = []
    for text in texts:
        try:
            values = json.loads(text)
        except ValueError as error:
            raise SourceFormatError(path, "each entry of prompts must be a JSON list of strings") from error
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            raise SourceFormatError(path, "each entry of prompts must be a JSON list of strings")
        prompts.append(tuple(values))
    return tuple(prompts)


def _digest(encoder: str, text_features: NDArray[np.float32], scale: NDArray[Any]) -> str:
    """Name an encoder that is known only by what it computed for the class names."""
    content = b"securefed/precomputed/v1" + encoder.encode() + text_features.astype("<f4").tobytes()
    return hashlib.sha256(content + scale.astype("<f4").tobytes()).hexdigest()
