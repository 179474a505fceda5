"""Long-term secrets, above all Ed25519 signing keys, in files that only their owner can read."""

import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.durable import write_new
from audit.errors import KeyFileError
from audit.regular_file import read_regular

_SIZE = 32


def create_secret(path: Path) -> bytes:
    """Draw 32 bytes from the system's generator and keep them in a new file of mode 0600, whole or not at all.

    Raises:
        KeyFileError: The file exists or cannot be made.
    """
    secret = secrets.token_bytes(_SIZE)
    try:
        write_new(path, [secret], 0o600)
    except FileExistsError as error:
        raise KeyFileError(path, f"cannot be made ({error.strerror}); a key is never overwritten") from error
    except OSError as error:
        raise KeyFileError(path, f"cannot be made ({error.strerror}); put that right and do it again") from error
    return secret


def load_secret(path: Path) -> bytes:
    """Return the 32 bytes of a file.

    Raises:
        KeyFileError: The file is missing, of another size, or others may read it.
    """
    try:
        mode = path.stat().st_mode
        secret = read_regular(path)
    except OSError as error:
        raise KeyFileError(path, f"cannot be read ({error.strerror})") from error
    if mode & 0o077:
        raise KeyFileError(path, "may be read by others; restrict it (chmod 600) and consider a new key")
    if len(secret) != _SIZE:
        raise KeyFileError(
            path,
            f"holds {len(secret)} bytes, a key has {_SIZE}: its making was cut off, or it was damaged; put a backup of "
            "it back, or delete it and make a new one",
        )
    return secret


def create_key(path: Path) -> Ed25519PrivateKey:
    """Make a signing key in a new file; errors are those of `create_secret`."""
    return Ed25519PrivateKey.from_private_bytes(create_secret(path))


def load_key(path: Path) -> Ed25519PrivateKey:
    """Return the signing key of a file; errors are those of `load_secret`."""
    return Ed25519PrivateKey.from_private_bytes(load_secret(path))
