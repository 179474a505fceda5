"""Long-term Ed25519 signing keys in files that only their owner can read."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.durable import sync_folder
from audit.errors import KeyFileError

_SIZE = 32


def create_key(path: Path) -> Ed25519PrivateKey:
    """Draw a key from the system's generator and keep its 32 bytes in a new file of mode 0600.

    Raises:
        KeyFileError: The file exists or cannot be made.
    """
    key = Ed25519PrivateKey.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(key.private_bytes_raw())
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(path, f"cannot be made ({error.strerror}); a key is never overwritten") from error
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Return the key of a file.

    Raises:
        KeyFileError: The file is missing, of another size, or others may read it.
    """
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes()
    except OSError as error:
        raise KeyFileError(path, f"cannot be read ({error.strerror})") from error
    if mode & 0o077:
        raise KeyFileError(path, "may be read by others; restrict it (chmod 600) and consider a new key")
    if len(secret) != _SIZE:
        raise KeyFileError(path, f"holds {len(secret)} bytes, a key has {_SIZE}")
    return Ed25519PrivateKey.from_private_bytes(secret)
