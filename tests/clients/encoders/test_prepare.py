"""From a data set to features: once, the same every time, whatever was cached before."""

import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clients.data import SPLITS, BrokenImageError, DataOptions, EmptyDataError, fingerprint, load_dataset
from clients.encoders import FeatureCacheError, prepare_features, session
from clients.encoders.decoding import choose_workers


def all_rows(bundle):
    return {
        path: row
        for site in bundle.all_sites()
        for split in SPLITS
        for path, row in zip(site.split(split).paths, site.split(split).features, strict=True)
    }


def same(first, second):
    a, b = all_rows(first), all_rows(second)
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


@pytest.fixture
def no_loading(monkeypatch):
    """Make loading an encoder fail: what comes then, comes from the cache."""

    def forbid():
        def load_encoder(*_):
            raise AssertionError("the encoder was loaded")

        monkeypatch.setattr(session, "load_encoder", load_encoder)

    return forbid


def test_what_a_bundle_says(dataset, encoder, options):
    bundle = prepare_features(dataset, encoder, options)
    assert bundle.classes == ("big_cat", "dog")
    assert bundle.prompts == (("a picture of a big cat",), ("a picture of a dog",))
    assert bundle.text_features.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(bundle.text_features, axis=1), 1, atol=1e-6)
    assert [site.site for site in bundle.sites] == ["north", "south"]
    assert bundle.global_site is None
    assert bundle.embed_dim == 16
    assert bundle.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert (bundle.images_encoded, bundle.cache_hits) == (22, 0)
    assert bundle.encoder_name == encoder
    assert bundle.data_fingerprint == fingerprint(dataset)
    assert bundle.warnings == ()
    for site in bundle.sites:
        for split in SPLITS:
            rows = site.split(split)
            records = dataset.select(site.site, split)
            assert rows.paths == tuple(record.path for record in records)
            assert rows.digests == tuple(record.digest for record in records)
            assert rows.labels.tolist() == [dataset.class_index[record.label] for record in records]
            assert rows.features.shape == (len(records), 16)
            assert rows.features.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(rows.features, axis=1), 1, atol=1e-6)
            assert rows.class_counts(2).tolist() == list(dataset.class_counts(site.site, split).values())


def test_a_feature_is_what_the_plain_encoder_computes(dataset, encoder, options):
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(encoder)
    model.eval()
    bundle = prepare_features(dataset, encoder, options)
    for path, row in list(all_rows(bundle).items())[:3]:
        with torch.no_grad():
            plain = model.encode_image(preprocess(Image.open(dataset.root / path))[None])[0].numpy()
        np.testing.assert_allclose(row, plain / np.linalg.norm(plain), atol=1e-5)


def test_a_second_run_encodes_nothing_and_loads_no_encoder(dataset, encoder, options, no_loading):
    first = prepare_features(dataset, encoder, options)
    no_loading()
    seen = []
    second = prepare_features(dataset, encoder, options, lambda done, total: seen.append((done, total)))
    assert (second.images_encoded, second.cache_hits) == (0, 22)
    assert seen == []
    assert same(first, second)
    assert np.array_equal(first.text_features, second.text_features)
    assert (first.encoder_digest, first.logit_scale) == (second.encoder_digest, second.logit_scale)


def test_the_cache_belongs_to_the_content_and_not_to_names(
    dataset, encoder, options, image_folder, tmp_path, no_loading
):
    prepare_features(dataset, encoder, options)
    no_loading()
    shutil.move(image_folder, tmp_path / "moved")
    (tmp_path / "moved" / "north" / "dog" / "0.png").rename(tmp_path / "moved" / "north" / "dog" / "renamed.png")
    moved, _ = load_dataset(str(tmp_path / "moved"))
    assert prepare_features(moved, encoder, options).images_encoded == 0


def test_a_repetition_from_nothing_gives_every_bit_again(dataset, encoder, options, tmp_path):
    first = prepare_features(dataset, encoder, options)
    reordered = replace(dataset, records=dataset.records[::-1])
    again = prepare_features(reordered, encoder, replace(options, cache_dir=tmp_path / "other"))
    assert again.images_encoded == 22
    assert same(first, again)


def test_features_do_not_depend_on_what_was_cached_before(dataset, encoder, options, tmp_path):
    whole = prepare_features(dataset, encoder, options)
    elsewhere = replace(options, cache_dir=tmp_path / "other")
    for size in (1, 5, 7, 22):
        part = replace(dataset, records=dataset.records[:size])
        prepare_features(part, encoder, elsewhere)
    for path, row in all_rows(prepare_features(dataset, encoder, elsewhere)).items():
        np.testing.assert_allclose(row, all_rows(whole)[path], atol=2e-6)  # bit-equal on the machines that were tried


