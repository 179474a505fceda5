"""The layout <site>/<class>/<image>: what is read, left out, found and refused."""

import dataclasses
import errno
import os
import shutil

import pytest

from clients.data import (
    ColumnError,
    DataError,
    DataOptions,
    EmptyDataError,
    FindingError,
    OneClassError,
    SiteError,
    SourceFormatError,
    SourceNotFoundError,
    check_dataset,
    load_dataset,
)

TWO_SITES = {"north": {"benign": 6, "malignant": 4}, "south": {"benign": 3}}


def kinds(warnings):
    return {warning.kind: warning for warning in warnings}


def test_sites_classes_and_paths_are_those_of_the_folders(make_folder):
    root = make_folder(TWO_SITES)
    dataset, _ = load_dataset(str(root))
    assert dataset.name == "cohort"
    assert dataset.sites == ("north", "south")
    assert dataset.classes == ("benign", "malignant")
    assert len(dataset.records) == 13
    assert [record.path for record in dataset.records] == sorted(record.path for record in dataset.records)
    assert dataset.class_counts("south") == {"benign": 3, "malignant": 0}
    assert dataset.load(0).mode == "RGB"
    assert dataset.load(0).size == (12, 10)


def test_a_link_to_nothing_is_told_as_one(make_folder):
    root = make_folder({"north": {"benign": 2}, "south": {"malignant": 2}})
    (root / "north" / "benign" / "gone.png").symlink_to(root / "nothing.png")
    dataset, warnings = load_dataset(str(root))
    assert len(dataset.records) == 4
    assert kinds(warnings)["missing_file"].message.startswith("1 images are not where a table, or a link, says;")


def test_every_listed_ending_counts_in_any_case(make_folder, draw):
    root = make_folder(TWO_SITES)
    for index, ending in enumerate(("JPG", "jpeg", "png", "tif", "TIFF", "bmp")):
        draw(100 + index).save(root / "south" / "benign" / f"x{index}.{ending}")
    dataset, warnings = load_dataset(str(root))
    assert len(dataset.select("south")) == 9
    assert "broken_image" not in kinds(warnings)


def test_a_class_that_a_site_lacks_is_an_information(make_folder):
    _, warnings = load_dataset(str(make_folder(TWO_SITES)))
    found = kinds(warnings)["class_missing_at_site"]
    assert found.severity == "info"
    assert found.examples == ("south: malignant",)


def test_without_patients_splitting_by_content_is_said(make_folder):
    dataset, warnings = load_dataset(str(make_folder(TWO_SITES)))
    found = kinds(warnings)["split_by_image"]
    assert found.count == 13
    assert "name the patient by the setting data.patient_column (--patient-column where there is" in found.message
    assert {record.split for record in dataset.records} <= {"train", "val", "test"}


def test_broken_images_are_counted_and_left_out_or_refused(make_folder):
    root = make_folder(TWO_SITES)
    (root / "north" / "benign" / "000.png").write_bytes(b"not an image")
    png = (root / "north" / "benign" / "001.png").read_bytes()
    (root / "north" / "benign" / "001.png").write_bytes(png[:-30])
    (root / "north" / "benign" / "002.png").write_bytes(b"")
    dataset, warnings = load_dataset(str(root))
    assert len(dataset.records) == 10
    broken = kinds(warnings)["broken_image"]
    assert broken.count == 3
    reason = "it is no JPEG, PNG, TIFF or BMP file"
    assert broken.detail == f"2 of them: {reason}; for example north/benign/000.png"
    assert broken.in_full == f"{broken.message} ({broken.detail})"
    assert reason not in broken.message
    with pytest.raises(DataError, match=r"north/benign/000\.png"):
        load_dataset(str(root), DataOptions(strict=True))


@pytest.mark.parametrize("held_out", [None, "north", "south"])
@pytest.mark.parametrize("missing", [False, True])
def test_a_site_does_not_vanish_with_its_files(make_folder, missing, held_out):
    root = make_folder({**TWO_SITES, "west": {"benign": 2, "malignant": 2}})
    for path in (root / "south").rglob("*.png"):
        path.unlink()
        if missing:
            path.symlink_to(root / "nothing.png")
        else:
            path.with_suffix(".bmp").write_bytes(b"no image")
    with pytest.raises(EmptyDataError, match="no image of south can be read; repair or restore") as caught:
        load_dataset(str(root), DataOptions(global_site=held_out))
    reason = "there is no such file" if missing else "it is no JPEG, PNG, TIFF or BMP file"
    example = f"south/benign/000.{'png' if missing else 'bmp'}"
    assert caught.value.in_full == f"{caught.value} (3 of them: {reason}; for example {example})"
    assert "benign" not in str(caught.value)


