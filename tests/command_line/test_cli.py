"""The command line as a user meets it: help, results, one-line errors with the way out, exit codes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from securefed.commands.failure import run_with_one_line_errors
from securefed.errors import RunFolderError

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    [],
    ["simulate"],
    ["sweep"],
    ["evaluate"],
    ["predict"],
    ["encode"],
    ["data"],
    ["data", "inspect"],
    ["data", "demo"],
    ["audit"],
    ["audit", "verify"],
    ["audit", "report"],
    ["audit", "compare"],
    ["audit", "attack"],
    ["audit", "ledger"],
    ["audit", "ledger", "show"],
    ["audit", "ledger", "policy"],
    ["audit", "ledger", "renew"],
    ["audit", "ledger", "history"],
    ["keys"],
    ["keys", "new"],
    ["keys", "roster"],
    ["protocol"],
    ["protocol", "plan"],
    ["protocol", "attack"],
    ["privacy"],
    ["privacy", "plan"],
    ["privacy", "check"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "securefed")
def test_help_fits_a_screen(call, command):
    code, out, err = call(*command, "--help")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    options = [line for line in lines if line.startswith("  --")]
    assert all(len(line.split("  ")) > 2 for line in options)


def test_help_does_not_load_torch():
    code = "import sys, cli; cli.cli(['simulate', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_run_on_images_from_start_to_prediction(call, images):
    code, out, err = call("simulate", "--data", images, "--encoder", "demo", "--rounds", 2, "--output", "run")
    assert code == 0, err
    assert "mean over sites" in out
    assert "NOT CLAIMED" in out
    assert err.startswith("SIMULATION")
    code, out, _ = call("evaluate", "run", "--json", "--quiet")
    assert code == 0
    summary = json.loads(Path("run/summary.json").read_text())
    evaluated = json.loads(out)
    assert evaluated["mean"] == summary["mean"]
    code, out, _ = call("predict", "run", images / "a" / "dark", "--site", "a", "--json")
    assert code == 0
    predictions = json.loads(out)
    assert len(predictions) == 10
    assert sum(predictions[0]["probabilities"]["ensemble"].values()) == pytest.approx(1, abs=1e-4)
    assert set(predictions[0]["probabilities"]) == {"fam", "mlp", "ensemble"}
    code, out, _ = call("predict", "run", images / "b" / "bright" / "0.png")
    assert code == 0
    assert "bright" in out


def test_the_second_run_encodes_no_image(call, images):
    results = []
    for name in ("one", "two"):
        code, out, err = call("simulate", "--data", images, "--rounds", 1, "--output", name, "--json", "--quiet")
        assert code == 0, err
        assert all(line.startswith("warning: ") for line in err.splitlines())  # no progress
        assert "80 images have no patient and are split by their content" in err
        results.append(json.loads(out))
    assert results[0]["provenance"]["images_encoded"] == 80
    assert results[1]["provenance"]["images_encoded"] == 0
    assert results[0]["fam_sha256"] == results[1]["fam_sha256"]


def test_exported_features_give_the_same_model(call, images):
    call("simulate", "--data", images, "--rounds", 1, "--output", "one", "--quiet")
    code, out, _ = call("encode", "--data", images, "--export", "features.npz", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["images_encoded"] == 0
    code, _, err = call("simulate", "--encoder", "features:features.npz", "--rounds", 1, "--output", "two", "--quiet")
    assert code == 0, err
    features = ("--data", "features:features.npz", "--encoder", "features:features.npz", "--json", "--quiet")
    code, out, err = call("evaluate", "one", *features)
    assert code == 0, err
    assert json.loads(out)["mean"] == json.loads(Path("one", "summary.json").read_text())["mean"]
    digests = [json.loads(Path(name, "summary.json").read_text())["fam_sha256"] for name in ("one", "two")]
    assert digests[0] == digests[1]


def test_inspect_counts_and_warns(call, images):
    (images / "a" / "dark" / "broken.png").write_bytes(b"no image")
    code, out, _ = call("data", "inspect", images)
    assert code == 0
    assert "80 images, 2 classes, 4 sites" in out
    assert "warning" in out
    code, out, _ = call("data", "inspect", images, "--json")
    report = json.loads(out)
    assert report["images"] == 80
    assert any(warning["kind"] == "broken_image" for warning in report["warnings"])


def one_class(root):
    for path in root.rglob("dark/*"):
        path.unlink()
    return ["--data", root]


def corrupt(root):
    (root / "a" / "dark" / "0.png").write_bytes(b"\x89PNG broken")
    return ["--data", root, "--strict"]


MISTAKES = {
    "missing folder": (lambda root: ["--data", "no/such/folder"], 2, "check --data"),
    "one-class data": (one_class, 1, "at least two classes"),
    "corrupt image": (corrupt, 1, "repair or remove"),
    "unknown encoder": (lambda root: ["--data", root, "--encoder", "ViT-B-23/openai"], 2, "did you mean"),
    "unknown weights": (lambda root: ["--data", root, "--encoder", "ViT-B-32/opnai"], 2, "ViT-B-32/openai"),
    "unknown config key": (lambda root: ["--set", "federation.round=3"], 2, "did you mean rounds"),
    "negative rounds": (lambda root: ["--rounds", "-3"], 2, "use 1 or more"),
    "read-only output": (lambda root: ["--output", "/proc/securefed-run"], 1, "writable place"),
    "unknown option": (lambda root: ["--round", "3"], 2, "No such option"),
    "unknown method": (lambda root: ["--method", "fedsgd"], 2, "fedmedclip"),
    "unknown site to drop": (lambda root: ["--data", root, "--drop", "x@1:Unmasking"], 2, "there is no site"),
    "missing config": (lambda root: ["--config", "none.toml"], 2, "check the path"),
    "resume of nothing": (lambda root: ["--resume", "none"], 2, "no run folder"),
    "resume with flags": (lambda root: ["--resume", "none", "--rounds", "3"], 2, "no other option"),
    "missing column": (lambda root: ["--data", root, "--split-column", "fold"], 2, "--split-column"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_with_the_way_out(call, images, mistake):
    make, expected, says = MISTAKES[mistake]
    code, out, err = call("simulate", "--quiet", *make(images))
    assert out == ""
    assert code == expected if expected is not None else code in (1, 2)
    errors = [line for line in err.splitlines() if line.lower().startswith("error")]
    assert len(errors) == 1, err
    assert says in errors[0]
    assert "Traceback" not in err


def test_one_client_with_secure_aggregation_is_told_what_to_do(call, images):
    for site in ("b", "c", "d"):
        for path in (images / site).rglob("*.png"):
            path.unlink()
    code, _, err = call("simulate", "--quiet", "--data", images, "--secure-agg")
    assert code == 2
    assert "a sum over 1 hospital hides nobody" in err
    assert "--clients" in err
    code, _, err = call("simulate", "--quiet", "--data", images, "--clients", 3, "--rounds", 1, "--output", "run")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["evaluate", "none"], 2, "no run folder"),
        (["predict", "none", "x.png"], 2, "no run folder"),
        (["predict", "none"], 2, "Missing argument"),
        (["data", "inspect", "none"], 2, "check --data"),
        (["data", "demo", "/proc/x"], 1, "name a new folder"),
        (["encode", "--export", "x.csv", "--data", "none"], 2, "check --data"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_other_commands_fail_in_one_line_too(call, arguments, code, says):
    got, out, err = call(*arguments)
    assert (got, out) == (code, "")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "full", "heads.jsonl"), "heads.jsonl cannot be opened or written (full); free space"),
        (OSError(errno.EIO, "bad", "heads.jsonl"), "heads.jsonl cannot be opened or written (bad); the disk, or the"),
        (OSError(errno.EIO, "bad"), "the output or a file cannot be written or read (bad); the disk, or the way to it"),
    ],
)
def test_a_disk_that_refuses_a_file_is_one_line_that_names_it(monkeypatch, capsys, error, says):
    @click.group(invoke_without_command=True)
    def group():
        raise error

    monkeypatch.setattr("sys.argv", ["securefed"])
    monkeypatch.setattr("securefed.commands.failure._abandon_stdout", lambda: None)
    assert run_with_one_line_errors(group) == 1
    assert capsys.readouterr().err.startswith(f"error: {says}")


def test_what_was_noted_on_an_error_stands_after_it(monkeypatch, capsys):
    @click.group(invoke_without_command=True)
    def group():
        error = RunFolderError(Path("run"), "cannot be written")
        error.add_note("go on so")
        raise error

    monkeypatch.setattr("sys.argv", ["securefed"])
    assert run_with_one_line_errors(group) != 0
    assert capsys.readouterr().err == "error: run: cannot be written. go on so\n"


def test_output_that_cannot_be_written_is_one_line_too():
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "cli", "--help"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert (
        result.stderr
        == "error: the output cannot be written (No space left on device); free space, or write elsewhere\n"
    )


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "give this user the right to, or name another place"),
        (errno.EROFS, "give this user the right to, or name another place"),
        (errno.ENOSPC, "free space there"),
    ],
)
def test_a_place_that_is_closed_or_full_is_one_line_whatever_the_command(call, tmp_path, monkeypatch, number, says):
    def refuse(*_arguments, **_options):
        raise OSError(number, os.strerror(number), str(tmp_path / "logs"))

    monkeypatch.setattr("securefed.commands.deploy._open", refuse)
    code, _, err = call("deploy", "flower", "start", tmp_path)
    assert code == 1
    assert err.startswith(f"error: {tmp_path / 'logs'} cannot be opened or written (")
    assert err.endswith(f"; {says}\n")
    assert err.count("\n") == 1


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 4.00 MiB is "
    "free. Including non-PyTorch memory, this process has 7.70 GiB memory in use. If reserved but unallocated memory "
    "is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (
            "OutOfMemoryError",
            OUT_OF_MEMORY,
            "20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 4.00 MiB is free)",
        ),
        ("AcceleratorError", "CUDA error: out of memory\nCUDA kernel errors might", "(CUDA error: out of memory)"),
    ],
)
def test_the_memory_of_a_gpu_running_out_is_one_line(call, images, monkeypatch, kind, text, says):
    import torch

    def runs_out(*_arguments, **_options):
        raise getattr(torch, kind)(text)

    monkeypatch.setattr("securefed.simulation.simulate", runs_out)
    code, _, err = call("simulate", "--data", images, "--rounds", 1, "--quiet")
    assert code == 1
    assert err.startswith("error: the memory of the GPU does not suffice (")
    assert says in err
    assert "encoder.batch_size" in err
    assert "--device cpu" in err
    assert "simulate --resume RUN" in err
    assert err.count("\n") == 1


def test_a_second_output_is_never_overwritten(call, images):
    call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")
    before = Path("run/summary.json").read_bytes()
    code, _, err = call("simulate", "--data", images, "--rounds", 1, "--output", "run", "--quiet")
    assert code == 1
    assert "never overwrites" in err
    assert Path("run/summary.json").read_bytes() == before


def test_ctrl_c_tells_how_to_go_on_and_resume_ends_with_the_same_model(images, tmp_path):
    environment = {**os.environ, "SECUREFED_CACHE": str(tmp_path / "cache")}
    base = [sys.executable, str(ROOT / "cli.py"), "simulate"]
    common = ["--data", str(images), "--rounds", "30"]
    whole = subprocess.run(
        [*base, *common, "--output", str(tmp_path / "whole"), "--json"], env=environment, capture_output=True
    )
    assert whole.returncode == 0, whole.stderr
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        [*base, *common, "--output", str(cut)], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (cut / "checkpoint" / "latest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"--resume {cut}" in err
    assert "Traceback" not in err
    resumed = subprocess.run([*base, "--resume", str(cut), "--json"], env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["fam_sha256"] == json.loads(whole.stdout)["fam_sha256"]
