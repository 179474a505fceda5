"""From a data set and the name of an encoder to what training sees."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data import SPLITS, BrokenImageError, DataWarning, EmptyDataError, ImageDataset, Record, fingerprint
from clients.encoders.bundle import FeatureBundle, LabelledFeatures, SiteFeatures
from clients.encoders.cache import FeatureCache
from clients.encoders.card import EncoderCard, files_key, read_card, write_card
from clients.encoders.encoding import encode_batches, encode_texts
from clients.encoders.frozen import FrozenEncoder
from clients.encoders.loading import choose_compute, load_encoder
from clients.encoders.options import EncodeOptions, default_cache_dir
from clients.encoders.prompts import average_prompts, class_prompts
from clients.encoders.spec import EncoderSpec, parse_encoder
from clients.encoders.weights import fetch_files, local_files

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

    Images are encoded in the order of their digests in batches of one size, so the features are the same bit by bit
    for any order of files and for any part of them that was already cached. Where everything is cached the encoder
    is not loaded.

    Args:
        dataset: The data set.
        encoder: `MODEL/PRETRAINED`, `hf-hub:ORG/NAME`, `local-dir:PATH` or `demo`.
        options: Prompts, batches, device and cache; None for the defaults.
        on_progress: Called with the images encoded and their total; never where nothing is encoded.

    Raises:
        EncoderError: The encoder is unknown, its weights are missing or not usable, or the cache cannot be written.
        BrokenImageError: `options.strict`, and an image cannot be decoded.
        EmptyDataError: No image can be decoded.
    """
    started = time.perf_counter()
    chosen = options or EncodeOptions()
    spec = parse_encoder(encoder)
    session = EncoderSession(spec, chosen)
    by_digest = {record.digest: record for record in reversed(dataset.records)}
    cached = session.image_cache.read(by_digest)
    missing = [by_digest[digest] for digest in sorted(set(by_digest) - set(cached.rows))]
    fresh, broken = _encode_records(session, dataset, missing, on_progress)
    warnings = _findings(dataset, cached.damaged, broken)
    if broken:
        dataset = dataset.without(frozenset(broken))
        if not dataset.records:
            raise EmptyDataError(dataset.root, "has no image that can be decoded")
    prompts = class_prompts(dataset.classes, chosen)
    text_features = session.text_features(prompts)
    rows = {**cached.rows, **fresh}
    sites = tuple(_site_features(dataset, site, rows) for site in dataset.sites)
    held_out = dataset.global_site
    return FeatureBundle(
        classes=dataset.classes,
        prompts=prompts,
        embed_dim=session.card.embed_dim,
        text_features=text_features,
        logit_scale=session.card.logit_scale,
        sites=sites,
        global_site=None if held_out is None else _site_features(dataset, held_out, rows),
        encoder_name=encoder,
        encoder_digest=session.card.digest,
        data_fingerprint=fingerprint(dataset),
        images_encoded=len(fresh),
        cache_hits=len(cached.rows),
        encode_seconds=time.perf_counter() - started,
        warnings=warnings,
    )


@dataclass(frozen=True)
class EncoderSession:
    """An encoder that is loaded only when something is not in the cache."""

    spec: EncoderSpec
    options: EncodeOptions

    @cached_property
    def cache_dir(self) -> Path:
        """Folder of the caches."""
        return self.options.cache_dir or default_cache_dir()

    @cached_property
    def encoder(self) -> FrozenEncoder:
        """The loaded encoder; raises EncoderError."""
        return load_encoder(self.spec, choose_compute(self.options.device, self.options.precision))

    @cached_property
    def card(self) -> EncoderCard:
        """What is known of the encoder: remembered for the state of its files, else from loading it."""
        if local_files(self.spec) is None:
            fetch_files(self.spec)
        files = local_files(self.spec)
        if files is None:
            return self.encoder.card
        key = files_key(self.spec.model, files)
        card = read_card(self.cache_dir, key)
        if card is None:
            card = self.encoder.card
            write_card(self.cache_dir, key, card)
        return card

    @cached_property
    def image_cache(self) -> FeatureCache:
        """Cache of the features of images."""
        compute = choose_compute(self.options.device, self.options.precision)
        description = {
            "encoder": self.card.digest,
            "input": "image/v1",
            "precision": f"{compute.precision} {compute.device.type}",
        }
        return FeatureCache(self.cache_dir, description, self.card.embed_dim)

    @cached_property
    def text_cache(self) -> FeatureCache:
        """Cache of the features of prompts; always fp32."""
        description = {"encoder": self.card.digest, "input": "text/v1", "precision": "fp32"}
        return FeatureCache(self.cache_dir, description, self.card.embed_dim)

    def text_features(self, prompts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return float32[C, D], rows of norm 1: for every class the average over its prompts."""
        digests = {text: hashlib.sha256(text.encode()).hexdigest() for texts in prompts for text in texts}
        rows = dict(self.text_cache.read(digests.values()).rows)
        missing = sorted({text for text, digest in digests.items() if digest not in rows})
        if missing:
            encoded = encode_texts(self.encoder, missing)
            fresh = {digests[text]: encoded[i] for i, text in enumerate(missing)}
            self.text_cache.add(fresh)
            rows.update(fresh)
        return average_prompts([np.stack([rows[digests[text]] for text in texts]) for texts in prompts])


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


def _findings(dataset: ImageDataset, damaged: int, broken: dict[str, str]) -> tuple[DataWarning, ...]:
    findings = []
    if broken:
        paths = sorted(record.path for record in dataset.records if record.digest in broken)
        text = f"{len(paths)} images cannot be decoded and are left out; repair or remove them"
        findings.append(DataWarning("broken_image", len(paths), tuple(paths[:5]), text))
    if damaged:
        text = f"{damaged} damaged entries of the feature cache were removed and computed again"
        findings.append(DataWarning("damaged_cache", damaged, (), text))
    return tuple(findings)


def _site_features(dataset: ImageDataset, site: str, rows: dict[str, NDArray[np.float32]]) -> SiteFeatures:
    train, val, test = (_labelled(dataset, dataset.select(site, split), rows) for split in SPLITS)
    return SiteFeatures(site, train, val, test)


def _labelled(
    dataset: ImageDataset, records: Sequence[Record], rows: dict[str, NDArray[np.float32]]
) -> LabelledFeatures:
    width = len(next(iter(rows.values())))
    features = np.stack([rows[record.digest] for record in records]) if records else np.empty((0, width), np.float32)
    labels = np.array([dataset.class_index[record.label] for record in records], dtype=np.int64)
    return LabelledFeatures(features, labels, tuple(record.path for record in records))
