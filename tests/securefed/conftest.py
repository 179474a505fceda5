"""A small federation on features: no images, no encoder, a few seconds."""

import hashlib

import numpy as np
import pytest

from clients.encoders import FeatureBundle, LabelledFeatures, SiteFeatures, export_features
from securefed.config import config_from_mapping

CLASSES = ("oak", "pine", "willow")
WIDTH = 24


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def labelled(rng, centres, shift, site, split, count):
    labels = rng.integers(0, len(CLASSES), count)
    features = unit(centres[labels] + 1.6 * rng.normal(size=(count, centres.shape[1])) + shift)
    paths = tuple(f"{site}/{split}/{index}" for index in range(count))
    digests = tuple(hashlib.sha256(path.encode()).hexdigest() for path in paths)
    return LabelledFeatures(features, labels.astype(np.int64), paths, digests)


def bundle(sites=5, train=40, width=WIDTH):
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(len(CLASSES), width))
    made = []
    for number in range(sites):
        site, shift = f"site{number}", 0.3 * rng.normal(size=width)
        splits = {
            split: labelled(rng, centres, shift, site, split, count)
            for split, count in (("train", train), ("val", 15), ("test", 20))
        }
        made.append(SiteFeatures(site, **splits))
    return FeatureBundle(
        classes=CLASSES,
        prompts=tuple((f"a picture of a {name}",) for name in CLASSES),
        embed_dim=width,
        text_features=unit(centres + 3.0 * rng.normal(size=centres.shape)),
        logit_scale=50.0,
        sites=tuple(made),
        global_site=None,
        encoder_name="test",
        encoder_digest="0" * 64,
        data_fingerprint="0" * 64,
        images_encoded=0,
        cache_hits=0,
        encode_seconds=0.0,
    )


@pytest.fixture(autouse=True)
def _plots_only_where_asked(request, monkeypatch):
    """Drawing takes longer than these small runs; a test that wants plots is marked `draws`."""
    if "draws" not in request.keywords:
        monkeypatch.setattr("securefed.outcome.draw_plots", lambda *_: None)


@pytest.fixture(scope="session")
def features_file(tmp_path_factory):
    """Five sites, three classes, 24-d features."""
    path = tmp_path_factory.mktemp("features") / "five.safetensors"
    export_features(bundle(), path)
    return path


@pytest.fixture
def small_run(features_file):
    """A configuration as a nested mapping; 3 rounds."""

    def make(**sections):
        tree = {
            "data": {"source": f"features:{features_file}"},
            "encoder": {"name": f"features:{features_file}"},
            "federation": {"rounds": 3, "device": "cpu"},
        }
        for section, values in sections.items():
            tree.setdefault(section, {}).update(values)
        return config_from_mapping(tree)

    return make


@pytest.fixture
def noise_in_shares(small_run):
    """A configuration of a run whose hospitals add noise in shares, by its privacy settings; 3 rounds."""

    def make(mode="distributed", rounds=3, **privacy):
        sections = {key: privacy.pop(key) for key in ("simulation", "secure_aggregation") if key in privacy}
        given = {"mode": mode, **({} if "noise_multiplier" in privacy else {"epsilon": 8.0}), **privacy}
        return small_run(
            privacy=given, federation={"rounds": rounds, "device": "cpu"}, training={"fam_width": 4}, **sections
        )

    return make


@pytest.fixture
def sweep_file(features_file, tmp_path):
    def make(grid, more=""):
        path = tmp_path / "grid.toml"
        path.write_text(
            f'[data]\nsource = "features:{features_file}"\n[encoder]\nname = "features:{features_file}"\n'
            f'[federation]\nrounds = 2\ndevice = "cpu"\n{more}\n[grid]\n{grid}\n'
        )
        return path

    return make
