"""Loose images, and features from and to files."""

from dataclasses import replace

import numpy as np
import pytest

from clients.data import SPLITS, BrokenImageError, DataOptions, load_dataset, partition
from clients.data.feature_table import read_feature_table, write_feature_table
from clients.encoders import (
    EncoderError,
    FeatureFileError,
    InvalidEncoderError,
    encode_classes,
    encode_images,
    export_features,
    load_features,
    prepare_features,
    session,
)


def same(first, second):
    for a, b in zip(first.all_sites(), second.all_sites(), strict=True):
        assert a.site == b.site
        for split in SPLITS:
            x, y = a.split(split), b.split(split)
            assert (x.paths, x.digests, x.patients) == (y.paths, y.digests, y.patients)
            assert np.array_equal(x.features, y.features)
            assert np.array_equal(x.labels, y.labels)
    assert np.array_equal(first.text_features, second.text_features)
    for name in ("classes", "prompts", "embed_dim", "logit_scale", "encoder_digest", "data_fingerprint"):
        assert getattr(first, name) == getattr(second, name), name


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("held_out", [None, "south"])
def test_an_exported_file_gives_the_same_bundle_with_and_without_images(
    image_folder, encoder, options, tmp_path, suffix, held_out
):
    dataset, _ = load_dataset(str(image_folder), DataOptions(global_site=held_out))
    bundle = prepare_features(dataset, encoder, options)
    path = tmp_path / f"f{suffix}"
    export_features(bundle, path)
    alone = load_features(path, DataOptions(global_site=held_out))
    same(alone, bundle)
    assert (alone.images_encoded, alone.cache_hits) == (0, 22)
    with_images = prepare_features(dataset, f"features:{path}", options)
    same(with_images, bundle)
    assert with_images.encoder_name == f"features:{path}"


def test_the_digest_of_a_files_features_changes_with_what_is_trained_on(image_folder, encoder, options, tmp_path):
    dataset, _ = load_dataset(str(image_folder))
    bundle = prepare_features(dataset, encoder, options)
    export_features(bundle, tmp_path / "f.npz")
    table = read_feature_table(tmp_path / "f.npz")
    assert bundle.features_digest == ""

    def digest(**changes):
        write_feature_table(replace(table, **changes), tmp_path / "g.npz")
        return load_features(tmp_path / "g.npz").features_digest

    names = ("features", "labels")
    columns = ("paths", "digests", "sites", "splits")
    turned = {name: getattr(table, name)[::-1] for name in (*names, *columns)}
    same_content = {digest(), digest(**turned), digest(encoder="another name")}
    same_content.add(prepare_features(dataset, f"features:{tmp_path / 'f.npz'}", options).features_digest)
    assert len(same_content) == 1
    texts = -table.text_features
    assert len({digest(features=-table.features), digest(text_features=texts), digest(logit_scale=1.0)}) == 3
    assert digest(features=-table.features) not in same_content


def test_an_exported_file_keeps_patients_together_when_it_is_dealt(image_folder, encoder, options, tmp_path):
    rows = [path.relative_to(image_folder).as_posix() for path in sorted(image_folder.rglob("north/*/*.png"))]
    table = [f"{path},p{number // 3},train" for number, path in enumerate(rows)]
    (image_folder / "metadata.csv").write_text("\n".join(["path,patient,split", *table]))
    dataset, _ = load_dataset(str(image_folder))
    export_features(prepare_features(dataset, encoder, options), tmp_path / "f.npz")
    alone, _ = load_dataset(f"features:{tmp_path / 'f.npz'}")
    assert {r.path: r.patient for r in alone.records} == {r.path: r.patient for r in dataset.records}
    dealt = {(record.patient, record.site) for record in partition(alone, 3, None, seed=0).records}
    assert len(dealt) == len({record.patient for record in dataset.records}) == 5


def test_a_moved_image_is_found_by_its_digest_and_a_changed_one_is_missed(image_folder, encoder, options, tmp_path):
    dataset, _ = load_dataset(str(image_folder))
    export_features(prepare_features(dataset, encoder, options), tmp_path / "f.npz")
    (image_folder / "north" / "dog" / "0.png").rename(image_folder / "north" / "dog" / "other.png")
    moved, _ = load_dataset(str(image_folder))
    prepare_features(moved, f"features:{tmp_path / 'f.npz'}", options)
    content = (image_folder / "north" / "dog" / "1.png").read_bytes()
    (image_folder / "north" / "dog" / "1.png").write_bytes(content + b"\0")
    changed, _ = load_dataset(str(image_folder))
    with pytest.raises(FeatureFileError, match="1 of 22 images"):
        prepare_features(changed, f"features:{tmp_path / 'f.npz'}", options)


