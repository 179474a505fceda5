"""What a record calls data of which nothing may be told: a keyed digest in place of the fingerprint.

A fingerprint is a function of all images. Whoever knows all but one could try that one with it, and no noise would
stand in the way.
"""

import hmac
from pathlib import Path

from audit.signing_key import create_secret, load_secret

DATA_KEY = "data.key"
"""Name of the key's file, in the folder of a private simulation and in a hospital's."""


def create_data_key(path: Path) -> None:
    """Draw a key from the system's generator and keep it in a new file of mode 0600.

    Raises:
        KeyFileError: The file exists or cannot be made.
    """
    create_secret(path)


def named_data(path: Path, fingerprint: str, study: str = "") -> str:
    """Return what a record calls data: HMAC-SHA256 (hex) of their fingerprint.

    Whoever is shown the key and the data can check the name; without the key it says nothing about them.

    Args:
        path: File of the key. Secrecy: stays where the data are.
        fingerprint: SHA-256 (hex) of the data.
        study: SHA-256 (hex) of the study: two studies on the same data call them differently. "" outside studies.

    Raises:
        KeyFileError: The key cannot be read, or others may read it.
    """
    return hmac.digest(load_secret(path), f"securefed-data/1\n{study}\n{fingerprint}\n".encode(), "sha256").hex()
