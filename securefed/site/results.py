"""What a hospital has kept of a run of a deployment, to be evaluated again: where its data are, and its features."""

import dataclasses
from pathlib import Path
from typing import Any

from securefed.config import RunConfig
from securefed.errors import ConfigError
from securefed.run_folder import RunFolder
from securefed.site.folder import SiteFolder
from securefed.site.settings import SiteSettings, read_settings
from securefed.study.form import EACH_ITS_OWN


def kept_settings(folder: RunFolder) -> SiteSettings | None:
    """Return the site.toml with which a hospital ran; None for the folder of a whole run.

    Raises:
        ConfigError: It is damaged; names the key.
    """
    return read_settings(folder.hospital) if folder.hospital.exists() else None


def places(settings: SiteSettings | None) -> dict[str, Any]:
    """Return {dotted key: value} of what the configuration of a deployment leaves to the hospital: data, encoder."""
    if settings is None:
        return {}
    data = {f"data.{key}": value for key, value in dataclasses.asdict(settings.data).items()}
    return data | ({"encoder.name": settings.site.encoder} if settings.site.encoder else {})


def require_place(config: RunConfig) -> None:
    """Refuse the configuration of a deployment without a hospital's data; raises ConfigError."""
    if config.data.source == EACH_ITS_OWN:
        raise ConfigError(
            "data.source",
            "the data of a deployment lie at its hospitals, and where is not written here (hospital.toml, which nodes "
            "of earlier versions did not keep); name the data of this hospital with --data",
        )


def features_of(folder: RunFolder) -> Path | None:
    """Return the cache of features in the hospital's folder to which results belong; None where they lie elsewhere."""
    results = folder.path.resolve().parent
    home = SiteFolder(results.parent)
    return home.features if home.runs == results and home.settings.is_file() else None
