"""The small CLIP of the demo in the local-folder format of open_clip: configuration, weights, training record."""

from pathlib import Path


def encoder_dir() -> Path:
    """Return the folder to load the encoder from, as `local-dir:FOLDER`."""
    return Path(__file__).resolve().parent
