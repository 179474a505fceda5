"""Where the real data sets and the encoder are that some tests and benchmarks use (docs/data.md names them)."""

import os
from pathlib import Path

import pytest

_DEVELOPERS_DEFAULT = Path(__file__).resolve().parents[1].parent / "shared"
"""The one place that knows where the developers keep them; users set the environment variables."""


def data_root() -> Path:
    """Return the folder of data sets (environment: SECUREFED_TEST_DATA)."""
    return Path(os.environ.get("SECUREFED_TEST_DATA", _DEVELOPERS_DEFAULT / "data"))


def model_root() -> Path:
    """Return the folder of encoders (environment: SECUREFED_TEST_MODELS)."""
    return Path(os.environ.get("SECUREFED_TEST_MODELS", _DEVELOPERS_DEFAULT / "models"))


def require(path: Path) -> Path:
    """Return `path`; if it is absent skip the calling test, or fail it where CI=true."""
    if path.exists():
        return path
    reason = f"{path.name} is not on this machine (docs/data.md says how to obtain it)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def ham10000() -> Path:
    """Return the folder of HAM10000, 4 acquisition sites."""
    return require(data_root() / "ham10000_4sites")


def brain_tumor() -> Path:
    """Return the folder of the brain tumour MRI set, 3 scan planes."""
    return require(data_root() / "brain_tumor_cheng_3views")


def mobilenet_lit() -> Path:
    """Return the folder of the small pretrained encoder mobilenet-lit-512."""
    return require(model_root() / "mobilenet-lit-512")