def test_without_digests_images_are_found_by_path(image_folder, encoder, options, tmp_path):
    dataset, _ = load_dataset(str(image_folder))
    bundle = prepare_features(dataset, encoder, options)
    bare = replace(
        bundle,
        sites=tuple(
            replace(site, **{split: replace(site.split(split), digests=()) for split in SPLITS})
            for site in bundle.sites
        ),
    )
    export_features(bare, tmp_path / "f.npz")
    found = prepare_features(dataset, f"features:{tmp_path / 'f.npz'}", options)
    same(found, bundle)


def test_a_class_without_a_text_feature_is_refused(image_folder, encoder, options, tmp_path):
    dataset, _ = load_dataset(str(image_folder))
    export_features(prepare_features(dataset, encoder, options), tmp_path / "f.npz")
    (image_folder / "north" / "dog").rename(image_folder / "north" / "wolf")
    other, _ = load_dataset(str(image_folder))
    with pytest.raises(FeatureFileError, match="'wolf'"):
        prepare_features(other, f"features:{tmp_path / 'f.npz'}", options)


def test_data_without_images_need_their_features(image_folder, encoder, options, tmp_path):
    dataset, _ = load_dataset(str(image_folder))
    export_features(prepare_features(dataset, encoder, options), tmp_path / "f.npz")
    alone, _ = load_dataset(f"features:{tmp_path / 'f.npz'}")
    with pytest.raises(InvalidEncoderError, match=r"--encoder features:"):
        prepare_features(alone, encoder, options)


def test_places_that_cannot_be_written_are_named_errors(image_folder, encoder, options, tmp_path):
    bundle = prepare_features(load_dataset(str(image_folder))[0], encoder, options)
    with pytest.raises(FeatureFileError, match=r"\.safetensors or \.npz"):
        export_features(bundle, tmp_path / "f.csv")
    with pytest.raises(FeatureFileError, match="cannot be written"):
        export_features(bundle, tmp_path / "nowhere" / "f.npz")
    assert not list(tmp_path.glob(".*"))


def test_loose_images_in_their_order(dataset, encoder, options, monkeypatch):
    files = [dataset.root / record.path for record in dataset.records[:6]][::-1]
    loose = encode_images(files, encoder, options)
    assert loose.paths == tuple(files)
    assert not list(options.cache_dir.glob("features/*/*.safetensors"))
    bundle = prepare_features(dataset, encoder, options)
    by_path = {
        path: row
        for site in bundle.sites
        for split in SPLITS
        for path, row in zip(site.split(split).paths, site.split(split).features, strict=True)
    }
    expected = np.stack([by_path[file.relative_to(dataset.root).as_posix()] for file in files])
    np.testing.assert_allclose(loose.features, expected, atol=2e-6)
    assert loose.encoder_digest == bundle.encoder_digest

    def forbidden(*_):
        raise AssertionError("the encoder was loaded")

    monkeypatch.setattr(session, "load_encoder", forbidden)
    cached = encode_images(files, encoder, options)
    assert np.array_equal(cached.features, expected)


def test_broken_loose_images_are_refused_or_listed(dataset, encoder, options, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"x")
    files = [dataset.root / dataset.records[0].path, tmp_path / "bad.png", tmp_path / "gone.png"]
    with pytest.raises(BrokenImageError, match=r"bad\.png"):
        encode_images(files, encoder, options)
    found = encode_images(files, encoder, options, skip_broken=True)
    assert found.paths == (files[0],)
    assert [path for path, _ in found.broken] == files[1:]
    assert found.features.shape == (1, 16)
    assert encode_images(files[1:], encoder, options, skip_broken=True).features.shape == (0, 16)
    assert encode_images([], encoder, options).features.shape == (0, 16)


def test_classes_alone(dataset, encoder, options):
    bundle = prepare_features(dataset, encoder, options)
    classes = encode_classes(("big_cat", "dog"), encoder, options)
    assert np.array_equal(classes.text_features, bundle.text_features)
    assert (classes.prompts, classes.logit_scale) == (bundle.prompts, bundle.logit_scale)


def test_a_file_of_features_encodes_nothing_new(dataset, encoder, options, tmp_path):
    export_features(prepare_features(dataset, encoder, options), tmp_path / "f.npz")
    with pytest.raises(EncoderError, match="cannot encode anything new"):
        encode_images([], f"features:{tmp_path / 'f.npz'}", options)
