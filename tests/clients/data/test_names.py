"""Names of sites and classes: which there can be, and in which form."""

import numpy as np
import pytest

from clients.data import DataOptions, SiteError, SourceFormatError, load_dataset
from clients.data.rows import Row, unrecordable
from securefed.sweep.table import MEAN


@pytest.mark.parametrize("sign", ["\x1b", "\x7f", "\x9b"])
def test_a_site_has_no_name_that_a_terminal_takes_for_a_command(make_folder, sign):
    root = make_folder({f"north{sign}2J": {"benign": 2}, "south": {"malignant": 2}})
    with pytest.raises(SiteError, match="is no name for a site"):
        load_dataset(str(root))


def test_no_site_is_called_what_results_call_the_mean(make_folder):
    with pytest.raises(SiteError, match="is what results call the mean of all; rename it"):
        load_dataset(str(make_folder({MEAN: {"benign": 2}, "south": {"malignant": 2}})))
    assert load_dataset(str(make_folder({f"{MEAN} 2": {"benign": 2, "malignant": 2}}, "other")))[0].sites == (
        f"{MEAN} 2",
    )


@pytest.mark.parametrize("sign", ["\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069"])
def test_no_name_reorders_the_text_around_it(make_folder, sign):
    told = f"holds U\\+{ord(sign):04X}, which reorders the text around it; rename it"
    site = make_folder({f"north{sign}1": {"benign": 2}, "south": {"malignant": 2}}, "site")
    with pytest.raises(SiteError, match=told):
        load_dataset(str(site))
    label = make_folder({"north": {f"benign{sign}1": 2}, "south": {"malignant": 2}}, "label")
    with pytest.raises(SourceFormatError, match=rf"the class 'benign.*1' {told}"):
        load_dataset(str(label))
    hebrew = make_folder({"\u05d0\u05d1": {"benign": 2, "\u0627\u0628": 2}}, "hebrew")
    assert load_dataset(str(hebrew))[0].sites == ("\u05d0\u05d1",)


def test_names_of_folders_are_the_same_in_every_form_of_unicode(make_folder):
    """Two hospitals' systems write one class in two forms: it is one class, as one site is one site."""
    root = make_folder({"lyon": {"tum\u00f6r": 2, "ja": 1}, "nice": {"tumo\u0308r": 2}, "su\u0308d": {"ja": 2}})
    dataset, _ = load_dataset(str(root), DataOptions(global_site="su\u0308d"))
    assert dataset.classes == ("ja", "tum\u00f6r")
    assert dataset.all_sites == ("lyon", "nice", "s\u00fcd")
    assert dataset.global_site == "s\u00fcd"
    assert dataset.load(len(dataset.records) - 1).size == (12, 10)


@pytest.mark.parametrize("name", ["x" * 201, "two\nlines", "bell\x07", "blank "])
def test_names_that_no_record_can_hold_are_refused_before_a_run_begins(make_folder, name):
    with pytest.raises(SourceFormatError, match=r"can be recorded|control characters|with a blank") as caught:
        load_dataset(str(make_folder({"north": {name: 1, "other": 1}})))
    assert "\n" not in str(caught.value)
    with pytest.raises(SiteError):
        load_dataset(str(make_folder({name: {"benign": 1, "other": 1}}, "sites")))


def test_a_class_of_images_has_a_name(tmp_path):
    arrays = {"train_images": np.zeros((3, 4, 4), np.uint8), "train_labels": np.arange(3)}
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(SourceFormatError, match="the class '' is empty; give it a name"):
        load_dataset(str(tmp_path / "set.npz"), DataOptions(class_names=("x", "", "y")))


def test_a_name_is_no_longer_than_a_roster_can_hold_in_bytes():
    assert unrecordable("\u540d" * 85) == ""
    assert unrecordable("\u540d" * 86) == "has 258 bytes in UTF-8, at most 255 can be recorded; use a shorter name"


def test_a_patient_is_one_however_a_system_writes_the_accent():
    assert Row("a.png", "s", "l", "Mu\u0308ller") == Row("a.png", "s", "l", "M\u00fcller")
    assert Row("a.png", "s", "l").patient is None
