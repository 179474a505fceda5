import pytest

from clients.demo import load_demo_dataset
from clients.encoders import EncodeOptions, prepare_features


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    dataset, _ = load_demo_dataset()
    options = EncodeOptions(cache_dir=tmp_path_factory.mktemp("cache"), workers=0, device="cpu")
    return prepare_features(dataset, "demo", options)
