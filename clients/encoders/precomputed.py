"""Features from and to files, in the format of clients.data.feature_table."""

import contextlib
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clients.data import DataOptions, ImageDataset, Record, fingerprint, load_dataset
from clients.data.feature_table import FeatureTable, read_feature_table, write_feature_table
from clients.data.precomputed import row_digests, row_names
from clients.encoders.bundle import FeatureBundle, LabelledFeatures, site_features
from clients.encoders.errors import FeatureFileError

_EXAMPLES = 3


def export_features(bundle: FeatureBundle, path: Path) -> None:
    """Write features, labels, sites, splits, patients and text features to one .safetensors or .npz file.

    The file is a data set and an encoder at once: `load_dataset("features:PATH")` and
    `prepare_features(dataset, "features:PATH")` give the same features, bit by bit.

    Args:
        bundle: What to write; the held-out site is written as a site like the others.
        path: Where to; replaced as a whole where it exists.

    Raises:
        FeatureFileError: The ending is another one, or the file cannot be written.
    """
    if path.suffix.lower() not in (".safetensors", ".npz"):
        raise FeatureFileError(path, "features are written as .safetensors or .npz; name such a file")
    parts = [
        (site.site, split, rows)
        for site in bundle.all_sites()
        for split, rows in (("train", site.train), ("val", site.val), ("test", site.test))
        if len(rows)
    ]
    patients = tuple(patient for _, _, rows in parts for patient in rows.patients)
    table = FeatureTable(
        features=np.concatenate([rows.features for _, _, rows in parts]),
        classes=bundle.classes,
        text_features=bundle.text_features,
        logit_scale=bundle.logit_scale,
        paths=tuple(path for _, _, rows in parts for path in rows.paths),
        digests=tuple(digest for _, _, rows in parts for digest in rows.digests),
        labels=np.concatenate([rows.labels for _, _, rows in parts]),
        sites=tuple(site for site, _, rows in parts for _ in rows.paths),
        splits=tuple(split for _, split, rows in parts for _ in rows.paths),
        patients=patients if any(patients) else (),
        prompts=bundle.prompts,
        encoder=bundle.encoder_name,
        encoder_digest=bundle.encoder_digest,
    )
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        write_feature_table(table, temporary)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise FeatureFileError(path, f"cannot be written ({error.strerror})") from error


def load_features(path: Path, options: DataOptions | None = None) -> FeatureBundle:
    """Read a file of features that has labels and sites as a data set and an encoder at once.

    Raises:
        DataError: The file cannot be used, or has no labels or sites.
    """
    source = f"features:{path}"
    dataset, _ = load_dataset(source, options)
    return bundle_from_file(dataset, path, source)


def bundle_from_file(dataset: ImageDataset, path: Path, encoder_name: str) -> FeatureBundle:
    """Take the features of a data set from a file; images are found by content digest, else by path.

    Raises:
        SourceFormatError: The file cannot be used.
        FeatureFileError: It lacks the features of an image, or a class.
    """
    table = read_feature_table(path)
    absent = sorted(set(dataset.classes) - set(table.classes))
    if absent:
        raise FeatureFileError(path, f"has no text feature of the class {absent[0]!r}; export it with all classes")
    where = _positions(dataset.records, table, path)
    labels = dataset.class_index

    def labelled(records: Sequence[Record]) -> LabelledFeatures:
        return LabelledFeatures(
            table.features[[where[record.path] for record in records]],
            np.array([labels[record.label] for record in records], dtype=np.int64),
            tuple(record.path for record in records),
            tuple(record.digest for record in records),
            tuple(record.patient or "" for record in records),
        )

    held_out = dataset.global_site
    order = [table.classes.index(label) for label in dataset.classes]
    return FeatureBundle(
        classes=dataset.classes,
        prompts=tuple(table.prompts[i] for i in order) if table.prompts else (),
        embed_dim=table.features.shape[1],
        text_features=table.text_features[order],
        logit_scale=table.logit_scale,
        sites=tuple(site_features(dataset, site, labelled) for site in dataset.sites),
        global_site=None if held_out is None else site_features(dataset, held_out, labelled),
        encoder_name=encoder_name,
        encoder_digest=table.encoder_digest,
        data_fingerprint=fingerprint(dataset),
        images_encoded=0,
        cache_hits=len(dataset.records),
        encode_seconds=0.0,
        features_digest=_features_digest(dataset.records, table, where, order),
    )


def _features_digest(
    records: Sequence[Record], table: FeatureTable, where: Mapping[str, int], order: Sequence[int]
) -> str:
    """Return the SHA-256 (hex) of all that training takes from a file, whatever the order of its rows and classes.

    Format: SHA-256 over the label `securefed/features/v1`, the logit scale and the text features in the order of the
    data set's classes (float32, little endian), and in sorted order one entry an image: its digest (hex) and its
    features.
    """
    rows = table.features.astype("<f4")
    digest = hashlib.sha256(b"securefed/features/v1" + np.float32(table.logit_scale).astype("<f4").tobytes())
    digest.update(table.text_features[list(order)].astype("<f4").tobytes())
    for entry in sorted(record.digest.encode() + rows[where[record.path]].tobytes() for record in records):
        digest.update(entry)
    return digest.hexdigest()


def _positions(records: Sequence[Record], table: FeatureTable, path: Path) -> dict[str, int]:
    """Return the row of every record by its path; raises FeatureFileError where one is missing."""
    by_digest = {digest: i for i, digest in enumerate(row_digests(table))}
    by_path = {name: i for i, name in enumerate(row_names(table))}
    where: dict[str, int] = {}
    missing: list[str] = []
    for record in records:
        position = by_digest.get(record.digest)
        if position is None and not table.digests:
            position = by_path.get(record.path)
        if position is None:
            missing.append(record.path)
        else:
            where[record.path] = position
    if missing:
        found = ", ".join(missing[:_EXAMPLES])
        raise FeatureFileError(
            path, f"lacks the features of {len(missing)} of {len(records)} images (for example {found}); export again"
        )
    return where
