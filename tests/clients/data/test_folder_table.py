"""A table beside the folders of sites: what it adds to them, and where it and they say different things."""

import unicodedata

import pytest

from clients.data import (
    ColumnError,
    ConflictError,
    DataOptions,
    EmptyDataError,
    FindingError,
    SourceFormatError,
    UnknownSplitError,
    load_dataset,
)
from tests.clients.data.test_folder import TWO_SITES, kinds, listed


def test_metadata_gives_patients_and_splits(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    rows = [(path, f"p{i // 2}", ("train", "Validation", "TEST")[i % 3]) for i, path in enumerate(listed(root))]
    write_csv(root / "metadata.csv", ("path", "lesion_id", "suggested_split"), rows)
    dataset, warnings = load_dataset(str(root))
    assert [record.patient for record in dataset.records] == [row[1] for row in rows]
    assert [record.split for record in dataset.records] == [("train", "val", "test")[i % 3] for i in range(13)]
    assert "split_by_image" not in kinds(warnings)
    assert kinds(warnings)["patient_in_two_splits"].count == 6
    with pytest.raises(FindingError, match="more than one split"):
        load_dataset(str(root), DataOptions(strict=True))


def test_without_splits_the_patient_decides(make_folder, write_csv):
    root = make_folder({"a": {"x": 40, "y": 40}})
    rows = [(path, f"p{i // 8}") for i, path in enumerate(listed(root))]
    write_csv(root / "metadata.csv", ("path", "patient"), rows)
    dataset, warnings = load_dataset(str(root))
    by_patient = {}
    for record in dataset.records:
        by_patient.setdefault(record.patient, set()).add(record.split)
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert not {"split_by_image", "patient_in_two_splits"} & set(kinds(warnings))


def test_other_columns_are_named_by_options(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    rows = [(path, "clinic", "nevus" if i % 2 else "melanoma", "q", "test") for i, path in enumerate(listed(root))]
    write_csv(root / "metadata.csv", ("file", "place", "dx", "person", "part"), rows)
    options = DataOptions(
        path_column="file", site_column="place", label_column="dx", patient_column="person", split_column="part"
    )
    dataset, _ = load_dataset(str(root), options)
    assert dataset.sites == ("clinic",)
    assert dataset.classes == ("melanoma", "nevus")
    assert {(record.patient, record.split) for record in dataset.records} == {("q", "test")}
    with pytest.raises(ColumnError, match="--split-column") as caught:
        load_dataset(str(root), DataOptions(path_column="file", split_column="absent"))
    assert caught.value.column == "absent"
    assert caught.value.present == ("file", "place", "dx", "person", "part")
    with pytest.raises(ColumnError, match="--path-column"):
        load_dataset(str(root))


def test_table_and_folder_disagreeing_on_which_files_there_are(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    paths = listed(root)
    write_csv(root / "metadata.csv", ("path", "split"), [(path, "train") for path in [*paths[2:], "north/x/gone.png"]])
    dataset, warnings = load_dataset(str(root))
    found = kinds(warnings)
    assert found["not_in_metadata"].examples == tuple(paths[:2])
    assert found["missing_file"].examples == ("north/x/gone.png",)
    assert "among them" not in found["missing_file"].message
    far = [(path, "train") for path in [*paths, "far/x/1.png", "far/x/2.png"]]
    write_csv(root / "metadata.csv", ("path", "split"), far)
    (root / "far").mkdir()
    _, warnings = load_dataset(str(root))
    assert kinds(warnings)["missing_file"].message.endswith("all of far among them: not part of the data")
    assert kinds(warnings)["missing_file"].detail == ""
    named = [*((path, path.split("/")[0]) for path in paths), ("north/x/gone.png", "away")]
    write_csv(root / "metadata.csv", ("path", "site"), named)
    _, warnings = load_dataset(str(root))
    assert kinds(warnings)["missing_file"].message.endswith("all of away among them: not part of the data")
    write_csv(root / "metadata.csv", ("path", "split"), [(path, "train") for path in [*paths[2:], "north/x/gone.png"]])
    dataset, warnings = load_dataset(str(root))
    assert len(dataset.records) == 11
    write_csv(root / "metadata.csv", ("path",), [("elsewhere.png",)])
    with pytest.raises(EmptyDataError, match="relative"):
        load_dataset(str(root))
    write_csv(root / "metadata.csv", ("path",), [(paths[0],), (paths[0],)])
    with pytest.raises(SourceFormatError, match="more than once"):
        load_dataset(str(root))


def test_only_the_detail_names_what_may_be_a_patient_and_no_site(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    names = ("MUELLER_HANS.png", "MEIER_EVA/scan.png", "C:\\KOCH_IDA.png", "../SCHULZ_JAN/1.png", "/x/BRAUN_UTE.png")
    write_csv(root / "metadata.csv", ("path",), [(path,) for path in [*listed(root), *names]])
    missing = kinds(load_dataset(str(root))[1])["missing_file"]
    assert (missing.message, missing.detail) == ("5 images listed in metadata.csv are not in the folder", "")
    write_csv(root / "metadata.csv", ("path",), [(path,) for path in [*listed(root), "VOGT_ADA/1/a.png"]])
    missing = kinds(load_dataset(str(root))[1])["missing_file"]
    assert missing.message.endswith("are not in the folder; 1 folders in its paths are not there")
    assert missing.in_full == f"{missing.message} (VOGT_ADA)"


def test_a_table_may_write_names_in_another_form_of_unicode_than_the_disk(make_folder, write_csv):
    root = make_folder({"s\u00fcd": {"n\u00e6vus": 2, "other": 1}, "nord": {"other": 2}})
    paths = listed(root)
    rows = [(unicodedata.normalize("NFD", path), *unicodedata.normalize("NFD", path).split("/")[:2]) for path in paths]
    write_csv(root / "metadata.csv", ("path", "site", "label"), rows)
    dataset, warnings = load_dataset(str(root))
    assert [record.path for record in dataset.records] == paths
    assert not {"not_in_metadata", "missing_file"} & set(kinds(warnings))
    (root / "nord" / "other" / "e\u0301.png").write_bytes((root / paths[0]).read_bytes())
    (root / "nord" / "other" / "\u00e9.png").write_bytes((root / paths[1]).read_bytes())
    write_csv(root / "metadata.csv", ("path",), [(path,) for path in [*paths, "nord/other/\u00e9.png"]])
    found = kinds(load_dataset(str(root))[1])
    assert found["not_in_metadata"].examples == ("nord/other/e\u0301.png",)
    assert "missing_file" not in found


def test_unknown_splits_are_refused_with_counts(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    rows = [(path, "holdout" if i < 3 else "train") for i, path in enumerate(listed(root))]
    write_csv(root / "metadata.csv", ("path", "split"), rows)
    with pytest.raises(UnknownSplitError, match=r"'holdout' \(3 rows\)") as caught:
        load_dataset(str(root))
    assert caught.value.counts == {"holdout": 3}


def test_a_label_that_contradicts_its_folder_is_refused_unless_the_column_is_named(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    rows = [(path, "malignant") for path in listed(root)]
    rows[0] = (rows[0][0], "benign")
    write_csv(root / "metadata.csv", ("path", "label"), rows)
    with pytest.raises(ConflictError, match="--label-column label") as caught:
        load_dataset(str(root))
    assert caught.value.count == 8
    dataset, _ = load_dataset(str(root), DataOptions(label_column="label"))
    assert dataset.class_counts() == {"benign": 1, "malignant": 12}
