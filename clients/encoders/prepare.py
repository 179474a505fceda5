"""From a data set and the name of an encoder to what training sees."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clients.data import BrokenImageError, DataWarning, EmptyDataError, ImageDataset, Record, fingerprint
from clients.data.files import REPLACED
from clients.data.findings import commonest, finding
from clients.data.precomputed import NoImages
from clients.encoders.bundle import FeatureBundle, LabelledFeatures, site_features
from clients.encoders.encoding import encode_batches
from clients.encoders.errors import InvalidEncoderError
from clients.encoders.options import EncodeOptions
from clients.encoders.precomputed import bundle_from_file
from clients.encoders.prompts import class_prompts
from clients.encoders.session import EncoderSession
from clients.encoders.spec import parse_encoder

_FLUSH_ROWS = 512
"""Images after which features are written: what is encoded before an interruption is not lost."""

Progress = Callable[[int, int], None]


def prepare_features(
    dataset: ImageDataset,
    encoder: str,
    options: EncodeOptions | None = None,
    on_progress: Progress | None = None,
) -> FeatureBundle:
    """Return the features of a data set, encoding only what is not in the cache.

    Images are encoded in the order of their digests in batches of one size, so a repetition gives the same features bit
    by bit, whatever the files are called and whatever order they come in. Another batch size, or another part of them
    already cached, can change a feature by float32 rounding (clients.encoders.encoding says when). Where everything is
    cached the encoder is not loaded.

    Args:
        dataset: The data set.
        encoder: `MODEL/PRETRAINED`, `hf-hub:ORG/NAME`, `local-dir:PATH`, `demo` or `features:PATH`.
        options: Prompts, batches, device and cache; None for the defaults. With `features:PATH` nothing is computed
            and the prompts are those of the file.
        on_progress: Called with the images encoded and their total; never where nothing is encoded.

    Raises:
        EncoderError: The encoder is unknown, its weights are missing or not usable, or the cache cannot be written.
        BrokenImageError: `options.strict`, and an image cannot be decoded.
        EmptyDataError: No image can be decoded, or none of a site.
    """
    started = time.perf_counter()
    chosen = options or EncodeOptions()
    spec = parse_encoder(encoder)
    if spec.kind == "features":
        assert spec.path is not None  # noqa: S101 (narrows the type)
        return bundle_from_file(dataset, spec.path, encoder)
    if isinstance(dataset.source, NoImages):
        raise InvalidEncoderError(encoder, f"the data have no images; use --encoder features:{dataset.source.path}")
    session = EncoderSession(spec, chosen)
    by_digest = {record.digest: record for record in reversed(dataset.records)}
    cached = session.image_cache.read(by_digest)
    missing = [by_digest[digest] for digest in sorted(set(by_digest) - set(cached.rows))]
    fresh, broken = _encode_records(session, dataset, missing, on_progress)
    warnings = _findings(dataset, cached.damaged, broken)
    if broken:
        dataset = _decodable(dataset, broken)
    prompts = class_prompts(dataset.classes, chosen)
    warnings += _same_prompts(dataset.classes, prompts)
    text_features = session.text_features(prompts)
    rows = {**cached.rows, **fresh}
    held_out = dataset.global_site

    def labelled(records: Sequence[Record]) -> LabelledFeatures:
        return _labelled(dataset, records, rows, session.card.embed_dim)

    return FeatureBundle(
        classes=dataset.classes,
        prompts=prompts,
        embed_dim=session.card.embed_dim,
        text_features=text_features,
        logit_scale=session.card.logit_scale,
        sites=tuple(site_features(dataset, site, labelled) for site in dataset.sites),
        global_site=None if held_out is None else site_features(dataset, held_out, labelled),
        encoder_name=encoder,
        encoder_digest=session.card.digest,
        data_fingerprint=fingerprint(dataset),
        images_encoded=len(fresh),
        cache_hits=len(cached.rows),
        encode_seconds=time.perf_counter() - started,
        warnings=warnings,
    )


def _encode_records(
    session: EncoderSession, dataset: ImageDataset, records: Sequence[Record], on_progress: Progress | None
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Encode images and cache them; returns the features by digest and the reasons of the broken ones by digest."""
    fresh: dict[str, NDArray[np.float32]] = {}
    broken: dict[str, str] = {}
    if not records:
        return fresh, broken
    options = session.options
    unsaved: dict[str, NDArray[np.float32]] = {}
    paths = [record.path for record in records]
    try:
        for batch in encode_batches(
            session.encoder, dataset.source, paths, options.batch_size, options.workers, on_progress
        ):
            for position, feature in zip(batch.positions, batch.features, strict=True):
                fresh[records[position].digest] = unsaved[records[position].digest] = feature
            for position, reason in batch.broken:
                if options.strict:
                    raise BrokenImageError(paths[position], reason)
                broken[records[position].digest] = reason
            if len(unsaved) >= _FLUSH_ROWS:
                session.image_cache.add(unsaved)
                unsaved = {}
    finally:
        session.image_cache.add(unsaved)
    return fresh, broken


def _decodable(dataset: ImageDataset, broken: Mapping[str, str]) -> ImageDataset:
    """Leave out the images that cannot be decoded, whose reasons are by digest; a site never vanishes with them."""
    kept = dataset.without(frozenset(broken))
    lost = sorted(set(dataset.all_sites) - set(kept.all_sites))
    if not lost:
        return kept
    reason = "has no image that can be decoded; repair them"
    if kept.records:
        reason = f"no image of {', '.join(lost)} can be decoded; repair them, or take the whole site out of the data"
    detail = commonest({record.path: broken[record.digest] for record in dataset.records if record.site in lost})
    raise EmptyDataError(dataset.root, reason, detail)


def _findings(dataset: ImageDataset, damaged: int, broken: dict[str, str]) -> tuple[DataWarning, ...]:
    findings = []
    if broken:
        reasons = {record.path: broken[record.digest] for record in dataset.records if record.digest in broken}
        text = f"{len(reasons)} images cannot be decoded and are left out; repair or remove them"
        if REPLACED in broken.values():
            text += f". Of some, {REPLACED}"
        findings.append(finding("broken_image", reasons, text, detail=commonest(reasons)))
    if damaged:
        text = f"{damaged} damaged entries of the feature cache were removed and computed again"
        findings.append(DataWarning("damaged_cache", damaged, (), text))
    return tuple(findings)


def _same_prompts(classes: Sequence[str], prompts: Sequence[tuple[str, ...]]) -> tuple[DataWarning, ...]:
    """Find classes that the text tower cannot tell apart, such as `a-b` and `a_b`."""
    alike = [label for label, texts in zip(classes, prompts, strict=True) if prompts.count(texts) > 1]
    if not alike:
        return ()
    text = f"{len(alike)} classes share their prompts with another, so prompts cannot tell them apart; rename them"
    return (finding("same_prompts", alike, text),)


def _labelled(
    dataset: ImageDataset, records: Sequence[Record], rows: Mapping[str, NDArray[np.float32]], width: int
) -> LabelledFeatures:
    features = np.stack([rows[record.digest] for record in records]) if records else np.empty((0, width), np.float32)
    labels = np.array([dataset.class_index[record.label] for record in records], dtype=np.int64)
    return LabelledFeatures(
        features,
        labels,
        tuple(record.path for record in records),
        tuple(record.digest for record in records),
        tuple(record.patient or "" for record in records),
    )
