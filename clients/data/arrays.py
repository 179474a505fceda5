"""NumPy .npz files from people we do not know."""

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.errors import SourceFormatError

_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    SyntaxError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What zipfile and NumPy raise on bytes that are no .npz file, found by fuzzing."""


def read_npz(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file whose names are `wanted`; pickled objects are never loaded.

    Raises:
        SourceFormatError: It is not such a file, is damaged, or has an array of objects.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise SourceFormatError(path, "is not an .npz file")
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files if wanted(name)}
    except _DAMAGED as error:
        raise SourceFormatError(path, f"is not a readable .npz file ({' '.join(str(error).split())[:120]})") from error
