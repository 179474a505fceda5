"""What training sees of a data set: features instead of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.data import SPLITS, DataWarning, ImageDataset, Record


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of N images with their labels.

    Attributes:
        features: float32[N, D], rows of norm 1.
        labels: int64[N], numbers of classes.
        paths: The N images they belong to, as in the data set.
        digests: SHA-256 (hex) of their content, () where nobody asked for it.
        patients: Whom they show, "" where unknown; () where nobody asked for it.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    paths: tuple[str, ...]
    digests: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def class_counts(self, num_classes: int) -> NDArray[np.int64]:
        """Return int64[C]: the number of images of every class."""
        return np.bincount(self.labels, minlength=num_classes).astype(np.int64)


@dataclass(frozen=True)
class SiteFeatures:
    """The three splits of one site; a split may be empty."""

    site: str
    train: LabelledFeatures
    val: LabelledFeatures
    test: LabelledFeatures

    def split(self, name: str) -> LabelledFeatures:
        """Return the split called train, val or test; raises KeyError for any other name."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


@dataclass(frozen=True)
class FeatureBundle:
    """A data set seen through a frozen encoder.

    Attributes:
        classes: Names of the C classes, sorted.
        prompts: For every class the prompts whose features were averaged.
        embed_dim: D, the width of the features.
        text_features: float32[C, D], rows of norm 1.
        logit_scale: Factor of the cosines in the encoder's softmax (1 / temperature), about 100 for CLIP.
        sites: The sites that train, sorted by name.
        global_site: The held-out site (all its images are in its test split), None for none.
        encoder_name: As the user wrote it.
        encoder_digest: SHA-256 (hex) of the encoder's weights, configuration and preprocessing.
        data_fingerprint: clients.data.fingerprint of the data set.
        images_encoded: Images that were encoded for this bundle.
        cache_hits: Images whose features were in the cache (or in a file of features).
        encode_seconds: Time that preparing took.
        warnings: Findings: images that could not be decoded, damaged cache entries.
        features_digest: SHA-256 (hex) of what a file of features gave, "" where the encoder computed it: neither of the
            two digests above says what is in such a file.
    """

    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    embed_dim: int
    text_features: NDArray[np.float32]
    logit_scale: float
    sites: tuple[SiteFeatures, ...]
    global_site: SiteFeatures | None
    encoder_name: str
    encoder_digest: str
    data_fingerprint: str
    images_encoded: int
    cache_hits: int
    encode_seconds: float
    warnings: tuple[DataWarning, ...] = ()
    features_digest: str = ""

    def all_sites(self) -> tuple[SiteFeatures, ...]:
        """Return the sites that train and, last, the held-out one."""
        return self.sites if self.global_site is None else (*self.sites, self.global_site)


def site_features(
    dataset: ImageDataset, site: str, labelled: Callable[[Sequence[Record]], LabelledFeatures]
) -> SiteFeatures:
    """Return the three splits of a site, `labelled` turning records into features."""
    train, val, test = (labelled(dataset.select(site, split)) for split in SPLITS)
    return SiteFeatures(site, train, val, test)
