"""Images and class names outside of any data set, for prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data import BrokenImageError
from clients.data.files import FileImages, read_image
from clients.data.fingerprint import content_digest
from clients.encoders.encoding import encode_batches
from clients.encoders.errors import InvalidEncoderError
from clients.encoders.options import EncodeOptions
from clients.encoders.prompts import class_prompts
from clients.encoders.session import EncoderSession
from clients.encoders.spec import parse_encoder


@dataclass(frozen=True)
class EncodedImages:
    """Features of loose image files.

    Attributes:
        features: float32[N, D], rows of norm 1, in the order of the files.
        paths: The N files.
        broken: Files that were left out, and why.
        encoder_digest: SHA-256 (hex) of the encoder.
    """

    features: NDArray[np.float32]
    paths: tuple[Path, ...]
    broken: tuple[tuple[Path, str], ...]
    encoder_digest: str


@dataclass(frozen=True)
class EncodedClasses:
    """Class names through the text tower.

    Attributes:
        prompts: For every class the prompts whose features were averaged.
        text_features: float32[C, D], rows of norm 1.
        logit_scale: Factor of the cosines in the encoder's softmax.
        encoder_digest: SHA-256 (hex) of the encoder.
    """

    prompts: tuple[tuple[str, ...], ...]
    text_features: NDArray[np.float32]
    logit_scale: float
    encoder_digest: str


def encode_images(
    paths: Sequence[Path],
    encoder: str,
    options: EncodeOptions | None = None,
    *,
    skip_broken: bool = False,
) -> EncodedImages:
    """Encode image files; features that are cached are taken from there, new ones are not added to it.

    A feature that is computed here comes from a batch only as large as needed, so it may differ in the last bits from
    that which prepare_features computes.

    Args:
        paths: The files.
        encoder: As for prepare_features; `features:PATH` cannot encode.
        options: Batches, device and cache; None for the defaults.
        skip_broken: Leave files out that cannot be decoded, instead of refusing.

    Raises:
        EncoderError: The encoder cannot be used.
        BrokenImageError: A file cannot be decoded, unless `skip_broken`.
    """
    session = _session(encoder, options or EncodeOptions())
    digests: dict[int, str] = {}
    broken: dict[int, str] = {}
    for position, path in enumerate(paths):
        try:
            digests[position] = content_digest(read_image(Path(), str(path)))
        except BrokenImageError as error:
            broken[position] = error.reason
    cached = session.image_cache.read(digests.values()).rows
    rows = {position: cached[digest] for position, digest in digests.items() if digest in cached}
    missing = [position for position in digests if position not in rows]
    if missing:
        files = [str(paths[position]) for position in missing]
        size = session.options.batch_size
        workers = session.options.workers
        for batch in encode_batches(session.encoder, FileImages(Path()), files, size, workers, fill_up=False):
            rows.update((missing[i], feature) for i, feature in zip(batch.positions, batch.features, strict=True))
            broken.update((missing[i], reason) for i, reason in batch.broken)
    if broken and not skip_broken:
        first = min(broken)
        raise BrokenImageError(paths[first], broken[first])
    kept = sorted(rows)
    return EncodedImages(
        np.stack([rows[i] for i in kept]) if kept else np.empty((0, session.card.embed_dim), np.float32),
        tuple(paths[i] for i in kept),
        tuple((paths[i], broken[i]) for i in sorted(broken)),
        session.card.digest,
    )


def encode_classes(classes: Sequence[str], encoder: str, options: EncodeOptions | None = None) -> EncodedClasses:
    """Encode the prompts of class names, as prepare_features does for a data set.

    Raises:
        EncoderError: The encoder cannot be used.
    """
    chosen = options or EncodeOptions()
    session = _session(encoder, chosen)
    prompts = class_prompts(classes, chosen)
    return EncodedClasses(prompts, session.text_features(prompts), session.card.logit_scale, session.card.digest)


def _session(encoder: str, options: EncodeOptions) -> EncoderSession:
    spec = parse_encoder(encoder)
    if spec.kind == "features":
        raise InvalidEncoderError(
            encoder, "a file of features cannot encode anything new; name the encoder that computed it"
        )
    return EncoderSession(spec, options)
