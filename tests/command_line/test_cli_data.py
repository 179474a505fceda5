"""What commands say of data and models: other data, images trained on, closed folders, what cannot be predicted."""

import errno
import json
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from audit.log import read_events


def test_an_option_that_is_empty_does_not_mean_the_runs_own_data(call, images):
    call("simulate", "--data", str(images), "--encoder", "demo", "--rounds", "1", "--output", "run", "--quiet")
    for command, option in (("evaluate", "--data"), ("evaluate", "--encoder"), ("predict", "--encoder")):
        code, _, err = call(command, "run", *([images] if command == "predict" else []), option, "")
        assert (code, err.splitlines()[-1]) == (2, f"error: {option}: is empty; name one, or leave the option out")


def test_a_run_is_not_evaluated_at_sites_that_it_has_not(call, images):
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    shutil.copytree(images, "others")
    Path("others", "b").rename(Path("others", "new"))
    code, out, err = call("evaluate", "run", "--data", "others", "--quiet")
    assert (code, out) == (2, "")
    assert "--data: has the sites new, which are not in this run; its sites are a, b, c, d" in err


def test_data_that_lack_a_class_of_the_run_are_judged_by_the_classes_they_have(call, images):
    for site in ("a", "b", "c", "d"):
        shutil.copytree(images / site / "dark", images / site / "light")
        for path in (images / site / "light").iterdir():
            path.write_bytes((images / site / "bright" / path.name).read_bytes() + b"copy")
    with_splits(images, lambda number: ("train", "train", "val", "test", "test")[number % 5])
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    shutil.copytree(images, "others")
    for site in ("a", "b", "c", "d"):
        shutil.rmtree(Path("others", site, "bright"))
    code, out, err = call("evaluate", "run", "--data", "others", "--json")
    assert code == 0, err
    assert "there is no image of bright; metrics are over the classes that a site has images of" in err
    site = json.loads(Path("run/evaluation.json").read_text())["sites"]["a"]
    counts = np.array(site["confusion"])[1:]
    told = json.loads(out)["sites"]["a"]["ensemble"]
    assert told["num_images"] == counts.sum() == 8
    assert told["accuracy"] == pytest.approx((counts[0, 1] + counts[1, 2]) / 8)
    assert told["balanced_accuracy"] == pytest.approx((counts[0, 1] / 4 + counts[1, 2] / 4) / 2)
    Path("others/metadata.csv").unlink()
    Path("others/a/light").rename("others/a/pale")
    code, out, err = call("evaluate", "run", "--data", "others", "--quiet")
    assert (code, out) == (2, "")
    assert (
        "--data: has the classes pale, which the run has not; its classes are bright, dark, light. Rename them" in err
    )
    for site in ("a", "b", "c", "d"):
        shutil.rmtree(images / site / "light")
    code, out, err = call("evaluate", "run", "--quiet")
    assert (code, out) == (2, "")
    assert "data.source: has no image of light any more; restore them, or name what is to be evaluated" in err


def test_other_data_of_one_class_and_split_are_evaluated_without_a_word_about_training(call, images):
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    shutil.copytree(images, "others", ignore=shutil.ignore_patterns("bright"))
    with_splits(Path("others"), lambda number: "train" if number >= 37 else "test")
    code, out, err = call("evaluate", "run", "--data", "others", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["sites"]["a"]["ensemble"]["num_images"], told["sites"]["a"]["ensemble"]["auroc"]) == (10, None)
    assert not any(words in text for words in ("no training", "splits of") for text in told["warnings"])
    out = call("evaluate", "run", "--data", "others", "--split", "train", "--json")[1]
    for words in ("3 splits of sites have no image", "1 splits of sites have fewer than 5"):
        assert any(text.startswith(words) for text in json.loads(out)["warnings"])
    code, _, err = call("simulate", "--data", "others", "--rounds", 1, "--output", "another", "--quiet")
    assert code != 0
    assert "at least two classes are needed" in err