def test_features_hardly_depend_on_batches_and_not_at_all_on_workers(dataset, encoder, options, tmp_path):
    whole = prepare_features(dataset, encoder, options)
    for name, changes in (("a", {"batch_size": 22}), ("b", {"batch_size": 1}), ("c", {"batch_size": 0})):
        other = prepare_features(dataset, encoder, replace(options, cache_dir=tmp_path / name, **changes))
        for path, row in all_rows(other).items():
            np.testing.assert_allclose(row, all_rows(whole)[path], atol=2e-6)


def test_worker_processes_give_the_same(dataset, encoder, options, tmp_path, monkeypatch):
    from clients.encoders import decoding

    whole = prepare_features(dataset, encoder, options)
    monkeypatch.setattr(decoding, "_FEW_IMAGES", 0)
    other = prepare_features(dataset, encoder, replace(options, cache_dir=tmp_path / "w", workers=2))
    assert same(other, whole)


def test_a_changed_image_and_a_new_one_are_encoded(dataset, encoder, options, image_folder):
    prepare_features(dataset, encoder, options)
    Image.new("RGB", (40, 40), (200, 10, 10)).save(image_folder / "north" / "dog" / "0.png")
    Image.new("RGB", (40, 40), (10, 10, 200)).save(image_folder / "north" / "dog" / "new.png")
    changed, _ = load_dataset(str(image_folder))
    bundle = prepare_features(changed, encoder, options)
    assert (bundle.images_encoded, bundle.cache_hits) == (2, 21)


def test_other_weights_and_other_preprocessing_are_encoded_again(dataset, make_encoder, options):
    folder = make_encoder(5)
    first = prepare_features(dataset, f"local-dir:{folder}", options)
    configuration = folder / "open_clip_config.json"
    configuration.write_text(configuration.read_text().replace("bicubic", "bilinear"))
    second = prepare_features(dataset, f"local-dir:{folder}", options)
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes((make_encoder(6) / "open_clip_model.safetensors").read_bytes())
    third = prepare_features(dataset, f"local-dir:{folder}", options)
    assert second.images_encoded == third.images_encoded == 22
    assert len({first.encoder_digest, second.encoder_digest, third.encoder_digest}) == 3
    assert not same(first, second)


def test_the_same_encoder_elsewhere_shares_the_cache(dataset, encoder, encoder_folder, options, tmp_path):
    first = prepare_features(dataset, encoder, options)
    shutil.copytree(encoder_folder, tmp_path / "copy")
    second = prepare_features(dataset, f"local-dir:{tmp_path / 'copy'}", options)
    assert second.images_encoded == 0
    assert second.encoder_digest == first.encoder_digest


def test_damaged_entries_are_computed_again_and_reported(dataset, encoder, options):
    first = prepare_features(dataset, encoder, options)
    for path in options.cache_dir.glob("features/*/*.safetensors"):
        content = bytearray(path.read_bytes())
        if len(content) > 1500:
            content[-700] ^= 1
            path.write_bytes(bytes(content))
    second = prepare_features(dataset, encoder, options)
    assert 1 <= second.images_encoded < 22
    assert [warning.kind for warning in second.warnings] == ["damaged_cache"]
    assert same(first, second)
    third = prepare_features(dataset, encoder, options)
    assert (third.images_encoded, third.warnings) == (0, ())


def test_the_global_site_is_apart_and_all_test(image_folder, encoder, options):
    dataset, _ = load_dataset(str(image_folder), DataOptions(global_site="south"))
    bundle = prepare_features(dataset, encoder, options)
    assert [site.site for site in bundle.sites] == ["north"]
    assert bundle.global_site.site == "south"
    assert [len(bundle.global_site.split(split)) for split in SPLITS] == [0, 0, 8]
    assert bundle.global_site.train.features.shape == (0, 16)
    assert bundle.all_sites()[-1] is bundle.global_site


def test_classes_with_the_same_prompts_are_a_finding(dataset, encoder, options):
    (dataset.root / "south" / "dog").rename(dataset.root / "south" / "big-cat")
    bundle = prepare_features(load_dataset(str(dataset.root))[0], encoder, options)
    assert [(item.kind, item.examples) for item in bundle.warnings] == [("same_prompts", ("big-cat", "big_cat"))]
    assert np.array_equal(bundle.text_features[0], bundle.text_features[1])
    assert prepare_features(dataset, encoder, options).warnings == ()


class Unreadable:
    """Images of a folder, some of which cannot be decoded although their headers were fine."""

    def __init__(self, source, broken):
        self.source = source
        self.broken = broken

    def load(self, path):
        if path in self.broken:
            raise BrokenImageError(path, "it breaks off")
        return self.source.load(path)


def test_an_image_that_breaks_when_decoded_is_left_out_counted_or_refused(dataset, encoder, options):
    broken = ("north/dog/0.png", "south/dog/1.png")
    partly = replace(dataset, source=Unreadable(dataset.source, broken))
    bundle = prepare_features(partly, encoder, options)
    assert bundle.images_encoded == 20
    assert bundle.warnings[0].kind == "broken_image"
    assert bundle.warnings[0].examples == broken
    assert bundle.warnings[0].detail == "2 of them: it breaks off; for example north/dog/0.png"
    assert "breaks off" not in bundle.warnings[0].message
    assert not set(broken) & set(all_rows(bundle))
    assert bundle.data_fingerprint != fingerprint(dataset)
    with pytest.raises(BrokenImageError, match="breaks off"):
        prepare_features(partly, encoder, replace(options, strict=True))
    nothing = replace(dataset, source=Unreadable(dataset.source, tuple(r.path for r in dataset.records)))
    with pytest.raises(EmptyDataError):
        prepare_features(nothing, encoder, replace(options, cache_dir=options.cache_dir / "fresh"))


