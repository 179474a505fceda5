"""What a hospital trains: the shared feature adaptation module (FAM), its private MLP, and how they teach each other.

The names below are loaded on first use: `settings` is free of torch, so that a configuration can be checked without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients.method.hospital import Hospital
    from clients.method.layout import initial_vector, vector_layout
    from clients.method.settings import AGGREGATED_METHODS, METHODS, SettingsError, TrainingSettings
    from clients.method.stored import predict_stored

__all__ = [
    "AGGREGATED_METHODS",
    "METHODS",
    "Hospital",
    "SettingsError",
    "TrainingSettings",
    "initial_vector",
    "predict_stored",
    "vector_layout",
]

_HOMES = {
    "Hospital": "hospital",
    "initial_vector": "layout",
    "predict_stored": "stored",
    "vector_layout": "layout",
}

if not TYPE_CHECKING:  # a type checker is to miss what is not here

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'settings')}"), name)
