"""Train, validation and test: read as given, or derived from the patient."""

import hashlib

from clients.data.dataset import SPLITS

_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_name(text: str) -> str | None:
    """Return the split that `text` names (train, val, valid, validation, test, ..., any case); None for none."""
    return _ALIASES.get(text.strip().lower())


def split_by_hash(unit: str, shares: tuple[float, float, float], seed: int = 0) -> str:
    """Return the split of a patient (or of an image where patients are unknown).

    The same unit gets the same split on every machine, at every site and in every order of files.

    Args:
        unit: Identifier of the patient.
        shares: Shares of train, val and test, sum 1.
        seed: Chooses another division.

    Format: the first 8 bytes of SHA-256(`securefed/split/v1/<seed>/` + unit), big endian, divided by 2**64, are
    compared with the cumulative shares.
    """
    digest = hashlib.sha256(f"securefed/split/v1/{seed}/{unit}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < shares[0]:
        return SPLITS[0]
    return SPLITS[1] if position < shares[0] + shares[1] else SPLITS[2]
