"""Differential privacy at a hospital: what one image or patient can do to a step is bounded, then covered by noise.

docs/privacy.md states the rules; `securefed/privacy` holds a configuration against them before anything is trained.
The names below are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients.privacy.hospital import ContributionSum, PrivateHospital
    from clients.privacy.randomness import Randomness
    from clients.privacy.settings import PrivacySettings

__all__ = [
    "ContributionSum",
    "PrivacySettings",
    "PrivateHospital",
    "Randomness",
]

_HOMES = {
    "ContributionSum": "hospital",
    "PrivacySettings": "settings",
    "PrivateHospital": "hospital",
    "Randomness": "randomness",
}

if not TYPE_CHECKING:  # a type checker is to miss what is not here

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
