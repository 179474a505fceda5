"""From a configuration to features: load the data, divide it, run the frozen encoder once."""

from pathlib import Path

from clients.data import DataOptions, DataWarning, ImageDataset, check_dataset, load_dataset, partition
from clients.encoders import EncodeOptions, FeatureBundle, prepare_features
from securefed.config import DataConfig, RunConfig
from securefed.errors import ConfigError
from securefed.observer import Observer


def load_sites(config: DataConfig, seed: int) -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Load the data set and divide it over hospitals as configured; raises DataError where it cannot be used."""
    options = DataOptions(
        path_column=config.path_column or None,
        label_column=config.label_column or None,
        site_column=config.site_column or None,
        patient_column=config.patient_column or None,
        split_column=config.split_column or None,
        global_site=config.global_site or None,
        class_names=config.class_names,
        strict=config.strict,
    )
    dataset, warnings = load_dataset(config.source, options)
    if config.clients:
        dataset = partition(dataset, config.clients, config.alpha or None, seed)
        after = check_dataset(dataset)
        known = {warning.kind for warning in after}
        warnings = (*(warning for warning in warnings if warning.kind not in known), *after)
    return dataset, warnings


def resolve_device(name: str) -> str:
    """Return `cpu` or `cuda`; raises ConfigError where cuda is asked for and absent."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("federation.device", "cuda is asked for and this machine has none; use auto or cpu")
    return "cuda" if available and name != "cpu" else "cpu"


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
