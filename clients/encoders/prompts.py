"""Class names as sentences."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clients.encoders.errors import UnknownClassError
from clients.encoders.options import EncodeOptions


def class_prompts(classes: Sequence[str], options: EncodeOptions) -> tuple[tuple[str, ...], ...]:
    """Return the prompts of every class: its own ones, else the templates with its name in words.

    Underscores and hyphens of a name are shown as blanks: `basal_cell_carcinoma` becomes
    "a picture of a basal cell carcinoma".

    Raises:
        UnknownClassError: `options.class_prompts` has a class that is not in `classes`.
    """
    unknown = sorted(set(options.class_prompts) - set(classes))
    if unknown:
        raise UnknownClassError(unknown[0], classes)
    prompts = []
    for label in classes:
        words = " ".join(label.replace("_", " ").replace("-", " ").split())
        own = options.class_prompts.get(label)
        prompts.append(tuple(own) if own else tuple(text.replace("{class}", words) for text in options.templates))
    return tuple(prompts)


def average_prompts(features: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Average the features of each class's prompts and normalise.

    Args:
        features: For every class float32[P, D], its prompts' normalised features (P may differ between classes).

    Returns:
        float32[C, D], rows of norm 1.
    """
    rows = [prompts[0] if len(prompts) == 1 else prompts.mean(axis=0, dtype=np.float64) for prompts in features]
    stacked = np.stack([row / np.linalg.norm(row.astype(np.float64)) for row in rows])
    return stacked.astype(np.float32)
