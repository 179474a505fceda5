"""What a hospital is told about its own images: by `site check`, and by the log of its node."""

import dataclasses
import json

import numpy as np
import pytest
from deployed import BUNDLE
from site_trial import Folders, FolderWire, Trial, call

from audit.log import read_events
from clients.encoders import export_features, load_features
from securefed.deploy.errors import DeploymentError
from securefed.errors import ConfigError
from securefed.nodes.control import ControlStage, RefusedBySiteError, decode_reply, encode_request
from securefed.nodes.site_run import CONTROL_VERSION, UNUSABLE
from securefed.site.opening import CHANGED, open_site
from securefed.study.terms import terms_of
from tests.nodes.private_trial import LOCAL, PatientTrial, hello


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
    assert "(1 of them: it is no JPEG, PNG, TIFF or BMP file; for example clinic/oak/broken.png)" in " ".join(
        said.split()
    )
    assert "1 patients are in more than one split" in said
    assert "no image here of pine, willow" in said
    assert "the study's roster has another key for clinic, or none" in said
    assert "no budget is set" in said
    assert "Traceback" not in said


def test_a_hospital_needs_its_own_images_alone_and_is_told_why_none_can_be_read(tmp_path):
    from PIL import Image

    rows = ["path,label,site,patient,split"]
    for number in range(8):
        Image.new("RGB", (8, 8), (number * 20, 10, 10)).save(tmp_path / f"{number}.png")
        rows += [f"{site}{number}.png,{('oak', 'pine')[number % 2]},{name},{name}{number},train"
                 for name, site in (("own", ""), ("other", "elsewhere/"))]  # fmt: skip
    (tmp_path / "images.csv").write_text("\n".join(rows) + "\n")
    call("site", "init", tmp_path / "own", "--name", "own", "--data", tmp_path / "images.csv")
    settings = tmp_path / "own" / "site.toml"
    before = settings.read_text()
    settings.write_text(before.replace('site_column = ""', 'site_column = "clinic"'))
    said = " ".join(call("site", "check", tmp_path / "own", code=1).output.split())
    assert "there is no column 'clinic'; name it by the setting data.site_column (" in said
    settings.write_text(before)
    settings.write_text(settings.read_text().replace('part = ""', 'part = "own"'))
    assert "8 images of 2 classes" in call("site", "check", tmp_path / "own").output
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    said = " ".join(call("site", "check", tmp_path / "own", code=1).output.split())
    assert "restore them (8 of them: it is no JPEG, PNG, TIFF or BMP file; for example 0.png)" in said


def test_data_that_are_not_there_are_named_when_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    warned = {"demo": False, "there": False, "features:there": False, "gone": True, "features:gone": True}
    for number, (data, is_warned) in enumerate(warned.items()):
        said = call("site", "init", f"site{number}", "--name", "clinic", "--data", data).stderr
        assert (f"warning: there are no data at {data}; put the data there" in said) is is_warned


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


def _other_data(trial, name, site):
    """Put other images where a hospital's are, after it has approved the study."""
    (own,) = (part for part in BUNDLE.sites if part.site == site)
    digests = ("f" * 64, *own.train.digests[1:])
    sites = (dataclasses.replace(own, train=dataclasses.replace(own.train, digests=digests)),)
    export_features(dataclasses.replace(BUNDLE, sites=sites), trial.root / f"{site}.safetensors")


def _refused(trial, run):
    events = [event for event in read_events(trial.root / run / "audit.jsonl") if event.kind == "refused"]
    return [(event.fields["hospital"], event.fields["what"], event.fields["reason"]) for event in events]


def test_data_that_changed_since_the_approval_are_refused_by_name_before_the_first_round(trial, caplog):
    _other_data(trial, "south", "site1")
    (trial.root / "site2.safetensors").unlink()
    stages = []
    with Folders(trial) as folders:
        wire = FolderWire(folders)

        def noting(_way, stage, _site, _round, frame):
            stages.append(stage)
            return [frame]

        wire.change.append(noting)
        with pytest.raises(DeploymentError, match="2 of 4 hospitals are ready") as caught:
            trial.serve("run", wire)
    assert set(stages) == {"Hello"}
    assert f"south: data: {CHANGED}" in str(caught.value)
    assert f"east: data: {UNUSABLE}" in str(caught.value)
    assert "site2" not in str(caught.value)
    assert "site2.safetensors" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


