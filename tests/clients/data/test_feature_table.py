"""The file of precomputed features: round trips, and every way in which it can be wrong."""

import json

import numpy as np
import pytest
import safetensors.numpy

from clients.data import BrokenImageError, DataOptions, SourceFormatError, fingerprint, inspect, load_dataset
from clients.data.feature_table import FeatureTable, read_feature_table, write_feature_table

N, D, C = 12, 8, 3


def unit(rows, seed):
    values = np.random.default_rng(seed).normal(size=(rows, D))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def table(**changes):
    fields = {
        "features": unit(N, 0),
        "classes": ("oak", "ash", "elm"),
        "text_features": unit(C, 1),
        "logit_scale": 100.0,
        "paths": tuple(f"s/c/{i}.png" for i in range(N)),
        "digests": tuple(f"{i:064x}" for i in range(N)),
        "labels": np.arange(N, dtype=np.int64) % C,
        "sites": tuple("north" if i < 7 else "south" for i in range(N)),
        "splits": tuple(("train", "val", "test")[i % 3] for i in range(N)),
        "patients": tuple(f"p{i}" if i else "" for i in range(N)),
        "prompts": (("a oak",), ("an ash", "ash, a tree"), ("an elm",)),
        "encoder": "some CLIP",
        "encoder_digest": "ab" * 32,
    }
    return FeatureTable(**{**fields, **changes})


