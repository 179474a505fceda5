"""A hospital's images as a study wants them: its own site, under its name in the roster, with the study's classes."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence

from clients.data import DataWarning, ImageDataset, check_dataset
from clients.data.rows import composed
from clients.encoders import EncodeOptions, FeatureBundle, prepare_features
from securefed.errors import ConfigError
from securefed.preparation import load_sites, resolve_device
from securefed.site.folder import SiteFolder
from securefed.site.settings import SiteSettings
from securefed.study.form import Study


def own_dataset(settings: SiteSettings) -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Return the hospital's own images under its name, and what is to be said about them.

    Raises:
        DataError: The data cannot be used.
        ConfigError: It is not clear which site of the data set this hospital is.
    """
    part = composed(settings.site.part)
    dataset, warnings = load_sites(settings.data, 0, part or None)
    if not part:
        if len(dataset.all_sites) != 1:
            sites = ", ".join(dataset.all_sites)
            raise ConfigError("site.part", f"the data set has the sites {sites}; say which of them this hospital is")
        (part,) = dataset.all_sites
    if part not in dataset.all_sites:
        raise ConfigError("site.part", f"there is no site {part!r}; the data set has {', '.join(dataset.all_sites)}")
    return _under_its_name(settings, dataset, warnings, part)


def other_dataset(settings: SiteSettings, source: str) -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Return other images of the hospital under its name: of the site that it is or is called, or the one site there.

    They are read like its own (columns, class names); where its own are dealt to clients, they are not.

    Raises:
        DataError: The data cannot be used.
        ConfigError: There are several sites, and none of them is this hospital.
    """
    data = dataclasses.replace(settings.data, source=source, clients=0, alpha=0.0, global_site="")
    names = [composed(name) for name in (settings.site.part, settings.site.name) if name]
    dataset, warnings = load_sites(data, 0, names[0], fewest_classes=1)
    found = [name for name in (*names, *dataset.all_sites[:1]) if name in dataset.all_sites]
    if found[0] not in names and len(dataset.all_sites) > 1:
        sites = ", ".join(dataset.all_sites)
        raise ConfigError("--data", f"has the sites {sites}, none of which is {names[0]}; name data with one site only")
    return _under_its_name(settings, dataset, warnings, found[0])


def _under_its_name(
    settings: SiteSettings, dataset: ImageDataset, warnings: Sequence[DataWarning], part: str
) -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Return one site of a data set as this hospital, with the findings that are left."""
    records = tuple(
        dataclasses.replace(record, site=settings.site.name) for record in dataset.records if record.site == part
    )
    own = dataclasses.replace(
        dataset, records=records, classes=tuple(sorted({record.label for record in records})), global_site=None
    )
    about_records = {finding.kind for finding in check_dataset(dataset)}
    return own, (*(warning for warning in warnings if warning.kind not in about_records), *check_dataset(own))


def unknown_classes(dataset: ImageDataset, classes: Sequence[str]) -> dict[str, str]:
    """Return {class that the study does not have: the one that may be meant, or ""}."""
    return {
        label: next(iter(difflib.get_close_matches(label, classes, n=1)), "")
        for label in dataset.classes
        if label not in classes
    }


def study_dataset(settings: SiteSettings, study: Study) -> tuple[ImageDataset, tuple[DataWarning, ...]]:
    """Return the hospital's images with the classes of a study, numbered as the study numbers them.

    Raises:
        DataError, ConfigError: The data cannot be used, or hold a class that the study does not have.
    """
    own, warnings = own_dataset(settings)
    unknown = unknown_classes(own, study.classes)
    if unknown:
        label, meant = next(iter(unknown.items()))
        hint = f"; {meant!r} may be meant" if meant else f"; it has {', '.join(study.classes)}"
        raise ConfigError("data", f"the study has no class {label!r}{hint}. Rename the class in your data")
    return dataclasses.replace(own, classes=study.classes), warnings


def own_features(
    folder: SiteFolder,
    settings: SiteSettings,
    study: Study,
    on_progress: Callable[[int, int], None] | None = None,
) -> FeatureBundle:
    """Return the features of the hospital's images, encoded once and kept in its folder.

    Raises:
        DataError, EncoderError, ConfigError: As `study_dataset`; or the encoder is not the one of the study.
    """
    dataset, _ = study_dataset(settings, study)
    options = EncodeOptions(
        class_prompts=dict(zip(study.classes, study.prompts, strict=True)),
        cache_dir=folder.features,
        device=resolve_device(settings.site.device),
    )
    bundle = prepare_features(dataset, settings.site.encoder or study.encoder, options, on_progress)
    check_encoder(study, bundle.encoder_digest, bundle.embed_dim)
    if bundle.prompts != study.prompts:
        raise ConfigError("site.encoder", "the file of features was made with other prompts than the study's")
    return bundle


def check_encoder(study: Study, digest: str, embed_dim: int) -> None:
    """Refuse another encoder than the study's; raises ConfigError."""
    if (digest, embed_dim) != (study.encoder_digest, study.embed_dim):
        raise ConfigError(
            "site.encoder",
            f"the encoder here is {digest[:16]}... (width {embed_dim}), the study has agreed on "
            f"{study.encoder_digest[:16]}... (width {study.embed_dim}); get the same weights as the lead",
        )