def test_findings_about_the_data_are_told_when_a_run_is_evaluated(call, images):
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    shutil.copytree(images, "others")
    (Path("others") / "a" / "dark" / "0.png").write_bytes(b"no image")
    code, out, err = call("evaluate", "run", "--data", "others", "--json")
    assert code == 0, err
    told = json.loads(out)["warnings"]
    assert all(f"warning: {text}" in err for text in told)
    assert any("1 images cannot be read" in text for text in told)
    assert any("79 of 79 images come without a split and were divided anew" in text for text in told)
    assert not any("too good; leave" in text for text in told)
    shutil.rmtree(images)
    _, out, _ = call("evaluate", "run", "--data", "others", "--json")
    assert any("are not here to compare" in text for text in json.loads(out)["warnings"])


def with_splits(root, split_of, patient=""):
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    rows = [f"{path},{patient and path.replace('/', '-')},{split_of(number)}" for number, path in enumerate(paths)]
    (root / "metadata.csv").write_text("\n".join(["path,patient,split", *rows]))


def test_a_relative_source_is_looked_for_where_the_run_was_started(call, images, monkeypatch):
    assert call("simulate", "--data", "images", "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    code, _, err = call("evaluate", "../run", "--quiet")
    assert code == 2
    assert f"images: no such file or folder in {Path.cwd()} (a run is evaluated and resumed from the folder in" in err
    code, _, err = call("simulate", "--data", images, "--encoder", "local-dir:clip", "--quiet")
    assert code == 2
    assert f"there is no such folder in {Path.cwd()} (a run" in err
    code, _, err = call("simulate", "--data", images / "gone", "--quiet")
    assert "gone: no such file or folder; check --data" in err


@pytest.mark.parametrize("method", ["linear-probe", "local"])
def test_a_site_without_training_images_is_named(call, images, method):
    with_splits(images, lambda number: "test" if number < 20 else ("train", "val", "test")[number % 3])
    code, _, err = call("simulate", "--data", images, "--method", method, "--rounds", 1, "--output", "run")
    if method == "linear-probe":
        assert code == 2
        assert "linear-probe needs training images at every site and a has none" in err
        assert not Path("run").exists()
    else:
        assert code == 0, err
        assert "1 sites have no training image: they add nothing" in err


@pytest.mark.parametrize("flag", ["--secure-agg", "--no-secure-agg"])
def test_a_site_without_validation_images_is_refused_before_a_folder_is_made(call, images, flag):
    with_splits(images, lambda number: "train" if number < 20 else ("train", "val", "test")[number % 3])
    arguments = ["--data", images, flag, "--rounds", 1, "--output", "run", "--quiet"]
    code, _, err = call("simulate", *arguments)
    assert code == 2
    assert "best-val needs validation images at every site and a has none; use --set federation.select=last" in err
    assert not Path("run").exists()


def break_off(path):
    """Cut the pixels of a PNG short; its checksums are right, so only decoding shows it."""
    content = path.read_bytes()
    size = struct.unpack(">I", content[33:37])[0]
    chunk = b"IDAT" + content[41 : 41 + size // 2]
    end = b"IEND"
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, end)]
    path.write_bytes(content[:33] + b"".join(parts))


def test_images_that_break_off_are_in_the_record_and_a_site_of_them_is_an_error(call, images):
    break_off(images / "a" / "dark" / "0.png")
    (images / "a" / "dark" / "1.png").write_bytes(b"no image")
    code, _, err = call("simulate", "--data", images, "--rounds", 1, "--output", "run")
    assert code == 0, err
    assert "1 images cannot be decoded and are left out" in err
    described = next(event for event in read_events(Path("run/audit.jsonl")) if event.kind == "data_described")
    assert "broken_image: 2" in described.fields["warnings"]
    for path in (images / "b").rglob("*.png"):
        break_off(path)
    code, out, err = call("simulate", "--data", images, "--rounds", 1, "--output", "again", "--quiet")
    assert (code, out) == (1, "")
    assert "no image of b can be decoded; repair them, or take the whole site out of the data" in err