def test_of_a_part_the_images_of_other_sites_need_not_be_here(make_folder):
    root = make_folder(TWO_SITES)
    for path in (root / "south").rglob("*.png"):
        path.write_bytes(b"no image")
    assert load_dataset(str(root), DataOptions(part="north"))[0].sites == ("north",)
    with pytest.raises(EmptyDataError, match="no image of south"):
        load_dataset(str(root), DataOptions(part="south"))
    for path in (root / "north").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(EmptyDataError, match="has no image that can be read; repair"):
        load_dataset(str(root), DataOptions(part="east"))
    with pytest.raises(EmptyDataError, match="has no image that can be read; repair") as caught:
        load_dataset(str(root), DataOptions(part="south"))
    assert caught.value.detail.endswith("for example south/benign/000.png")


def test_a_site_that_a_table_does_not_list_is_left_out_with_a_finding(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    rows = [[f"north/{label}/{number:03d}.png"] for label in ("benign", "malignant") for number in range(4)]
    write_csv(root / "metadata.csv", ["path"], rows)
    dataset, warnings = load_dataset(str(root))
    assert dataset.sites == ("north",)
    assert kinds(warnings)["not_in_metadata"].count == 5


def test_a_truncated_jpeg_is_broken(make_folder, draw):
    root = make_folder(TWO_SITES)
    path = root / "south" / "benign" / "cut.jpg"
    draw(9, (64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    _, warnings = load_dataset(str(root))
    assert kinds(warnings)["broken_image"].examples == ("south/benign/cut.jpg",)


def test_what_does_not_belong_is_counted(make_folder, draw):
    root = make_folder(TWO_SITES)
    (root / "north" / "empty").mkdir()
    (root / "north" / "benign" / "notes.txt").write_text("x")
    (root / "north" / "benign" / ".hidden.png").write_text("x")
    (root / "north" / "benign" / "deeper").mkdir()
    draw(50).save(root / "north" / "benign" / "deeper" / "a.png")
    draw(51).save(root / "north" / "b.png")
    (root / ".git").mkdir()
    dataset, warnings = load_dataset(str(root))
    found = kinds(warnings)
    assert found["empty_class"].examples == ("north/empty",)
    assert found["not_an_image"].examples == ("north/benign/notes.txt",)
    assert found["misplaced_image"].examples == ("north/b.png", "north/benign/deeper/a.png")
    assert len(dataset.records) == 13
    assert "empty" not in dataset.classes


def test_nothing_there_is_a_named_error_with_a_next_step(make_folder, tmp_path, draw):
    with pytest.raises(SourceNotFoundError, match="check --data"):
        load_dataset(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyDataError, match="<site>/<class>"):
        load_dataset(str(tmp_path / "empty"))
    with pytest.raises(OneClassError, match="at least two"):
        load_dataset(str(make_folder({"a": {"x": 2}, "b": {"x": 1}}, "one")))
    (tmp_path / "flat" / "benign").mkdir(parents=True)
    draw(1).save(tmp_path / "flat" / "benign" / "a.png")
    with pytest.raises(SourceFormatError, match="one folder a site"):
        load_dataset(str(tmp_path / "flat"))
    (tmp_path / "data.xlsx").write_bytes(b"x")
    with pytest.raises(SourceFormatError, match=r"\.csv"):
        load_dataset(str(tmp_path / "data.xlsx"))
    broken = make_folder({"a": {"x": 1, "y": 1}}, "broken")
    for path in broken.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(EmptyDataError, match="can be read"):
        load_dataset(str(broken))


@pytest.mark.parametrize("name", ["a", "a/x"])
def test_a_folder_whose_name_is_not_text_is_refused(make_folder, name):
    root = make_folder({"a": {"x": 2, "y": 2}})
    (root / name).rename(root / f"{name}{os.fsdecode(bytes([0xFF]))}")
    with pytest.raises(DataError, match="has a name that is not UTF-8; rename it"):
        load_dataset(str(root))


@pytest.mark.parametrize("error_name", ["nowhere", ".", 300 * "x"])
def test_errors_are_one_line(error_name, tmp_path):
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path / error_name))
    assert "\n" not in str(caught.value)


def listed(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


def test_empty_splits_are_filled_and_reported(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    rows = [(path, f"p{i}", "" if i < 4 else "train") for i, path in enumerate(listed(root))]
    write_csv(root / "metadata.csv", ("path", "patient", "split"), rows)
    _, warnings = load_dataset(str(root))
    assert kinds(warnings)["missing_split"].count == 4


def test_copies_at_two_sites_and_in_one_split(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    (root / "south_copy").symlink_to(root / "south")
    linked = [f"south_copy/benign/{number:03d}.png" for number in range(3)]
    for number in range(3):
        shutil.copy(root / "north" / "benign" / "000.png", root / "north" / "benign" / f"copy{number}.png")
    write_csv(root / "metadata.csv", ("path", "split"), [(path, "train") for path in [*listed(root), *linked]])
    found = kinds(load_dataset(str(root))[1])
    assert found["duplicate_at_two_sites"].count == 6
    assert found["duplicate_at_two_sites"].examples[2:4] == ("south/benign/002.png", "south_copy/benign/000.png")
    assert found["duplicate_in_split"].examples == tuple(
        f"north/benign/{name}.png" for name in ("000", "copy0", "copy1", "copy2")
    )
    assert "duplicate_across_splits" not in found
    with pytest.raises(FindingError, match="6 images have a copy at another site"):
        load_dataset(str(root), DataOptions(strict=True))


def test_copies_across_splits_and_labels(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    content = (root / "north" / "benign" / "000.png").read_bytes()
    (root / "north" / "malignant" / "000.png").write_bytes(content)
    rows = [(path, "test" if "malignant" in path else "train") for path in listed(root)]
    write_csv(root / "metadata.csv", ("path", "split"), rows)
    _, warnings = load_dataset(str(root))
    copies = ("north/benign/000.png", "north/malignant/000.png")
    assert kinds(warnings)["duplicate_across_splits"].examples == copies
    assert kinds(warnings)["duplicate_with_other_label"].examples == copies


def test_small_and_empty_splits_and_untrained_classes(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    rows = [(path, "test" if "malignant" in path else "train") for path in listed(root)]
    write_csv(root / "metadata.csv", ("path", "split"), rows)
    _, warnings = load_dataset(str(root))
    found = kinds(warnings)
    assert found["empty_split"].examples == ("north: val", "south: test", "south: val")
    assert found["small_split"].examples == ("north: test (4)", "south: train (3)")
    assert found["class_not_in_training"].examples == ("malignant",)
    assert "at any site" in found["class_not_in_training"].message
    assert "site_without_training" not in found
    write_csv(
        root / "metadata.csv", ("path", "split"), [(path, "val" if "south" in path else split) for path, split in rows]
    )
    _, warnings = load_dataset(str(root))
    assert kinds(warnings)["site_without_training"].examples == ("south",)
    _, warnings = load_dataset(str(root), DataOptions(global_site="south"))
    assert "site_without_training" not in kinds(warnings)


def test_a_patient_name_at_two_sites_is_an_information(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    write_csv(root / "metadata.csv", ("path", "patient"), [(path, "1") for path in listed(root)])
    _, warnings = load_dataset(str(root))
    assert kinds(warnings)["patient_at_two_sites"].severity == "info"


def test_the_held_out_site_is_all_test(make_folder):
    root = make_folder(TWO_SITES)
    dataset, warnings = load_dataset(str(root), DataOptions(global_site="south"))
    assert dataset.sites == ("north",)
    assert dataset.all_sites == ("north", "south")
    assert {record.split for record in dataset.select("south")} == {"test"}
    assert "south: train" not in kinds(warnings).get("empty_split", kinds(warnings)["small_split"]).examples
    with pytest.raises(SiteError, match="sites: north, south"):
        load_dataset(str(root), DataOptions(global_site="west"))
    with pytest.raises(SiteError, match="only site"):
        load_dataset(str(make_folder({"a": {"x": 2, "y": 2}}, "single")), DataOptions(global_site="a"))


@pytest.mark.parametrize("table", [b"\xff\xfe\x00", b"", b"path,split,path\n", b"path,split\na,b,c\n", b'path\n"a'])
def test_tables_that_are_none_are_refused(make_folder, table):
    root = make_folder(TWO_SITES)
    (root / "metadata.csv").write_bytes(table)
    with pytest.raises(SourceFormatError):
        load_dataset(str(root))


@pytest.mark.parametrize(
    "fields",
    [
        {"split_shares": (0.5, 0.5, 0.5)},
        {"split_shares": (1.0, 0.0, 0.0)},
        {"split_seed": -1},
        {"class_names": ("a", "a")},
        {"fewest_classes": 0},
    ],
)
def test_options_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        DataOptions(**fields)


@pytest.mark.parametrize("name", ["path", "label", "site", "patient", "split"])
def test_a_named_column_without_a_table_is_refused(make_folder, name):
    root = make_folder(TWO_SITES)
    with pytest.raises(ColumnError, match="there is no such table"):
        load_dataset(str(root), DataOptions(**{f"{name}_column": "fold"}))


def test_of_one_hospital_by_itself_nothing_is_said_of_others(make_folder, write_csv):
    root = make_folder(TWO_SITES)
    rows = [(path, "test" if "malignant" in path else "train") for path in listed(root)]
    write_csv(root / "metadata.csv", ("path", "split"), rows)
    dataset, _ = load_dataset(str(root))
    own = dataclasses.replace(dataset, records=tuple(r for r in dataset.records if r.site == "north"))
    message = kinds(check_dataset(own))["class_not_in_training"].message
    assert "no training image here; other hospitals may have some" in message
    assert "any site" not in message


def test_a_folder_that_another_user_keeps_closed_is_named(make_folder, monkeypatch):
    root = make_folder(TWO_SITES)
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    with pytest.raises(SourceFormatError, match=r"north/malignant: cannot be read \(Permission denied\); get access"):
        load_dataset(str(root))


def refusing(call):
    """Return a call of the system that is denied for one folder: the tests may run as root."""

    def refused(path):
        if str(path).endswith("malignant"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return call(path)

    return refused
