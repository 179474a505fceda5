import csv
import pickle

import numpy as np
import pytest
from PIL import Image

from clients.data import BrokenImageError, check_dataset, load_dataset
from clients.demo import load_demo_dataset, plan_cohort, source, write_cohort


def test_dataset_has_the_cohort_in_order_of_paths_and_nothing_to_complain_about():
    dataset, findings = load_demo_dataset()
    assert findings == ()
    assert check_dataset(dataset) == ()
    assert dataset.name == "demo"
    assert dataset.sites == ("alder", "birch", "cedar", "hazel", "rowan")
    assert len(dataset.classes) == 6
    paths = [record.path for record in dataset.records]
    assert paths == sorted(paths)
    assert len(paths) == len(plan_cohort(0))


def test_images_are_drawn_when_asked_for_also_in_another_process():
    dataset, _ = load_demo_dataset()
    image = dataset.load(7)
    assert image.mode == "RGB"
    assert (np.asarray(image) == plan_cohort(0)[7].draw()).all()
    copy = pickle.loads(pickle.dumps(dataset.source))
    assert copy.load(dataset.records[7].path).tobytes() == image.tobytes()


def test_unknown_path_is_a_broken_image():
    dataset, _ = load_demo_dataset()
    with pytest.raises(BrokenImageError, match="no such image"):
        dataset.source.load("alder/ring_lesion/9999.png")


def test_written_cohort_is_the_same_data_set(tmp_path, monkeypatch):
    part = plan_cohort(0)[::12]
    monkeypatch.setattr(source, "plan_cohort", lambda: part)
    target = tmp_path / "cohort"
    assert write_cohort(target) == len(part)
    written, _ = load_dataset(str(target))
    facts = [(r.path, r.site, r.label, r.patient, r.split) for r in written.records]
    assert facts == [(item.path, item.site, item.finding, item.patient, item.split) for item in part]
    assert (np.asarray(Image.open(target / part[3].path)) == part[3].draw()).all()
    with (target / "metadata.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(part)


def test_an_interrupt_leaves_no_part_of_the_cohort(tmp_path, monkeypatch):
    """A folder without its manifest would be read as a smaller cohort, and be in the way of the next call."""
    part = plan_cohort(0)[:5]
    monkeypatch.setattr(source, "plan_cohort", lambda: part)
    with monkeypatch.context() as patch:
        draw, drawn = type(part[0]).draw, []

        def interrupted(self):
            drawn.append(self)
            if len(drawn) == len(part):
                raise KeyboardInterrupt
            return draw(self)

        patch.setattr(type(part[0]), "draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_cohort(tmp_path)
    assert (len(drawn), list(tmp_path.iterdir())) == (5, [])
    assert write_cohort(tmp_path) == 5


def test_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(FileExistsError, match="not empty"):
        write_cohort(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