@pytest.mark.parametrize("command", [("data", "inspect"), ("simulate", "--rounds", 1, "--output", "run", "--data")])
def test_a_site_whose_files_cannot_be_read_is_an_error_that_names_one(call, images, command):
    for path in (images / "b").rglob("*.png"):
        path.write_bytes(b"no image")
    code, out, err = call(*command, images)
    assert (code, out) == (1, "")
    assert (
        "no image of b can be read; repair or restore them, or take the whole site out of the data (20 of them: " in err
    )
    assert "it is no JPEG, PNG, TIFF or BMP file; for example b/bright/0.png)" in err
    assert not Path("run").exists()


@pytest.mark.parametrize("private", [(), ("--dp", "local", "--epsilon", 8)])
def test_why_an_image_is_broken_is_told_but_by_a_private_run(call, images, private):
    (images / "a" / "dark" / "0.png").write_bytes(b"no image")
    break_off(images / "a" / "dark" / "1.png")
    code, out, err = call("simulate", "--data", images, "--rounds", 1, "--output", "run", *private)
    assert code == 0, err
    assert "1 images cannot be read and are left out" in err
    assert "1 images cannot be decoded and are left out" in err
    for path in ("a/dark/0.png", "a/dark/1.png"):
        assert (path in err) is not bool(private)
        texts = ("audit.jsonl", "summary.json", "report.html", "config.toml")
        assert not any(path in Path("run", name).read_text() for name in texts)
    code, out, _ = call("data", "inspect", images)
    assert code == 0
    assert "it is no JPEG, PNG, TIFF or BMP file; for example a/dark/0.png" in " ".join(out.split())


@pytest.mark.parametrize("patient", ["", "known"])
def test_images_that_a_run_has_trained_on_are_no_test_images_unnoticed(call, images, patient):
    with_splits(images, lambda number: ("train", "val", "test", "train", "test")[number % 5], patient)
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    shutil.copytree(images, "others")
    if patient:  # the same people, photographed again
        for path in Path("others").rglob("*.png"):
            path.write_bytes(path.read_bytes() + b"again")
    (Path("others") / "metadata.csv").unlink()
    with_splits(Path("others"), lambda _: "test", patient)
    _, out, _ = call("evaluate", "run", "--data", "others", "--json", "--quiet")
    told = json.loads(out)["warnings"]
    assert any(text.startswith("--data: 48 of 80 test images, or other images of their patients") for text in told)
    own = json.loads(call("evaluate", "run", "--json", "--quiet")[1])["warnings"]
    assert not any(text.startswith("--data") for text in own)


