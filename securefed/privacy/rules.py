"""What a configuration may not combine with differential privacy; refused before anything is trained."""

from securefed.config import RunConfig
from securefed.errors import ConfigError

WIRED = ("off",)
"""Modes that this version can run."""


def check_privacy(config: RunConfig) -> None:
    """Refuse a configuration whose claim would not hold.

    Raises:
        ConfigError: The first key that cannot be.
    """
    mode = config.privacy.mode
    if mode not in WIRED:
        raise ConfigError("privacy.mode", f"{mode} is not available in this version; use {', '.join(WIRED)}")
