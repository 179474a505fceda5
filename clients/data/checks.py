"""What can be seen from the records alone: leaks between splits, and sites that lack something."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from clients.data.dataset import SPLITS, ImageDataset
from clients.data.findings import DataWarning, finding

SMALL_SPLIT = 5
"""Splits of a site with fewer images are reported: a metric on them says next to nothing."""


def check_dataset(dataset: ImageDataset) -> tuple[DataWarning, ...]:
    """Return the findings on a data set's records; to be called again after a partition.

    Kinds: duplicate_across_splits, duplicate_at_two_sites, duplicate_in_split, duplicate_with_other_label,
    patient_in_two_splits, patient_at_two_sites (info), class_missing_at_site (info), class_not_in_training,
    site_without_training, empty_split, small_split.
    """
    return (
        *_duplicates(dataset),
        *_patients(dataset),
        *_classes(dataset),
        *_untrained_sites(dataset),
        *small_splits(dataset),
    )


def _duplicates(dataset: ImageDataset) -> list[DataWarning]:
    by_digest = defaultdict(list)
    for record in dataset.records:
        by_digest[record.digest].append(record)
    copies = [records for records in by_digest.values() if len(records) > 1]
    findings = []
    across = [record.path for records in copies if len({r.split for r in records}) > 1 for record in records]
    if across:
        text = f"{len(across)} images have a copy in another split, which makes test results too good; remove copies"
        findings.append(finding("duplicate_across_splits", across, text))
    shared = [record.path for records in copies if len({r.site for r in records}) > 1 for record in records]
    if shared:
        text = (
            f"{len(shared)} images have a copy at another site, and each counts as an image of its own; leave one out "
            "(is a folder there twice, or linked?)"
        )
        findings.append(finding("duplicate_at_two_sites", shared, text))
    parts = Counter((r.digest, r.site, r.split) for r in dataset.records)
    repeated = [record.path for record in dataset.records if parts[record.digest, record.site, record.split] > 1]
    if repeated:
        text = (
            f"{len(repeated)} images have a copy in their own split and site, and count as often (with --dp an image "
            "is one with its copies); remove copies"
        )
        findings.append(finding("duplicate_in_split", repeated, text))
    disputed = [record.path for records in copies if len({r.label for r in records}) > 1 for record in records]
    if disputed:
        text = f"{len(disputed)} images have a copy with another label; find out which label is right"
        findings.append(finding("duplicate_with_other_label", disputed, text))
    return findings


def _patients(dataset: ImageDataset) -> list[DataWarning]:
    splits = defaultdict(set)
    sites = defaultdict(set)
    for record in dataset.records:
        if record.patient is not None:
            splits[record.site, record.patient].add(record.split)
            sites[record.patient].add(record.site)
    findings = []
    leaking = [f"{site}: {patient}" for (site, patient), found in splits.items() if len(found) > 1]
    if leaking:
        text = f"{len(leaking)} patients are in more than one split of their site, which makes test results too good"
        findings.append(finding("patient_in_two_splits", leaking, text))
    shared = [patient for patient, found in sites.items() if len(found) > 1]
    if shared:
        text = f"{len(shared)} patient names occur at several sites: either the same people, or sites that number alike"
        findings.append(finding("patient_at_two_sites", shared, text, "info"))
    return findings


def _classes(dataset: ImageDataset) -> list[DataWarning]:
    findings = []
    missing = [
        f"{site}: {label}"
        for site in dataset.all_sites
        for label, count in dataset.class_counts(site).items()
        if count == 0
    ]
    if missing:
        text = f"{len(missing)} pairs of site and class have no image; the class list is the union over the sites"
        findings.append(finding("class_missing_at_site", missing, text, "info"))
    trained = dataset.class_counts(split="train")
    untrained = [label for label, count in trained.items() if count == 0]
    if untrained:
        where = "at any site, so only the prompts know them"
        if len(dataset.all_sites) == 1:  # the part of one hospital, which knows nothing of the others
            where = "here; other hospitals may have some, or only the prompts know them"
        text = f"{len(untrained)} classes have no training image {where}"
        findings.append(finding("class_not_in_training", untrained, text))
    return findings


def _untrained_sites(dataset: ImageDataset) -> list[DataWarning]:
    untrained = [site for site in dataset.sites if not dataset.select(site, "train")]
    if not untrained:
        return []
    text = (
        f"{len(untrained)} sites have no training image: they add nothing to the shared model, and their own stays "
        "untrained; leave them out, or hold one out with --global-site"
    )
    return [finding("site_without_training", untrained, text)]


def small_splits(dataset: ImageDataset, splits: Sequence[str] = SPLITS) -> list[DataWarning]:
    """Return the findings empty_split and small_split on these splits of the sites."""
    empty, small = [], []
    for site in dataset.all_sites:
        for split in splits:
            if site == dataset.global_site and split != "test":
                continue
            count = len(dataset.select(site, split))
            if count == 0:
                empty.append(f"{site}: {split}")
            elif count < SMALL_SPLIT:
                small.append(f"{site}: {split} ({count})")
    findings = []
    if empty:
        text = f"{len(empty)} splits of sites have no image; metrics on them are not defined"
        findings.append(finding("empty_split", empty, text))
    if small:
        text = f"{len(small)} splits of sites have fewer than {SMALL_SPLIT} images; metrics on them say little"
        findings.append(finding("small_split", small, text))
    return findings