def test_other_data_of_a_hospital_that_was_dealt_to_clients_stay_with_its_patients(call, images):
    for site in ("b", "c", "d"):
        shutil.rmtree(images / site)
    with_splits(images, lambda number: ("train", "val", "test", "train")[number % 4], "known")
    arguments = ["--clients", 3, "--seed", 5, "--method", "local", "--rounds", 1, "--output", "run", "--quiet"]
    code, _, err = call("simulate", "--data", images, *arguments)
    assert code == 0, err
    own = json.loads(call("evaluate", "run", "--split", "train", "--json", "--quiet")[1])
    shutil.copytree(images, "others")
    with_splits(Path("others"), lambda _: "test", "known")  # the same people, all of them as test images
    code, out, err = call("evaluate", "run", "--data", "others", "--json", "--quiet")
    assert code == 0, err
    found = json.loads(out)
    assert any(text.startswith("--data: 15 of 20 test images, or other images") for text in found["warnings"])
    assert not any("does not know" in text for text in found["warnings"])
    trained = {site: parts["ensemble"]["num_images"] for site, parts in own["sites"].items()}
    for split in ("val", "test"):
        rest = json.loads(call("evaluate", "run", "--split", split, "--json", "--quiet")[1])
        trained = {site: count + rest["sites"][site]["ensemble"]["num_images"] for site, count in trained.items()}
    assert {site: parts["ensemble"]["num_images"] for site, parts in found["sites"].items()} == trained
    for client in ("client_1", "client_2", "client_3"):  # the same people, photographed again, said to be elsewhere
        (Path("elsewhere") / client).mkdir(parents=True)
    for number, path in enumerate(sorted(Path("others").rglob("*.png"))):
        place = Path("elsewhere") / f"client_{number % 3 + 1}" / path.parent.name / path.name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes() + b"again")
    with_splits(Path("elsewhere"), lambda _: "test", "known")
    metadata = Path("elsewhere") / "metadata.csv"
    named = re.sub(r",client_\d-", ",a-", metadata.read_text())
    metadata.write_text(named)
    told = json.loads(call("evaluate", "run", "--data", "elsewhere", "--json", "--quiet")[1])["warnings"]
    assert any(text.startswith("--data: 15 of 20 test images, or other images") for text in told)
    for path in Path("others").rglob("*.png"):  # other people
        path.write_bytes(path.read_bytes() + b"again")
    metadata = Path("others") / "metadata.csv"
    metadata.write_text(metadata.read_text().replace(",a-", ",new-"))
    told = json.loads(call("evaluate", "run", "--data", "others", "--json", "--quiet")[1])["warnings"]
    assert any(text.startswith("--data: 20 of 20 images are of patients that this run does not know") for text in told)
    assert not any("too good; leave them out" in text for text in told)
    shutil.rmtree(images)
    code, _, err = call("evaluate", "run", "--data", "others", "--quiet")
    assert code == 2
    assert "--data: the run has dealt its data to clients, and they are not here to tell who has which patient" in err
    Path("others/a").rename("others/client_2")  # they name their client themselves
    (Path("others") / "metadata.csv").unlink()
    code, out, err = call("evaluate", "run", "--data", "others", "--json", "--quiet")
    assert code == 0, err
    assert list(json.loads(out)["sites"]) == ["client_2"]


def test_a_run_is_not_evaluated_on_its_own_data_when_they_have_changed(call, images):
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    (images / "b" / "dark" / "3.png").write_bytes((images / "b" / "dark" / "4.png").read_bytes())
    code, out, err = call("evaluate", "run", "--quiet")
    assert (code, out) == (2, "")
    assert "is not what the run was made with any more" in err
    shutil.rmtree(images / "b")
    code, _, err = call("evaluate", "run", "--quiet")
    assert code == 2
    assert "b has 0 test images and had" in err
    assert call("evaluate", "run", "--quiet", "--data", images)[0] == 0


@pytest.mark.parametrize("method", ["local", "linear-probe"])
def test_the_bare_encoder_does_not_pass_for_a_method_that_shares_nothing(call, images, method):
    arguments = ["--method", method, "--rounds", 1, "--output", "run", "--set", "data.global_site=d"]
    code, out, err = call("simulate", "--data", images, *arguments, "--quiet")
    assert code == 0, err
    held_out = next(line for line in out.splitlines() if line.startswith("d (held out)"))
    assert held_out.split()[3] == "zero-shot"
    summary = json.loads(Path("run/summary.json").read_text())
    assert set(summary["global_site"]) == {"site", "zero-shot"}
    evaluated = json.loads(call("evaluate", "run", "--json", "--quiet")[1])
    assert evaluated["global_site"] == summary["global_site"]
    image = images / "a" / "dark" / "0.png"
    code, out, err = call("predict", "run", image)
    assert (code, out) == (2, "")
    assert f"hospitals of {method} share no model; name whose answers: a, b, c" in err
    assert call("predict", "run", image, "--site", "a")[0] == 0
    Path("run/sites/a/mlp.safetensors").unlink()
    code, out, err = call("predict", "run", image, "--site", "a")
    assert (code, out) == (2, "")
    assert "a has no model of its own in this run" in err


