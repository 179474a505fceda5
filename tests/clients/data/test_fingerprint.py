"""The name of a data set is its content."""

import hashlib
import shutil
from dataclasses import replace

from clients.data import DataOptions, fingerprint, load_dataset, patient_grouping
from clients.data.fingerprint import array_digest

LAYOUT = {"north": {"benign": 4, "malignant": 4}, "south": {"benign": 4, "malignant": 2}}


def test_renaming_and_moving_change_nothing(make_folder, tmp_path):
    root = make_folder(LAYOUT)
    first, _ = load_dataset(str(root))
    shutil.move(root / "north" / "benign" / "000.png", root / "north" / "benign" / "zzz.png")
    shutil.move(root, tmp_path / "elsewhere")
    second, _ = load_dataset(str(tmp_path / "elsewhere"))
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first, "north") == fingerprint(second, "north")
    shuffled = replace(first, records=tuple(reversed(first.records)))
    assert fingerprint(shuffled) == fingerprint(first)


def test_content_label_site_split_and_copies_change_it(make_folder):
    dataset, _ = load_dataset(str(make_folder(LAYOUT)))
    record = dataset.records[0]
    other = {
        "digest": "0" * 64,
        "label": "malignant",
        "site": "south",
        "split": "test" if record.split != "test" else "train",
    }
    names = {fingerprint(dataset)}
    for field, value in other.items():
        names.add(fingerprint(replace(dataset, records=(replace(record, **{field: value}), *dataset.records[1:]))))
    names.add(fingerprint(replace(dataset, records=(record, *dataset.records))))
    names.add(fingerprint(replace(dataset, records=dataset.records[1:])))
    assert len(names) == 7
    assert fingerprint(dataset, "north") != fingerprint(dataset, "south")


def test_known_answer(make_folder):
    dataset, _ = load_dataset(str(make_folder(LAYOUT)), DataOptions(global_site="south"))
    lines = b"securefed/data/v1"
    for entry in sorted((r.digest, r.label, r.site, r.split) for r in dataset.records):
        for text in entry:
            lines += len(text).to_bytes(8, "big") + text.encode()
    assert fingerprint(dataset) == hashlib.sha256(lines).hexdigest()


def test_who_shows_the_same_patient_is_named_without_the_names_of_patients(make_folder):
    dataset, _ = load_dataset(str(make_folder(LAYOUT)))
    train = [index for index, record in enumerate(dataset.records) if record.split == "train"]

    def grouping(*patients, split="train"):
        named = dict(zip(train, patients, strict=False)) if split == "train" else {}
        records = [replace(record, patient=named.get(index)) for index, record in enumerate(dataset.records)]
        if split != "train":
            records = [replace(record, patient=None if record.split == "train" else patients[0]) for record in records]
        assert fingerprint(replace(dataset, records=tuple(records))) == fingerprint(dataset)
        return patient_grouping(replace(dataset, records=tuple(records)))

    alone = patient_grouping(dataset)
    assert grouping("a", "b") == grouping("a", split="test") == alone
    assert grouping("a", "a") == grouping("x", "x") != alone
    assert len({alone, grouping("a", "a"), grouping("a", "a", "a"), grouping("a", "a", "b", "b")}) == 4
    turned = replace(dataset, records=tuple(reversed(dataset.records)))
    assert patient_grouping(turned) == alone


def test_patients_of_two_sites_are_two_and_the_digest_is_that_of_its_format(make_folder):
    dataset, _ = load_dataset(str(make_folder(LAYOUT)))
    same = replace(dataset, records=tuple(replace(record, patient="p") for record in dataset.records))
    lines, groups = b"securefed/patients/v1", []
    for site in dataset.sites:
        groups.append(sorted((r.digest, r.label, r.site) for r in dataset.select(site, "train")))
    for group in sorted(groups):
        lines += len(group).to_bytes(8, "big")
        for text in (text for entry in group for text in entry):
            lines += len(text).to_bytes(8, "big") + text.encode()
    assert patient_grouping(same) == hashlib.sha256(lines).hexdigest()


def test_arrays_are_named_by_type_shape_and_elements():
    import numpy as np

    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert array_digest(image) == array_digest(np.asfortranarray(image))
    assert len({array_digest(image), array_digest(image.reshape(4, 3)), array_digest(image.astype(np.int8))}) == 3
