"""The data that a finished run is evaluated on: its own, as they were, or others, with what may be wrong with them."""

from collections.abc import Sequence
from dataclasses import replace

from clients.data import DataError, DataWarning, ImageDataset, Record
from clients.data.checks import small_splits
from clients.data.files import DIVIDED_KINDS
from clients.data.rows import composed
from clients.encoders import FeatureBundle
from securefed.config import DataConfig, RunConfig, load_config
from securefed.errors import ConfigError, RunFolderError
from securefed.model_file import SavedModel
from securefed.preparation import load_other_sites, load_sites
from securefed.run_folder import RunFolder
from securefed.site.data import other_dataset, own_dataset
from securefed.site.results import kept_settings, places, require_place
from securefed.site.settings import SiteSettings

_ABOUT_A_RUN = frozenset({"class_not_in_training", "site_without_training", "empty_split", "small_split"})
"""Findings that data would have in a run of their own; those on the one split that is evaluated are made anew."""


def data_to_evaluate(
    folder: RunFolder, model: SavedModel, split: str, source: str | None, encoder: str | None
) -> tuple[RunConfig, ImageDataset, list[str]]:
    """Return the configuration by which data are read, the data with the run's classes, and warnings about them.

    Args:
        folder: Of a finished run, or of what a hospital of a deployment has kept of one.
        model: Of the run.
        split: What is evaluated: `train`, `val` or `test`.
        source: Other data; None takes the run's own.
        encoder: Where the run's encoder is; None takes the name in the run.

    Raises:
        ConfigError: Classes or sites are not the run's, or the data of a deployment are nowhere named.
        DataError: The data cannot be used.
    """
    other = {key: value for key, value in (("data.source", source), ("encoder.name", encoder)) if value}
    settings = kept_settings(folder)
    config = load_config(folder.config, places(settings) | other)
    require_place(config)
    own = _own_data(folder, settings) if source else None
    strangers = 0
    if settings is not None:
        dataset, warnings = other_dataset(settings, source) if source else own_dataset(settings)
    elif source:
        dataset, warnings, strangers = load_other_sites(config.data, own, model.sites)
    else:
        dataset, warnings = load_sites(config.data, config.federation.seed)
    if source:
        warnings = (*(found for found in warnings if found.kind not in _ABOUT_A_RUN), *small_splits(dataset, (split,)))
    key = "--data" if source else "data.source"
    dataset, absent = _with_classes(dataset, model.classes, key, complete=not source and settings is None)
    unknown = [site for site in dataset.sites if site not in model.sites]
    if unknown:
        raise ConfigError(
            key,
            f"has the sites {', '.join(unknown)}, which are not in this run; its sites are {', '.join(model.sites)}",
        )
    told = [warning.message for warning in warnings if warning.severity == "warning"]
    if absent and source:
        told.append(
            f"--data: there is no image of {', '.join(absent)}; metrics are over the classes that a site has images of"
        )
    if strangers:
        told.append(
            f"--data: {strangers} of {len(dataset.records)} images are of patients that this run does not know; the "
            "client that answers for each was chosen by a hash of the patient"
        )
    if source and split != "train":
        told += [*_divided_anew(dataset, warnings, split), *_seen_in_training(own, dataset, split, config.data)]
    return config, dataset, told


def _with_classes(
    dataset: ImageDataset, classes: tuple[str, ...], key: str, *, complete: bool
) -> tuple[ImageDataset, list[str]]:
    """Return data with their classes numbered as a run numbers them, and the classes of which they have no image."""
    foreign = [label for label in dataset.classes if label not in classes]
    absent = [label for label in classes if label not in dataset.classes]
    if foreign:
        raise ConfigError(
            key,
            f"has the classes {', '.join(foreign)}, which the run has not; its classes are {', '.join(classes)}. "
            "Rename them, or leave them out",
        )
    if complete and absent:
        raise ConfigError(
            "data.source",
            f"has no image of {', '.join(absent)} any more; restore them, or name what is to be evaluated with --data",
        )
    return replace(dataset, classes=classes), absent


