import json
import sys

import open_clip
import pytest
import torch
from torch.nn import functional as F

from clients.demo import train as training
from clients.demo.train import EncoderTraining, as_input, build_model, contrastive_loss, draw_batch, save, train

QUICK = EncoderTraining(steps=2, batch_size=6)


def features(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 8, generator=generator), dim=-1)


def test_loss_is_that_of_clip_where_all_sentences_differ():
    images, texts, scale = features(0, 5), features(1, 5), torch.tensor(7.0)
    expected = open_clip.ClipLoss()(images, texts, scale)
    assert torch.allclose(contrastive_loss(images, texts, scale, torch.eye(5)), expected)


def test_pairs_with_the_same_sentence_are_no_negatives():
    images = torch.eye(2)[[0, 0, 1]]
    texts = images.clone()
    sharp = torch.tensor(200.0)
    same = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert contrastive_loss(images, texts, sharp, same).item() == pytest.approx(2 / 3 * 0.6931, abs=1e-3)
    assert contrastive_loss(images, texts[[2, 0, 1]], sharp, same).item() > 50.0


def test_training_is_determined_by_its_settings():
    first, second = train(QUICK, report=False), train(QUICK, report=False)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = build_model(1)
    assert not torch.equal(build_model(0).text_projection, other.text_projection)


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_model(0)
    assert torch.equal(torch.rand(1), expected)


def test_training_and_held_out_pictures_differ():
    trained, held_out = draw_batch("train", 0, 0, 4, 0.5), draw_batch("held out", 0, 0, 4, 0.5)
    assert all((one.picture != other.picture).any() for one, other in zip(trained, held_out, strict=True))


def test_saved_encoder_loads_in_open_clip(tmp_path):
    model = train(QUICK, report=False)
    save(model, tmp_path, QUICK, 1.0)
    loaded = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    scenes = draw_batch("held out", 0, 0, 3, 0.5)
    images = as_input([scene.picture for scene in scenes])
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")([scene.sentence for scene in scenes])
    with torch.no_grad():
        assert torch.allclose(loaded.encode_image(images), model.encode_image(images), atol=1e-4)
        assert torch.allclose(loaded.encode_text(tokens), model.encode_text(tokens), atol=1e-4)
    assert json.loads((tmp_path / training.RECORD).read_text())["settings"]["steps"] == 2


def test_command_trains_into_a_folder(tmp_path, monkeypatch, capsys):
    target = tmp_path / "encoder"
    monkeypatch.setattr(sys, "argv", ["train", str(target), "--steps", "2", "--batch-size", "4"])
    monkeypatch.setattr(training, "world_accuracy", lambda model, settings: 0.5)
    threads = torch.get_num_threads()
    try:
        training.main()
    finally:
        torch.set_num_threads(threads)
    assert {path.name for path in target.iterdir()} == {training.WEIGHTS, training.CONFIGURATION, training.RECORD}
    assert "step 0 of 2" in capsys.readouterr().err