def same(first, second):
    for name in first.__dataclass_fields__:
        a, b = getattr(first, name), getattr(second, name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, name


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_round_trip_keeps_every_bit(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    write_feature_table(table(), path)
    same(read_feature_table(path), table())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_least_file_is_enough(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    least = FeatureTable(unit(N, 0) * 7, ("a", "b", "c"), unit(C, 1) * 3, 20.0, digests=table().digests)
    write_feature_table(least, path)
    found = read_feature_table(path)
    np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.text_features, unit(C, 1), atol=1e-6)
    assert found.labels is None
    assert len(found.encoder_digest) == 64


def test_a_handmade_npz_is_read(tmp_path):
    np.savez(
        tmp_path / "f.npz",
        features=unit(N, 0),
        classes=np.array(["a", "b", "c"]),
        text_features=unit(C, 1),
        logit_scale=np.float32(100),
        paths=np.array([f"{i}.png" for i in range(N)]),
    )
    assert read_feature_table(tmp_path / "f.npz").paths[3] == "3.png"


def write_raw(path, **changes):
    content = {
        "features": unit(N, 0),
        "text_features": unit(C, 1),
        "logit_scale": np.array([100.0], np.float32),
        "labels": np.zeros(N, np.int64),
        "classes": np.array(["a", "b", "c"]),
        "paths": np.array([f"{i}.png" for i in range(N)]),
    }
    content.update(changes)
    np.savez(path, **{name: value for name, value in content.items() if value is not None})
    return path


BAD = {
    "no features": {"features": None},
    "no text": {"text_features": None},
    "no scale": {"logit_scale": None},
    "no classes": {"classes": None},
    "neither path nor digest": {"paths": None},
    "double precision": {"features": unit(N, 0).astype(np.float64)},
    "half precision": {"features": unit(N, 0).astype(np.float16)},
    "a vector": {"features": unit(N, 0)[0]},
    "no rows": {"features": np.empty((0, D), np.float32)},
    "nan": {"features": np.where(np.eye(N, D) > 0, np.nan, unit(N, 0)).astype(np.float32)},
    "zero row": {"features": unit(N, 0) * (np.arange(N) > 0)[:, None].astype(np.float32)},
    "other width": {"text_features": np.ones((C, D + 1), np.float32)},
    "other number of classes": {"text_features": unit(C + 1, 1)},
    "class twice": {"classes": np.array(["a", "b", "a"])},
    "empty class": {"classes": np.array(["a", "b", ""])},
    "negative scale": {"logit_scale": np.array([-1.0], np.float32)},
    "two scales": {"logit_scale": np.ones(2, np.float32)},
    "infinite scale": {"logit_scale": np.array([np.inf], np.float32)},
    "scale a date": {"logit_scale": np.array(["2026-01-02"], "datetime64[D]")},
    "scale complex": {"logit_scale": np.array([1 + 2j])},
    "scale bytes": {"logit_scale": np.array([b"100"])},
    "label above": {"labels": np.full(N, C, np.int64)},
    "label below": {"labels": np.full(N, -1, np.int64)},
    "labels short": {"labels": np.zeros(N - 1, np.int64)},
    "labels 32 bit": {"labels": np.zeros(N, np.int32)},
    "labels words": {"labels": np.array(["a"] * N)},
    "classes numbers": {"classes": np.arange(C)},
    "paths short": {"paths": np.array(["a"])},
    "path twice": {"paths": np.array(["a"] * N)},
    "digest short": {"digests": np.array(["ab"] * N)},
    "digest upper case": {"digests": np.array(["AB" * 32] * N)},
    "one image with several features": {"digests": np.array(["ab" * 32] * N)},
    "class not Unicode": {"classes": np.array(["a", "b", "\udcff"])},
    "unknown split": {"splits": np.array(["dev"] * N)},
    "unknown entry": {"weights": np.ones(N, np.float32)},
    "prompts not JSON": {"prompts": np.array(["x"] * C)},
    "prompts no list": {"prompts": np.array(['{"a": 1}'] * C)},
    "prompts short": {"prompts": np.array(['["x"]'])},
    "objects": {"labels": np.array([{"a": 1}] * N, dtype=object)},
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_anything_else_is_refused_in_one_line(tmp_path, case):
    with pytest.raises(SourceFormatError) as caught:
        read_feature_table(write_raw(tmp_path / "f.npz", **BAD[case]))
    assert "\n" not in str(caught.value)


def test_copies_of_an_image_have_its_features(tmp_path):
    copied = np.concatenate([unit(N - 1, 0), unit(N - 1, 0)[:1]])
    digests = [f"{i % (N - 1):064x}" for i in range(N)]
    path = write_raw(tmp_path / "f.npz", features=copied, digests=np.array(digests))
    assert read_feature_table(path).digests == tuple(digests)


def test_splits_are_read_as_those_of_tables_are(tmp_path):
    given = ["Training", "VALID", "", " test "] * (N // 4)
    path = write_raw(tmp_path / "f.npz", splits=np.array(given), sites=np.array(["s", "t"] * (N // 2)))
    assert read_feature_table(path).splits == ("train", "val", "", "test") * (N // 4)
    write_raw(path, splits=np.array(given), sites=np.array(["s"] * N), labels=np.arange(N, dtype=np.int64) % C)
    dataset, warnings = load_dataset(f"features:{path}")
    assert "split_by_image" in {warning.kind for warning in warnings}
    assert {record.split for record in dataset.records} <= {"train", "val", "test"}


def test_patients_are_read_as_those_of_tables_are(tmp_path):
    labels = np.arange(N, dtype=np.int64) % C
    given = np.array(["None", *["p"] * (N - 1)])
    path = write_raw(tmp_path / "f.npz", patients=given, sites=np.array(["s"] * N), labels=labels)
    with pytest.raises(SourceFormatError, match=r"has the patient 'None' \(1 rows\); leave the cell empty"):
        load_dataset(f"features:{path}")


def test_damaged_files_are_refused(tmp_path):
    for suffix in (".npz", ".safetensors"):
        path = tmp_path / f"f{suffix}"
        write_feature_table(table(), path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(SourceFormatError):
            read_feature_table(path)
        path.write_bytes(b"")
        with pytest.raises(SourceFormatError):
            read_feature_table(path)
    arrays = {"features": unit(N, 0)}
    for text in ("no json", "{}", "[1]"):
        (tmp_path / "f.safetensors").write_bytes(safetensors.numpy.save(arrays, metadata={"classes": text}))
        with pytest.raises(SourceFormatError, match="metadata"):
            read_feature_table(tmp_path / "f.safetensors")
    with pytest.raises(SourceFormatError, match=r"\.npz or \.safetensors"):
        write_feature_table(table(), tmp_path / "f.csv")


def test_strings_in_safetensors_are_json_lists(tmp_path):
    write_feature_table(table(), tmp_path / "f.safetensors")
    with safetensors.safe_open(tmp_path / "f.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["classes"]) == ["oak", "ash", "elm"]
    assert json.loads(json.loads(metadata["prompts"])[1]) == ["an ash", "ash, a tree"]


def test_a_file_of_features_is_a_data_set(tmp_path):
    write_feature_table(table(), tmp_path / "f.npz")
    dataset, warnings = load_dataset(f"features:{tmp_path / 'f.npz'}")
    assert dataset.sites == ("north", "south")
    assert dataset.classes == ("ash", "elm", "oak")
    assert [record.split for record in dataset.select("north", "val")] == ["val", "val"]
    assert dataset.records[0].patient is None
    assert dataset.records[1].patient == "p1"
    assert "broken_image" not in {warning.kind for warning in warnings}
    with pytest.raises(BrokenImageError, match="features and no images"):
        dataset.load(0)
    report = inspect(dataset, warnings)
    assert (report.images, report.image_sizes, report.warnings) == (N, {}, warnings)
    held, _ = load_dataset(f"features:{tmp_path / 'f.npz'}", DataOptions(global_site="south"))
    assert held.sites == ("north",)
    assert fingerprint(held) != fingerprint(dataset)


def test_without_paths_digests_and_splits_the_rows_speak_for_themselves(tmp_path):
    write_feature_table(table(paths=(), splits=(), patients=()), tmp_path / "f.npz")
    dataset, warnings = load_dataset(f"features:{tmp_path / 'f.npz'}")
    assert dataset.records[2].path == "row/00000002"
    assert "split_by_image" in {warning.kind for warning in warnings}


@pytest.mark.parametrize("absent", [{"labels": None}, {"sites": ()}])
def test_without_labels_or_sites_it_is_no_data_set(tmp_path, absent):
    write_feature_table(table(**absent), tmp_path / "f.npz")
    with pytest.raises(SourceFormatError, match="no data set"):
        load_dataset(f"features:{tmp_path / 'f.npz'}")


def test_rows_are_brought_to_norm_1_whatever_block_they_are_in(tmp_path, monkeypatch):
    monkeypatch.setattr("clients.data.feature_table._BLOCK", 2)
    rows = unit(N, 0)
    given = rows * np.where(np.arange(N) % 3 == 0, 5, 1).astype(np.float32)[:, None]
    content = FeatureTable(given, ("a", "b", "c"), unit(C, 1), 20.0, digests=table().digests)
    write_feature_table(content, tmp_path / "f.npz")
    norms = np.linalg.norm(given.astype(np.float64), axis=1, keepdims=True)
    expected = np.where(np.arange(N)[:, None] % 3 == 0, (given / norms).astype(np.float32), rows)
    assert np.array_equal(read_feature_table(tmp_path / "f.npz").features, expected)
