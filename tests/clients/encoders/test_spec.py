"""What names of encoders mean."""

from pathlib import Path

import pytest

from clients.encoders import EncoderError, InvalidEncoderError, UnknownEncoderError
from clients.encoders.spec import parse_encoder


def test_a_model_and_its_weights():
    spec = parse_encoder("ViT-B-32/openai")
    assert (spec.kind, spec.model, spec.pretrained, spec.path) == ("pretrained", "ViT-B-32", "openai", None)


def test_a_model_of_the_hub():
    spec = parse_encoder("hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224")
    assert spec.kind == "hub"
    assert spec.model == "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"


def test_folders_and_files(encoder_folder, tmp_path):
    assert parse_encoder(f"local-dir:{encoder_folder}").path == encoder_folder
    (tmp_path / "f.npz").write_bytes(b"")
    spec = parse_encoder(f"features:{tmp_path / 'f.npz'}")
    assert (spec.kind, spec.path) == ("features", tmp_path / "f.npz")


def test_demo_is_a_folder(monkeypatch, encoder_folder):
    import clients.demo

    monkeypatch.setattr(clients.demo, "encoder_dir", lambda: encoder_folder)
    spec = parse_encoder("demo")
    assert (spec.kind, spec.path, spec.text) == ("folder", Path(encoder_folder), "demo")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("ViT-B32/openai", "ViT-B-32"),
        ("vit-b-32/openai", "ViT-B-32"),
        ("ViT-B-32", "ViT-B-32/openai"),
        ("ViT-B-32/opnai", "ViT-B-32/openai"),
        ("RN50/laion2b", "RN50/openai"),
    ],
)
def test_near_matches_are_listed(name, match):
    with pytest.raises(UnknownEncoderError, match="did you mean") as caught:
        parse_encoder(name)
    assert match in caught.value.matches


@pytest.mark.parametrize("name", ["", "nonsense", "local-dir:", "features:", "hf-hub:onlyname", "hf-hub:a/b/c"])
def test_other_names_are_refused_with_the_forms_there_are(name):
    with pytest.raises(UnknownEncoderError, match=r"hf-hub:ORG/NAME"):
        parse_encoder(name)


def test_what_is_not_there_is_refused(tmp_path):
    for name in (f"local-dir:{tmp_path / 'no'}", f"local-dir:{tmp_path}", f"features:{tmp_path / 'no.npz'}"):
        with pytest.raises(InvalidEncoderError) as caught:
            parse_encoder(name)
        assert isinstance(caught.value, EncoderError)
        assert "\n" not in str(caught.value)
