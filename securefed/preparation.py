"""From a configuration to features: load the data, divide it, run the frozen encoder once."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clients.data import DataOptions, DataWarning, ImageDataset, Record, check_dataset, load_dataset, partition
from clients.encoders import EncodeOptions, FeatureBundle, prepare_features
from securefed.config import DataConfig, RunConfig
from securefed.errors import ConfigError
from securefed.observer import Observer


def load_sites(
    config: DataConfig, seed: int, part: str | None = None, fewest_classes: int = 2
) -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Load the data set and divide it over hospitals as configured; raises DataError where it cannot be used.

    Args:
        config: What is to be loaded.
        seed: Of the division over clients.
        part: The one site that is meant; images of others need not be here. None for all.
        fewest_classes: Data with fewer are refused; 1 for data that are only evaluated.
    """
    options = DataOptions(
        path_column=config.path_column or None,
        label_column=config.label_column or None,
        site_column=config.site_column or None,
        patient_column=config.patient_column or None,
        split_column=config.split_column or None,
        global_site=config.global_site or None,
        part=part,
        class_names=config.class_names,
        fewest_classes=fewest_classes,
        strict=config.strict,
    )
    dataset, warnings = load_dataset(config.source, options)
    if config.clients:
        dealt = partition(dataset, config.clients, config.alpha or None, seed)
        return dealt, _checked_again(dataset, dealt, warnings)
    return dataset, warnings


def load_other_sites(
    config: DataConfig, own: ImageDataset | None, clients: Sequence[str]
) -> tuple[ImageDataset, tuple[DataWarning, ...], int]:
    """Load data other than the run's own, with every patient at the client that has that patient in the run.

    Where the run has dealt one hospital's images to clients, and the other data name none of these, an image belongs to
    the client of its patient, else to that of the same image, else, the run knowing neither, to one chosen by a hash
    of the patient (of the content, where no patient is known): data that are dealt anew would be judged by models of
    clients that are not theirs.

    Args:
        config: The run's, with the other source in it.
        own: The run's own data as it divides them; None where they are not here.
        clients: The run's clients.

    Returns:
        The data, their findings, and the number of images that only a hash has a client for.

    Raises:
        ConfigError: The run's own data are needed to compare, and are not here.
        DataError: The data cannot be used.
    """
    dataset, warnings = load_sites(replace(config, clients=0, alpha=0.0), seed=0, fewest_classes=1)
    if not config.clients or len(dataset.sites) != 1 or dataset.sites[0] in clients:
        return dataset, warnings, 0
    if own is None:
        raise ConfigError(
            "--data",
            "the run has dealt its data to clients, and they are not here to tell who has which patient; put them "
            "back, or give each image its client in a column `site`",
        )
    dealt, strangers = _at_their_clients(dataset, own)
    return dealt, _checked_again(dataset, dealt, warnings), strangers


def _at_their_clients(dataset: ImageDataset, own: ImageDataset) -> tuple[ImageDataset, int]:
    """Return the data with the clients of `own` as sites, and how many images a hash was needed for."""
    known = [record for record in own.records if record.site in own.sites]
    by_patient = {record.patient: record.site for record in known if record.patient is not None}
    by_image = {record.digest: record.site for record in known}
    strangers = 0
    records = []
    for record in dataset.records:
        site: str | None = record.site
        if record.site in dataset.sites:
            site = by_patient.get(record.patient or "") or by_image.get(record.digest)
        if site is None:
            site = _client_by_hash(record, own.sites)
            strangers += 1
        records.append(replace(record, site=site))
    return replace(dataset, records=tuple(records)), strangers


def _client_by_hash(record: Record, clients: Sequence[str]) -> str:
    digest = hashlib.sha256(f"securefed/client/v1/{record.patient or record.digest}".encode()).digest()
    return clients[int.from_bytes(digest[:8], "big") % len(clients)]


def _checked_again(
    before: ImageDataset, dealt: ImageDataset, warnings: Sequence[DataWarning]
) -> tuple[DataWarning, ...]:
    """Return the findings after the records have got other sites: those on the records are made anew."""
    about_records = {finding.kind for finding in check_dataset(before)}
    return (*(warning for warning in warnings if warning.kind not in about_records), *check_dataset(dealt))


def has_device(name: str) -> bool:
    """Return whether this machine has what `federation.device` asks for."""
    import torch

    return name != "cuda" or torch.cuda.is_available()


def resolve_device(name: str) -> str:
    """Return `cpu` or `cuda`; raises ConfigError where cuda is asked for and absent."""
    import torch

    if not has_device(name):
        raise ConfigError("federation.device", "cuda is asked for and this machine has none; use auto or cpu")
    return "cuda" if torch.cuda.is_available() and name != "cpu" else "cpu"


def encode_sites(
    config: RunConfig, dataset: ImageDataset, device: str, cache_dir: Path | None, observer: Observer
) -> FeatureBundle:
    """Return the features of all sites; images with cached features are not encoded again."""
    options = EncodeOptions(
        cache_dir=cache_dir,
        device=device,
        batch_size=config.encoder.batch_size,
        workers=config.encoder.workers,
        templates=(config.encoder.prompt,),
        strict=config.data.strict,
    )
    return prepare_features(dataset, config.encoder.name, options, observer.encoded)
