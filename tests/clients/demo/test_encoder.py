import hashlib
import json
import socket
from collections import Counter

import pytest

from clients.demo import encoder_dir
from clients.demo.train import CONFIGURATION, MODEL, PREPROCESSING, RECORD, WEIGHTS, EncoderTraining

LIMIT = 4 * 2**20
"""Bytes of the whole folder."""

CHANCE = 1 / 6
MARGIN = 0.2
"""Zero-shot accuracy above chance that docs/demo.md states at least."""


def record():
    return json.loads((encoder_dir() / RECORD).read_text(encoding="utf-8"))


def test_weights_are_those_of_the_record():
    digest = hashlib.sha256((encoder_dir() / WEIGHTS).read_bytes()).hexdigest()
    assert digest == record()["weights_sha256"]


def test_record_and_configuration_are_those_of_the_training_script():
    assert EncoderTraining(**record()["settings"]) == EncoderTraining()
    configuration = json.loads((encoder_dir() / CONFIGURATION).read_text(encoding="utf-8"))
    assert configuration == {"model_cfg": MODEL, "preprocess_cfg": PREPROCESSING}


def test_encoder_is_small_and_was_trained_well_on_its_world():
    assert sum(path.stat().st_size for path in encoder_dir().iterdir() if path.is_file()) < LIMIT
    assert record()["world_accuracy"] > 0.6


def test_encoder_needs_no_network(monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("the encoder asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    import open_clip

    open_clip.create_model(f"local-dir:{encoder_dir()}")
    tokens = open_clip.get_tokenizer(f"local-dir:{encoder_dir()}")(["a picture of a ring lesion"])
    assert tokens.shape == (1, MODEL["text_cfg"]["context_length"])


@pytest.mark.slow
def test_zero_shot_is_above_chance_and_far_from_solved(bundle):
    found = Counter()
    for site in bundle.sites:
        guesses = (site.test.features @ bundle.text_features.T).argmax(axis=1)
        found.update((guesses == site.test.labels).tolist())
    accuracy = found[True] / found.total()
    assert CHANCE + MARGIN < accuracy < 0.75
