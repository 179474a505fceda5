"""What a hospital has kept of a run: evaluated again on its own data, and called what it is, which is no record."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from site_trial import NAMES, Folders, FolderWire, Trial, call

from securefed.run_folder import read_metric_rows

SPLITS = (*["train"] * 3, *["val"] * 3, *["test"] * 3)


def images_of(root, name):
    """Write eighteen images of two classes below a folder; return (path, class, split) of each."""
    draw = np.random.default_rng(NAMES.index(name))
    found = []
    for label in ("oak", "pine"):
        (root / label).mkdir(parents=True)
        for number, split in enumerate(SPLITS):
            path = root / label / f"{number}.png"
            Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
            found.append((path, label, split))
    return found


class ImageTrial(Trial):
    """Two hospitals are parts of one manifest with names of its own; each of the others has a folder of one site."""

    classes, encoder = ("oak", "pine"), "demo"

    def place(self, name):
        if name in ("east", "west"):
            root = self.root / f"{name}_images"
            listed = [(path.relative_to(root), split) for path, _, split in images_of(root / "mysite", name)]
            (root / "metadata.csv").write_text("path,split\n" + "".join(f"{path},{split}\n" for path, split in listed))
            return "--data", root
        with (self.root / "images.csv").open("a") as manifest:
            if not manifest.tell():
                manifest.write("file,dx,wing,fold\n")
            for path, label, split in images_of(self.root / f"{name}_images", name):
                manifest.write(f"{path},{label},{name} wing,{split}\n")
        return ("--data", self.root / "images.csv", "--part", f"{name} wing", "--path-column", "file",
                "--label-column", "dx", "--site-column", "wing", "--split-column", "fold")  # fmt: skip


def served(trial):
    with Folders(trial) as folders:
        trial.serve("run", FolderWire(folders))
    return trial


@pytest.fixture(scope="module")
def of_features(tmp_path_factory):
    return served(Trial(tmp_path_factory.mktemp("features")))


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    return served(ImageTrial(tmp_path_factory.mktemp("images"), federation__rounds=1))


def kept(trial, name):
    return trial.path(name) / "runs" / "run"


def evaluated(trial, name, *more, code=0):
    result = call("evaluate", kept(trial, name), "--json", *more, code=code)
    return json.loads(result.stdout) if not code else str(result.exception)


def test_a_hospital_evaluates_its_own_test_images_again_and_nothing_gets_into_the_users_cache(
    of_features, of_images, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    for trial in (of_features, of_images):
        for name in NAMES:
            found = evaluated(trial, name)
            assert list(found["sites"]) == [name]
            assert found["warnings"] == []
            rows = [row for row in read_metric_rows(kept(trial, name) / "metrics.csv") if row.round == -1]
            assert rows
            assert {(row.part, row.metric): row.value for row in rows} == {
                (part, metric): pytest.approx(value, abs=1e-12)
                for part, metrics in found["sites"][name].items()
                for metric, value in metrics.items()
                if (part, metric) in {(row.part, row.metric) for row in rows}
            }
    image = tmp_path / "new.png"
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(image)
    (found,) = json.loads(call("predict", kept(of_images, "east"), image, "--site", "east", "--json").stdout)
    assert set(found["probabilities"]["ensemble"]) == {"oak", "pine"}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [image]


def test_other_data_of_a_hospital_are_its_part_or_the_one_site_there_and_images_it_trained_on_are_told(of_images):
    manifest, root = of_images.root / "images.csv", of_images.root
    own = evaluated(of_images, "north")["sites"]
    assert evaluated(of_images, "north", "--data", manifest) | {"warnings": []} == evaluated(of_images, "north")
    (root / "again.csv").write_text(manifest.read_text().replace("north wing", "any").replace("south wing", "any"))
    lines = (root / "again.csv").read_text().splitlines()
    (root / "again.csv").write_text("\n".join([lines[0], *(line for line in lines if "north_images" in line)]))
    assert evaluated(of_images, "north", "--data", root / "again.csv")["sites"] == own
    shutil.copytree(root / "east_images", root / "elsewhere")
    listed = (root / "elsewhere" / "metadata.csv").read_text()
    (root / "elsewhere" / "metadata.csv").write_text(listed.replace("train", "test"))
    told = evaluated(of_images, "east", "--data", root / "elsewhere")["warnings"]
    assert "--data: 6 of 12 test images, or other images of their patients, were no test images of" in " ".join(told)


def test_what_cannot_be_evaluated_is_refused_by_name(of_images):
    manifest, root = of_images.root / "images.csv", of_images.root
    (root / "others.csv").write_text(manifest.read_text().replace("north wing", "east wing"))
    said = evaluated(of_images, "north", "--data", root / "others.csv", code=2)
    assert said == (
        "--data: has the sites east wing, south wing, none of which is north wing; name data with one site only"
    )
    changed = shutil.copytree(kept(of_images, "south"), root / "changed")
    text = (changed / "hospital.toml").read_text()
    (changed / "hospital.toml").write_text(text.replace('part = "south wing"', 'part = "north wing"'))
    said = str(call("evaluate", changed, code=2).exception)
    assert "is not what the run was made with any more" in said
    (changed / "hospital.toml").unlink()
    said = str(call("evaluate", changed, code=2).exception)
    assert "the data of a deployment lie at its hospitals" in said
    assert "--data" in said


def test_what_a_hospital_keeps_is_no_record_and_its_card_says_where_that_is(of_features):
    results = kept(of_features, "north")
    card = (results / "model_card.md").read_text()
    assert f"Study: digest `{of_features.digest}`" in card
    assert "heads/run.jsonl" in card
    assert "audit.jsonl" not in card
    assert json.loads((results / "summary.json").read_text())["config_digest"] not in card
    assert "Record of the run: `audit.jsonl`" in (of_features.root / "run" / "model_card.md").read_text()
    for command in ("verify", "report", "compare", "attack"):
        said = str(call("audit", command, results, code=2).exception)
        assert "the results of one hospital; the record is in the server's run folder" in said
    whole = shutil.copytree(of_features.root / "run", of_features.root / "whole")
    (whole / "audit.jsonl").unlink()
    assert "DOES NOT VERIFY" in str(call("audit", "verify", whole, code=3).exception)
