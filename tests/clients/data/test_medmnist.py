"""MedMNIST files."""

import pickle

import numpy as np
import pytest

from clients.data import BrokenImageError, DataOptions, EmptyDataError, SiteError, SourceFormatError, load_dataset
from clients.data.medmnist import MOST_UNNAMED


def arrays(colour=False, classes=2, counts=(8, 4, 6)):
    rng = np.random.default_rng(0)
    content = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        shape = (count, 28, 28, 3) if colour else (count, 28, 28)
        content[f"{split}_images"] = rng.integers(0, 255, shape, dtype=np.uint8)
        content[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return content


def save(path, content):
    np.savez_compressed(path, **content)
    return str(path)


@pytest.mark.parametrize("colour", [False, True])
def test_one_site_with_the_splits_of_the_file(tmp_path, colour):
    content = arrays(colour)
    dataset, warnings = load_dataset(save(tmp_path / "pneumoniamnist_64.npz", content))
    assert dataset.sites == ("pneumoniamnist_64",)
    assert dataset.classes == ("normal", "pneumonia")
    assert [len(dataset.select(split=split)) for split in ("train", "val", "test")] == [8, 4, 6]
    index = [record.path for record in dataset.records].index("val/000003")
    expected = content["val_images"][3]
    image = np.asarray(dataset.load(index))
    np.testing.assert_array_equal(image, expected if colour else np.dstack([expected] * 3))
    assert dataset.records[index].label == "pneumonia"
    assert "unnamed_classes" not in {warning.kind for warning in warnings}


def test_the_source_travels_to_workers_without_its_arrays(tmp_path):
    dataset, _ = load_dataset(save(tmp_path / "set.npz", arrays()))
    dataset.load(0)
    travelled = pickle.dumps(dataset.source)
    assert len(travelled) < 1000
    assert pickle.loads(travelled).load("train/000000").size == (28, 28)
    for path in ("train/8", "other/0", "train/x"):
        with pytest.raises(BrokenImageError):
            dataset.source.load(path)


def test_classes_without_names_are_numbered_and_reported(tmp_path):
    path = save(tmp_path / "mine.npz", arrays(classes=3))
    dataset, warnings = load_dataset(path)
    assert dataset.classes == ("class 0", "class 1", "class 2")
    assert "unnamed_classes" in {warning.kind for warning in warnings}
    dataset, _ = load_dataset(path, DataOptions(class_names=("oak", "ash", "elm")))
    assert dataset.classes == ("ash", "elm", "oak")
    assert dataset.records[0].path == "test/000000"
    assert dataset.records[0].label == "oak"
    with pytest.raises(SourceFormatError, match="2 class names"):
        load_dataset(path, DataOptions(class_names=("oak", "ash")))


def change(**changes):
    content = {**arrays(), **changes}
    return {name: value for name, value in content.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (change(train_images=np.zeros((8, 28, 28, 28), np.uint8)), "3-D"),
        (change(train_images=np.zeros((8, 28, 28), np.float32)), "uint8"),
        (change(train_images=np.zeros((8, 28, 0, 3), np.uint8)), "train_images cannot be read: 0 x 28 pixels are no"),
        (change(train_images=np.zeros((8, 1, 101), np.uint8)), "one side is more than 100 times the other"),
        (change(train_labels=np.zeros((8, 14), np.uint8)), "14 labels"),
        (change(train_labels=np.zeros((7, 1), np.uint8)), "8 train_images and 7"),
        (change(train_labels=np.zeros((8, 1), np.float32)), "integers"),
        (change(train_labels=np.full((8, 1), -1)), "integers"),
        (change(val_labels=None), "only one of"),
        (change(train_labels=np.full(8, 2**64 - 1, np.uint64)), "integers"),
        (change(train_labels=np.full(8, 40_000_000)), "label 40000000; labels must number the classes from 0"),
        ({"x": np.zeros(3)}, "MedMNIST"),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, words):
    with pytest.raises(SourceFormatError, match=words):
        load_dataset(save(tmp_path / "set.npz", content))


def test_files_that_are_no_arrays_are_refused(tmp_path):
    (tmp_path / "set.npz").write_bytes(b"not a zip")
    with pytest.raises(SourceFormatError, match=r"is not an \.npz"):
        load_dataset(str(tmp_path / "set.npz"))
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(SourceFormatError, match=r"is not an \.npz"):
        load_dataset(str(tmp_path / "one.npz"))
    with pytest.raises(EmptyDataError):
        load_dataset(save(tmp_path / "none.npz", arrays(counts=(0, 0, 0))))


def test_pickled_objects_are_never_loaded(tmp_path):
    content = arrays()
    content["train_labels"] = np.array([{"run": "me"}] * 8, dtype=object)
    with pytest.raises(SourceFormatError, match="readable"):
        load_dataset(save(tmp_path / "set.npz", content))


def test_identifiers_are_no_classes(tmp_path):
    count = MOST_UNNAMED + 1
    content = {"train_images": np.zeros((count, 2, 2), np.uint8), "train_labels": np.arange(count)}
    with pytest.raises(SourceFormatError, match="class_names"):
        load_dataset(save(tmp_path / "set.npz", content))
    last = {name: values[:-1] for name, values in content.items()}
    assert len(load_dataset(save(tmp_path / "set.npz", last))[0].classes) == count - 1


def test_a_file_whose_name_cannot_be_that_of_a_site_is_refused(tmp_path):
    for name in (".hid.npz", "\udcff.npz"):
        with pytest.raises(SiteError):
            load_dataset(save(tmp_path / name, arrays()))


def test_damaged_compression_is_a_named_error(tmp_path):
    path = tmp_path / "pneumoniamnist.npz"
    save(path, arrays())
    content = path.read_bytes()
    start = content.index(b"train_images.npy") + 60
    path.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    with pytest.raises(SourceFormatError, match=r"is not a readable \.npz file"):
        load_dataset(str(path))


def test_images_of_a_file_that_took_the_place_of_another_are_refused(tmp_path):
    path = tmp_path / "pneumoniamnist.npz"
    dataset, _ = load_dataset(save(path, arrays()))
    travelled = pickle.dumps(dataset.source)
    (tmp_path / "other").mkdir()
    other = arrays()
    other["train_images"] = 255 - other["train_images"]
    save(tmp_path / "other" / "new.npz", other)
    (tmp_path / "other" / "new.npz").replace(path)
    for source in (dataset.source, pickle.loads(travelled)):
        with pytest.raises(BrokenImageError, match="another image has taken its place"):
            source.load("train/000000")