def test_prediction_passes_over_what_is_no_image_and_goes_on_after_a_broken_one(call, images):
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    folder = images / "a" / "dark"
    (folder / "._0.png").write_bytes(b"resource fork")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "1.png").write_bytes(b"a thumbnail")
    (folder / "folder.png").mkdir()
    code, out, err = call("predict", "run", folder, "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)) == 10
    (folder / "3.png").write_bytes(b"no image")
    code, out, err = call("predict", "run", folder, "--json")
    assert code == 1
    assert [Path(entry["path"]).name for entry in json.loads(out)] == [f"{i}.png" for i in range(10) if i != 3]
    assert "3.png: the image cannot be read" in err
    assert "1 of 10 files (or folders of them) could not be read" in err
    code, out, err = call("predict", "run", folder / "3.png")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")


def test_prediction_finds_dicom_of_any_name_in_a_folder(call, images):
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    export = images.parent / "export"
    export.mkdir()
    (export / "IM000001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 40)
    (export / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (export / "README").write_bytes(b"an export")
    code, _, err = call("predict", "run", export)
    assert code == 1
    assert "IM000001: the image cannot be read" in "".join(err.splitlines())
    assert "DICOMDIR" not in err


def refusing(call, end):
    """Return a call of the system that is denied where its path ends so: the tests may run as root."""

    def refused(path, *arguments, **options):
        if str(path).endswith(end):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return call(path, *arguments, **options)

    return refused


def test_what_another_user_keeps_closed_is_told_and_taken_for_nothing_else(call, images, monkeypatch):
    assert call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")[0] == 0
    closed = str(images / "b" / "dark")
    monkeypatch.setattr(os, "scandir", refusing(os.scandir, closed))
    code, out, err = call("predict", "run", images / "b", "--json")
    assert code == 1
    assert len(json.loads(out)) == 10
    assert f"{closed}: the folder cannot be read (Permission denied)" in "".join(err.splitlines())
    assert "1 of 11 files (or folders of them) could not be read" in err
    code, _, err = call("predict", "run", closed)
    assert code == 2
    assert f"{closed} has no image in it that can be read" in err
    monkeypatch.setattr(Path, "stat", refusing(Path.stat, "mlp.safetensors"))
    code, _, err = call("predict", "run", images / "b" / "bright", "--site", "a")
    assert code != 0
    assert "run/sites/a/mlp.safetensors: cannot be read (Permission denied); get access for this user" in err


def test_a_run_on_features_without_a_digest_of_the_encoder_says_that_it_knows_no_images(call, images):
    assert call("encode", "--data", images, "--export", "f.npz", "--quiet")[0] == 0
    with np.load("f.npz") as content:
        kept = {name: content[name] for name in content.files if name != "encoder_digest"}
    np.savez("f.npz", **kept)
    arguments = ["--data", "features:f.npz", "--encoder", "features:f.npz", "--rounds", 1, "--output", "run", "--quiet"]
    assert call("simulate", *arguments)[0] == 0
    image = images / "a" / "dark" / "0.png"
    code, _, err = call("predict", "run", image)
    assert code == 2
    assert "name the encoder that computed it" in err
    code, _, err = call("predict", "run", image, "--encoder", "demo")
    assert code == 2
    assert "if nobody wrote an encoder_digest into that file, the run cannot predict images" in err


def test_names_that_look_like_markup_are_printed_as_they_are(call, images):
    site, label, run = "north [red]", "benign [/malignant] :smile:", "run [bold]"
    folder = images / "a" / "dark" / "x["
    folder.mkdir()
    (images / "a" / "dark" / "0.png").rename(folder / "y].png")
    lines = [
        f"{path.relative_to(images)},{site if path.is_relative_to(images / 'a') else path.parts[-3]},"
        f"{label if 'dark' in path.parts else 'bright'}"
        for path in sorted(images.rglob("*.png"))
    ]
    (images / "table.csv").write_text("\n".join(["path,site,label", *lines]))
    code, out, err = call("data", "inspect", images / "table.csv")
    assert (code, site in out, label in out) == (0, True, True), err
    code, out, err = call("simulate", "--data", images / "table.csv", "--rounds", 1, "--output", run, "--quiet")
    assert (code, site in out, f"results: {run}" in out) == (0, True, True), err
    code, out, err = call("predict", run, folder / "y].png", "--site", site)
    assert (code, err) == (0, "")
    assert "x[/y].png" in "".join(out.split())
    assert label in out
    code, out, err = call("audit", "compare", run)
    assert (code, run in out) == (0, True), err