def check_same_data(folder: RunFolder, config: RunConfig, bundle: FeatureBundle) -> None:
    """Refuse to call other images the run's own: one it trained on may be a test image now."""
    summary = folder.read_json(folder.summary)
    try:
        trained_on, keyed = summary["provenance"]["data_fingerprint"], summary["provenance"]["data_keyed"]
        tested = {site: parts["test"]["ensemble"]["num_images"] for site, parts in summary["sites"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(folder.summary, f"is damaged ({error} is missing); use the file of the run") from error
    if folder.name_of_data(bundle.data_fingerprint, keyed=keyed) == trained_on:
        _check_same_features(folder, config, bundle, summary["provenance"].get("features_digest"), keyed=keyed)
        return
    here = {site.site: len(site.test) for site in bundle.sites}
    changed = [
        f"{site} has {here.get(site, 0)} test images and had {tested.get(site, 0)}"
        for site in sorted(here.keys() | tested.keys())
        if here.get(site, 0) != tested.get(site, 0)
    ]
    raise ConfigError(
        "data.source",
        f"{config.data.source} is not what the run was made with any more: images, labels, sites or splits have "
        f"changed ({'; '.join(changed) or 'with as many test images at every site'}); restore them, or name what is to "
        "be evaluated with --data",
    )


def _check_same_features(
    folder: RunFolder, config: RunConfig, bundle: FeatureBundle, trained_on: str | None, *, keyed: bool
) -> None:
    """Refuse a file that gives the run's own images other features; what an encoder computes has its digest."""
    if not trained_on or not bundle.features_digest:
        return
    if folder.name_of_data(bundle.features_digest, keyed=keyed) != trained_on:
        raise ConfigError(
            "encoder.name",
            f"{config.encoder.name} has other features of the same images, or other text features, than the run was "
            "made with; restore the file, or name what is to be evaluated with --data",
        )


def _divided_anew(dataset: ImageDataset, warnings: Sequence[DataWarning], split: str) -> list[str]:
    """Return a warning where other data do not come with splits of their own."""
    anew = sum(warning.count for warning in warnings if warning.kind in DIVIDED_KINDS)
    if not anew:
        return []
    chosen = len(dataset.select(split=split))
    text = (
        f"--data: {anew} of {len(dataset.records)} images come without a split and were divided anew, 60/20/20: the "
        f"figures are of the {chosen} that count as {split} images; give each image its split to choose them"
    )
    return [text]


def _own_data(folder: RunFolder, settings: SiteSettings | None) -> ImageDataset | None:
    """Return the data that the run was made with, divided as there; None where they are not here any more."""
    config = load_config(folder.config)
    try:
        if settings is not None:
            return own_dataset(settings)[0]
        return load_sites(config.data, config.federation.seed)[0]
    except (ConfigError, DataError):
        return None


def _seen_in_training(own: ImageDataset | None, dataset: ImageDataset, split: str, config: DataConfig) -> list[str]:
    """Return a warning where images of other data, or their patients, are in another split of the run's own.

    Names of patients are compared within a site, since hospitals may number alike, and over all clients to whom the run
    has dealt one hospital's patients.
    """
    if own is None:
        return ["--data: the run's own data are not here to compare: leave out what it has trained on"]
    elsewhere = [record for record in own.records if record.split != split]
    images = {record.digest for record in elsewhere}
    patients = {_person(record, config) for record in elsewhere if record.patient is not None}
    chosen = dataset.select(split=split)
    seen = sum(record.digest in images or _person(record, config) in patients for record in chosen)
    if not seen:
        return []
    text = (
        f"--data: {seen} of {len(chosen)} {split} images, or other images of their patients, were no {split} images of "
        "the run, which may have trained on them: the figures are too good; leave them out"
    )
    return [text]


def _person(record: Record, config: DataConfig) -> tuple[str, str | None]:
    dealt = config.clients and record.site != composed(config.global_site or "")
    return "" if dealt else record.site, record.patient
