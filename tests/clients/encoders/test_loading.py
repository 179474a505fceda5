"""Loading with open_clip: digests, and everything that can be wrong with the files."""

import hashlib
import json
import os
import subprocess
import sys

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clients.encoders import InvalidEncoderError, WeightsMissingError, weights
from clients.encoders.frozen import FrozenEncoder
from clients.encoders.loading import choose_compute, load_encoder, weights_digest
from clients.encoders.spec import EncoderSpec, parse_encoder

CPU = choose_compute("cpu", "auto")


def load(name):
    return load_encoder(parse_encoder(name), CPU)


class Pair(nn.Module):
    def __init__(self, names):
        super().__init__()
        for name in names:
            self.register_buffer(name, torch.full((2,), float(ord(name))))


def test_the_digest_of_weights_does_not_depend_on_their_order():
    assert weights_digest(Pair("ab")) == weights_digest(Pair("ba"))
    assert weights_digest(Pair("ab")) != weights_digest(Pair("ac"))
    renamed = Pair("ab")
    renamed.a, renamed.b = renamed.b, renamed.a
    assert weights_digest(renamed) != weights_digest(Pair("ab"))


def test_the_digest_of_weights_is_as_described():
    expected = b""
    for part in (b"a", b"torch.float32", b"(2,)", torch.full((2,), 97.0).numpy().tobytes()):
        expected += len(part).to_bytes(8, "big") + part
    assert weights_digest(Pair("a")) == hashlib.sha256(expected).hexdigest()


def test_the_digest_of_an_encoder_covers_weights_configuration_and_preprocessing(make_encoder):
    first, other = make_encoder(0), make_encoder(1)
    digests = {load(f"local-dir:{first}").card.digest, load(f"local-dir:{other}").card.digest}
    configuration = json.loads((first / "open_clip_config.json").read_text())
    configuration["preprocess_cfg"]["mean"] = [0.4, 0.5, 0.5]
    (first / "open_clip_config.json").write_text(json.dumps(configuration))
    digests.add(load(f"local-dir:{first}").card.digest)
    assert len(digests) == 3
    copy = make_encoder(1)
    assert load(f"local-dir:{copy}").card.digest in digests


def test_a_device_without_memory_is_no_damaged_encoder(make_encoder, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FrozenEncoder, "__init__", full)
    with pytest.raises(torch.OutOfMemoryError):
        load(f"local-dir:{make_encoder(2)}")


def test_damaged_folders_are_named_errors(make_encoder):
    folder = make_encoder(2)
    name = f"local-dir:{folder}"
    weights_file, configuration = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    good, text = weights_file.read_bytes(), configuration.read_text()
    weights_file.write_bytes(good[: len(good) // 2])
    with pytest.raises(InvalidEncoderError, match="cannot be loaded"):
        load(name)
    state = load_file_of(good, folder)
    state.pop("logit_scale")
    save_file(state, weights_file)
    with pytest.raises(InvalidEncoderError, match="logit_scale"):
        load(name)
    weights_file.unlink()
    with pytest.raises(InvalidEncoderError, match="no weights"):
        load(name)
    weights_file.write_bytes(good)
    for broken in ("{", "{}", '{"model_cfg": {"embed_dim": 16}}', text.replace("test_efficientnet", "no_such_tower")):
        configuration.write_text(broken)
        with pytest.raises(InvalidEncoderError) as caught:
            load(name)
        assert "\n" not in str(caught.value)


def load_file_of(content, folder):
    path = folder / "copy.tmp"
    path.write_bytes(content)
    state = load_file(path)
    path.unlink()
    return state


def test_pickled_weights_that_run_code_are_refused(make_encoder, tmp_path):
    folder = make_encoder(3)
    (folder / "open_clip_model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"state_dict": Evil()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(InvalidEncoderError):
        load(f"local-dir:{folder}")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def tagged(monkeypatch, make_encoder, tmp_path):
    """A model `Tiny-CLIP` with weights `mine`, trained with QuickGELU and another mean, as if downloaded before."""
    folder = make_encoder(4)
    architecture = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "Tiny-CLIP.json").write_text(json.dumps(architecture))
    open_clip.add_model_config(tmp_path / "Tiny-CLIP.json")
    tag = {
        "url": "",
        "hf_hub": "somebody/tiny/weights.bin",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.5, 0.6, 0.7),
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "quick_gelu": True,
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-CLIP", {"mine": tag})
    yield folder / "open_clip_model.safetensors"
    open_clip.factory._MODEL_CONFIGS.pop("Tiny-CLIP")
    open_clip.factory._MODEL_CONFIG_PATHS.remove(tmp_path / "Tiny-CLIP.json")


def test_weights_by_tag_come_with_their_preprocessing_and_activation(tagged, monkeypatch):
    monkeypatch.setattr(weights, "_cached_on_hub", lambda repository, names: tagged)
    encoder = load("Tiny-CLIP/mine")
    preprocessing = encoder._model.visual.preprocess_cfg
    assert tuple(preprocessing["mean"]) == (0.1, 0.2, 0.3)
    assert tuple(preprocessing["std"]) == (0.5, 0.6, 0.7)
    assert (preprocessing["interpolation"], preprocessing["resize_mode"]) == ("bilinear", "squash")
    assert any(type(module).__name__ == "QuickGELU" for module in encoder._model.modules())


def test_the_hub_is_asked_for_the_safe_format_first(tagged, monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "_cached_on_hub", lambda repository, names: asked.append((repository, names)))
    weights.local_files(parse_encoder("Tiny-CLIP/mine"))
    weights.local_files(EncoderSpec("hf-hub:a/b", "hub", "hf-hub:a/b"))
    assert asked[0] == ("somebody/tiny", ("weights.safetensors", "weights.bin"))
    assert asked[1] == ("a/b", ("open_clip_config.json",))


@pytest.mark.parametrize("name", ["Tiny-CLIP/mine", "hf-hub:somebody/tiny"])
def test_without_weights_and_network_the_ways_out_are_named(tagged, monkeypatch, name, tmp_path):
    monkeypatch.setattr(weights, "_cached_on_hub", lambda repository, names: None)
    monkeypatch.setattr(weights, "_network_answers", lambda spec: False)
    with pytest.raises(WeightsMissingError) as caught:
        load(name)
    message = str(caught.value)
    for option in ("hf download somebody/tiny", "local-dir:PATH", "features:PATH", "HF_HOME"):
        assert option in message
    assert "\n" not in message


OFFLINE = """
import sys
from clients.encoders import WeightsMissingError, encode_classes
try:
    encode_classes(("a", "b"), sys.argv[1])
except WeightsMissingError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("name", ["ViT-B-32/openai", "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"])
def test_offline_the_error_comes_at_once_and_without_a_trace(name, tmp_path):
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "SECUREFED_CACHE": str(tmp_path / "c"),
    }
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, name], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 7, done.stderr
    assert "HF_HUB_OFFLINE" in done.stdout
    assert "hf download" in done.stdout
    assert str(tmp_path) in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