def test_other_features_of_the_same_images_are_other_data(trial):
    file = trial.root / "site1.safetensors"
    export_features(dataclasses.replace(load_features(file), logit_scale=7.0), file)
    hello = {"version": CONTROL_VERSION, "software": "x", "run_id": "run", "study": trial.study.digest,
             "roster": trial.study.roster.digest}  # fmt: skip

    def answered():
        node = open_site(trial.path("south"))
        try:
            reply = decode_reply(ControlStage.HELLO, node.handle("Hello", encode_request(ControlStage.HELLO, hello)))
            node.node._trainer.score(terms_of(trial.study).initial_vector)
            return reply
        finally:
            node.close()

    with pytest.raises(RefusedBySiteError, match=CHANGED):
        answered()
    assert f"wrong approval {CHANGED}" in _checked(trial, "south", code=1)
    trial.approve("south")
    assert answered()
    assert CHANGED not in _checked(trial, "south", code=0)


def _checked(trial, name, code):
    said = call("site", "check", trial.path(name), "--study", trial.root / "study.toml", code=code).output
    return " ".join(said.split())


@pytest.mark.parametrize("select", ["last", "best-val"])
def test_data_that_change_in_the_middle_cost_the_hospital_its_rounds_and_are_named(tmp_path, caplog, select):
    trial = Trial(tmp_path, federation__select=select)
    with Folders(trial) as folders:
        wire = FolderWire(folders)

        def losing(_way, stage, site, _round, frame):
            if (stage, site) == ("ShareKeys", "south"):
                _other_data(trial, "south", "site1")
            return [frame]

        wire.change.append(losing)
        summary = trial.serve("run", wire)
    assert set(_refused(trial, "run")) == {("south", "data", UNUSABLE)}
    assert summary["rounds_completed"] == 2
    assert f"south: round 1: data: {CHANGED}" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.usefixtures("no_replay")
def test_patients_that_are_told_apart_since_the_approval_are_other_data(tmp_path):
    """The images are the same, and what is promised of a patient would be kept for single images."""
    trial = PatientTrial(tmp_path, **LOCAL)
    first = terms_of(trial.study).initial_vector
    trial.patients("west", images=1)
    with Folders(trial) as folders:
        with pytest.raises(RefusedBySiteError, match=CHANGED):
            hello(trial, folders)
        with pytest.raises(ConfigError, match=CHANGED):
            folders.nodes["west"].node._trainer.train(first, 1)
    assert CHANGED in _checked(trial, "west", code=1)
    assert trial.charges("west") == ()
    trial.approve("west")
    with Folders(trial) as folders:
        hello(trial, folders)


@pytest.mark.usefixtures("no_replay")
def test_patients_that_change_between_two_readings_of_the_data_are_noticed(tmp_path, monkeypatch):
    trial = PatientTrial(tmp_path, **LOCAL)
    from securefed.site import opening

    own_features = opening.own_features

    def changing(*arguments):
        bundle = own_features(*arguments)
        trial.patients("west", images=1)
        return bundle

    with Folders(trial) as folders:
        hello(trial, folders)
        monkeypatch.setattr(opening, "own_features", changing)
        with pytest.raises(ConfigError, match=CHANGED):
            folders.nodes["west"].node._trainer.train(terms_of(trial.study).initial_vector, 1)


def test_a_training_image_without_a_patient_is_found_before_a_study_of_patients_is_approved(tmp_path):
    trial = PatientTrial(tmp_path, **LOCAL)
    trial.patients("west", without=1)
    said = _checked(trial, "west", code=1)
    assert "west has training images without a patient; name the column by" in said
    refused = trial.approve("west", code=1)
    assert "not approved. data: privacy.unit: patient: west has training images" in str(refused.exception)


def test_a_folder_that_does_not_bind_the_patients_has_to_approve_again(tmp_path):
    trial = PatientTrial(tmp_path, **LOCAL)
    data = trial.path("west") / "data.json"
    kept = json.loads(data.read_bytes())
    data.write_text(json.dumps({name: kept[name] for name in ("fingerprint", "features")}))
    with pytest.raises(ConfigError, match="does not bind who the patients are; run `site approve` again"):
        open_site(trial.path("west"))
    trial.approve("west")
    open_site(trial.path("west")).close()
