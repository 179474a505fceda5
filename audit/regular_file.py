"""Files that others may have prepared: only regular ones are read, and JSON in them cannot exhaust the interpreter."""

import errno
import json
from pathlib import Path
from typing import Any

_SHOWN = 80
"""Characters of a foreign value in a message."""


def read_regular(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: It cannot be read, or is a pipe, a device or a folder: reading one could wait for ever.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def parse_json(content: bytes | str) -> Any:
    """Return the value of JSON.

    Raises:
        ValueError: It is none, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def shown(value: object) -> str:
    """Return a foreign value for a message: ASCII, on one line, and short."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
