"""What a hospital is told about its own images: by `site check`, and by the log of its node."""

import dataclasses

import numpy as np
import pytest
from deployed import BUNDLE
from site_trial import Folders, Trial, call

from clients.encoders import export_features
from securefed.site.opening import terms_of


@pytest.fixture
def trial(tmp_path):
    return Trial(tmp_path)


def test_what_is_wrong_with_data_is_said_in_plain_words(trial, tmp_path):
    from PIL import Image

    root = tmp_path / "images" / "clinic"
    for label, count in (("oak", 4), ("pines", 3)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number * 20, 10, 10)).save(root / label / f"{number}.png")
    (root / "oak" / "broken.png").write_bytes(b"no image")
    rows = ["path,label,site,patient,split"]
    rows += [
        f"clinic/oak/{n}.png,oak,clinic,p{n // 2},{split}" for n, split in enumerate(("train", "test", "val", "val"))
    ]
    rows += [f"clinic/pines/{n}.png,pines,clinic,q{n},train" for n in range(3)] + [
        "clinic/oak/broken.png,oak,clinic,z,train"
    ]
    (tmp_path / "images" / "metadata.csv").write_text("\n".join(rows) + "\n")
    call("site", "init", tmp_path / "clinic", "--name", "clinic", "--data", tmp_path / "images")
    result = call("site", "check", tmp_path / "clinic", "--study", trial.root / "study.toml", code=1)
    said = result.output
    assert "the study has no class 'pines'; rename it to 'pine'?" in said
    assert "1 images cannot be read and are left out" in said
    assert "1 patients are in more than one split" in said
    assert "no image here of pine, willow" in said
    assert "the study's roster has another key for clinic, or none" in said
    assert "no budget is set" in said
    assert "Traceback" not in said


def test_kinds_of_findings_are_in_the_log_of_the_node_and_no_count(trial, caplog):
    (own,) = (site for site in BUNDLE.sites if site.site == "site1")
    features = np.concatenate([own.train.features[:1], own.val.features[1:]])
    twice = dataclasses.replace(own.val, features=features, digests=(own.train.digests[0], *own.val.digests[1:]))
    sites = (dataclasses.replace(own, val=twice),)
    export_features(dataclasses.replace(BUNDLE, sites=sites), trial.root / "site1.safetensors")
    trial.approve("south")
    with Folders(trial) as folders, caplog.at_level("WARNING", logger="securefed.site"):
        for name in ("south", "east"):
            folders.nodes[name].node._trainer.score(terms_of(trial.study).initial_vector)
    assert [record.getMessage() for record in caplog.records] == [
        "south: there are findings about the data (duplicate_across_splits); `site check` says them"
    ]