def test_an_image_that_was_replaced_after_it_was_read_is_left_out_and_not_cached(dataset, encoder, options):
    path = dataset.root / "north" / "dog" / "0.png"
    content = path.read_bytes()
    path.write_bytes((dataset.root / "north" / "dog" / "1.png").read_bytes())
    bundle = prepare_features(dataset, encoder, options)
    assert bundle.images_encoded == 21
    assert (bundle.warnings[0].kind, bundle.warnings[0].examples) == ("broken_image", ("north/dog/0.png",))
    assert "another image has taken its place since the data set was read; run again" in bundle.warnings[0].message
    path.write_bytes(content)
    again = prepare_features(dataset, encoder, options)
    assert (again.images_encoded, again.cache_hits, again.warnings) == (1, 21, ())
    alone = prepare_features(dataset, encoder, replace(options, cache_dir=options.cache_dir / "fresh"))
    np.testing.assert_allclose(all_rows(again)["north/dog/0.png"], all_rows(alone)["north/dog/0.png"], atol=1e-5)


@pytest.mark.parametrize("held_out", [None, "south"])
def test_a_site_does_not_vanish_with_its_images(dataset, encoder, options, held_out):
    broken = tuple(record.path for record in dataset.select("south"))
    without = replace(dataset, source=Unreadable(dataset.source, broken), global_site=held_out)
    with pytest.raises(EmptyDataError, match="no image of south can be decoded; repair") as caught:
        prepare_features(without, encoder, options)
    assert caught.value.detail == f"{len(broken)} of them: it breaks off; for example {min(broken)}"


def test_what_was_encoded_before_an_interruption_is_kept(dataset, encoder, options):
    def stop(done, total):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_features(dataset, encoder, options, stop)
    bundle = prepare_features(dataset, encoder, options)
    assert (bundle.images_encoded, bundle.cache_hits) == (14, 8)


def test_progress_counts_every_image(dataset, encoder, options):
    seen = []
    prepare_features(dataset, encoder, options, lambda done, total: seen.append((done, total)))
    assert seen == [(4, 22), (8, 22), (12, 22), (16, 22), (20, 22), (22, 22)]


def test_copies_of_an_image_are_encoded_once(image_folder, encoder, options):
    shutil.copy(image_folder / "north" / "dog" / "0.png", image_folder / "north" / "dog" / "copy.png")
    dataset, _ = load_dataset(str(image_folder))
    bundle = prepare_features(dataset, encoder, options)
    assert bundle.images_encoded == 22
    rows = all_rows(bundle)
    assert len(rows) == 23
    assert np.array_equal(rows["north/dog/copy.png"], rows["north/dog/0.png"])


def test_other_prompts_change_only_the_text_features(dataset, encoder, options):
    first = prepare_features(dataset, encoder, options)
    other = replace(options, templates=("an x-ray of a {class}", "{class}"), class_prompts={"dog": ("hound",)})
    second = prepare_features(dataset, encoder, other)
    assert second.images_encoded == 0
    assert second.prompts == (("an x-ray of a big cat", "big cat"), ("hound",))
    assert not np.array_equal(first.text_features, second.text_features)
    assert second.encoder_digest == first.encoder_digest


def test_a_cache_that_cannot_be_written_is_a_named_error(dataset, encoder, options, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FeatureCacheError):
        prepare_features(dataset, encoder, replace(options, cache_dir=tmp_path / "file"))


def test_the_cache_folder_of_the_environment_is_used(dataset, encoder, options, tmp_path, monkeypatch):
    monkeypatch.setenv("SECUREFED_CACHE", str(tmp_path / "mine"))
    prepare_features(dataset, encoder, replace(options, cache_dir=None))
    assert list((tmp_path / "mine").glob("features/*/*.safetensors"))


def test_bundles_travel_to_other_processes(dataset, encoder, options):
    bundle = prepare_features(dataset, encoder, options)
    assert same(pickle.loads(pickle.dumps(bundle)), bundle)


@pytest.mark.parametrize(
    ("workers", "kind", "cores", "expected"),
    [
        (3, "cpu", 2, 3),
        (0, "cuda", 16, 0),
        (-1, "cpu", 2, 0),
        (-1, "cpu", 4, 2),
        (-1, "cpu", 64, 8),
        (-1, "cuda", 16, 12),
    ],
)
def test_the_number_of_workers_follows_the_cores(monkeypatch, workers, kind, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert choose_workers(workers, torch.device(kind)) == expected
