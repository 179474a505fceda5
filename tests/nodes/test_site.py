"""A hospital's folder from `site init` to the model that it keeps; what it refuses, and in which words."""

import dataclasses
import json
import re
import stat

import numpy as np
import pytest
from deployed import BUNDLE, KilledError
from site_trial import NAMES, Folders, FolderWire, Trial, call, feature_file

from audit.report.purpose import PURPOSE_FIELDS
from audit.verify import verify_run
from protocols.messages import frame_type
from protocols.wire import FrameType
from securefed.config import STAGES
from securefed.deploy.errors import DeploymentError
from securefed.errors import ConfigError, RoundAbortedError, RunFolderError
from securefed.nodes.control import ControlStage, RefusedBySiteError, decode_reply, encode_request
from securefed.nodes.numbering import training_round
from securefed.nodes.site_run import CONTROL_VERSION
from securefed.site.checks import Level, check_site
from securefed.site.folder import SiteFolder
from securefed.site.opening import open_site
from securefed.site.settings import read_settings
from securefed.study import read_study


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """Four hospitals that have approved one study, by the commands that their admins type."""
    return Trial(tmp_path_factory.mktemp("trial"))


@pytest.fixture
def fresh(tmp_path):
    """Hospitals that have not opened a sum yet: over one model they open a second one over the same hospitals only."""
    return Trial(tmp_path)


def test_four_folders_run_a_study_and_each_keeps_its_own_result(trial):
    assert "all hospitals have approved it" in call("study", "check", trial.root / "study.toml",
        *(trial.root / f"{name}.approval.json" for name in NAMES)).output  # fmt: skip
    shown = call("study", "show", trial.root / "study.toml").output
    assert "4 hospitals" in shown
    assert trial.digest in shown
    assert "NOT CLAIMED" in shown
    assert "bytes a round (without compression)." in shown
    (missing,) = re.findall(r"^Not stated: (.*)\.$", shown, re.M)
    assert missing.split(", ") == [name.replace("_", " ") for name, _ in PURPOSE_FIELDS]
    for name in NAMES:
        said = call("site", "check", trial.path(name)).output
        assert "wrong" not in said
        assert "nothing stands in the way" in said
    with Folders(trial) as folders:
        summary = trial.serve("run", FolderWire(folders))
    heads = [trial.path(name) / "heads" / "run.jsonl" for name in NAMES]
    verification = verify_run(trial.root / "run", roster=trial.root / "roster.json", heads=heads)
    assert verification.is_verified, verification.failed
    for name in NAMES:
        status = json.loads(call("site", "status", trial.path(name), "--json").output)
        assert status["study"]["digest"] == trial.digest
        assert status["runs"]["run"]["kept"]["fam_sha256"] == summary["fam_sha256"]
        assert "of the study" not in call("site", "status", trial.path(name)).output
        for path in trial.path(name).rglob("*"):
            closed = stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
            inside = any(parent.name in ("runs", "features", "heads") for parent in path.parents)
            assert closed or inside or path.name in ("identity.pub", "approval.json", ".lock", "study.toml"), path
    # the hospital's private bytes are nowhere in the server's folder
    everything = b"".join(path.read_bytes() for path in (trial.root / "run").rglob("*") if path.is_file())
    own = next(s for s in BUNDLE.sites if s.site == "site0")
    assert np.ascontiguousarray(own.train.features[0, :6]).tobytes() not in everything
    mlp = next((trial.path("north") / "runs" / "run" / "sites").rglob("mlp.safetensors")).read_bytes()
    assert mlp[-64:] not in everything


def test_a_folder_that_others_may_read_is_not_opened(trial):
    key = trial.path("north") / "identity.key"
    key.chmod(0o644)
    try:
        with pytest.raises(RunFolderError, match="may be read by others"):
            open_site(trial.path("north"))
        found = check_site(SiteFolder(trial.path("north")), trial.study, _now())
        assert any(f.topic == "folder" and f.level is Level.WRONG for f in found)
    finally:
        key.chmod(0o600)


def test_two_processes_cannot_run_one_hospital(trial, monkeypatch):
    monkeypatch.setattr("securefed.locks.time.monotonic", iter(range(0, 1000, 6)).__next__)
    node = open_site(trial.path("north"))
    with pytest.raises(DeploymentError, match="in use by another node"):
        open_site(trial.path("north"))
    node.close()
    open_site(trial.path("north")).close()


def _now():
    from securefed.evidence import utc_now

    return utc_now()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"min_threshold": 4}, "the threshold is 3; this hospital wants 4"),
        ({"min_cohort": 9}, "4 hospitals take part; this hospital wants 9"),
        ({"min_corrupt": 1}, "0 colluding hospitals are tolerated; 1 are wanted"),
        ({"threat_models": ["semi-honest"]}, "the threat model is active"),
        ({"encoders": ["a" * 64]}, "is not among policy.encoders"),
        ({"studies": ["a" * 64]}, "is not among policy.studies"),
        ({"max_rounds": 1}, "2 rounds are planned; this hospital accepts 1"),
        ({"max_epsilon": 2.0}, "no epsilon is claimed; this hospital wants at most 2"),
    ],
)
def test_what_the_hospitals_policy_forbids_is_refused_by_the_node(trial, change, says):
    """Also where the study was approved before the policy was tightened."""
    folder = SiteFolder.open(trial.path("east"))
    before = read_settings(folder.settings)
    folder.write(folder.settings, dataclasses.replace(
        before, policy=dataclasses.replace(before.policy, **{k: tuple(v) if isinstance(v, list) else v
                                                              for k, v in change.items()})).encode())  # fmt: skip
    try:
        with pytest.raises(ConfigError, match=says):
            open_site(folder.path)
        assert says in "; ".join(f.text for f in check_site(folder, trial.study, _now()) if f.topic == "policy")
        trial.approve("east", code=1)
    finally:
        folder.write(folder.settings, before.encode())


@pytest.mark.parametrize(
    ("text", "says"),
    [("min_treshold = 3", "did you mean min_threshold"), ("min_cohort = 2", "at least 3"), ("clear = 1", "type bool")],
)
def test_a_typo_in_the_policy_is_refused_by_name(trial, tmp_path, text, says):
    path = tmp_path / "site.toml"
    path.write_text(f'format = "securefed-site/1"\n[site]\nname = "x"\n[data]\nsource = "y"\n[policy]\n{text}\n')
    with pytest.raises(ConfigError, match=says):
        read_settings(path)
    path.write_text('format = "securefed-site/1"\n[data]\nsource = "y"\n')
    with pytest.raises(ConfigError, match="site: is missing"):
        read_settings(path)


def test_the_digest_is_the_one_that_was_read_out_and_never_told(trial):
    wrong = {
        trial.digest[:15]: "--digest: has 15 digits, at least 16 are needed: type those that were read out",
        "0" * 16: "type what the lead read out, or ask why they differ",
        trial.digest + "0": "is not that of ",
    }
    for typed, says in wrong.items():
        result = trial.approve("north", digest=typed, code=2)
        assert says in str(result.exception)
        assert trial.digest[:16] not in str(result.exception) + result.output
    trial.approve("north", digest=f" {trial.digest[:4]} {trial.digest[4:20].upper()}\n")


def test_another_study_than_the_approved_one_is_refused_by_name(trial, tmp_path):
    other = trial.new_study("other.toml", federation__seed=5)
    assert other != trial.digest
    trial.approve("north", "other.toml", digest=trial.digest, code=2)  # the digest that was read out is another
    study = read_study(trial.root / "other.toml")
    hello = {"version": CONTROL_VERSION, "software": "x", "run_id": "r", "study": study.digest,
             "roster": study.roster.digest}  # fmt: skip
    with Folders(trial) as folders:
        for changed, code in (({}, "study"), ({"study": trial.digest, "roster": "0" * 64}, "roster"),
                              ({"study": trial.digest, "version": 1}, "version")):  # fmt: skip
            frame = encode_request(ControlStage.HELLO, {**hello, **changed})
            with pytest.raises(RefusedBySiteError) as caught:
                decode_reply(ControlStage.HELLO, folders.nodes["north"].handle("Hello", frame))
            assert caught.value.code == code
        with pytest.raises(ConfigError, match="approved the study"):
            trial.serve("never", FolderWire(folders), study)
    assert not (trial.root / "never").exists()


def test_an_edited_study_or_changed_data_are_noticed(trial):
    folder = SiteFolder.open(trial.path("south"))
    kept = folder.study.read_bytes()
    folder.write(folder.study, kept.replace(b"rounds = 2", b"rounds = 3"))
    with pytest.raises(ConfigError, match="approved the study"):
        open_site(folder.path)
    folder.write(folder.study, kept)
    fingerprint = folder.data.read_bytes()
    folder.write(folder.data, json.dumps({"fingerprint": "0" * 64}).encode())
    node = open_site(folder.path)
    with pytest.raises(ConfigError, match="data have changed"):
        node.node._trainer.score(trial_vector(trial))
    node.close()
    folder.write(folder.data, fingerprint)


def trial_vector(trial):
    from securefed.study.terms import terms_of

    return terms_of(trial.study).initial_vector


def test_a_folder_is_set_up_for_processes_that_start_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "weights", "demo"):
        (tmp_path / folder).mkdir()
    (tmp_path / "f.safetensors").touch()
    given = [("images", "local-dir:weights"), ("features:f.safetensors", "features:f.safetensors"), ("images", "demo")]
    expected = [
        (str(tmp_path / "images"), f"local-dir:{tmp_path / 'weights'}"),
        (f"features:{tmp_path / 'f.safetensors'}", f"features:{tmp_path / 'f.safetensors'}"),
        (str(tmp_path / "images"), "demo"),
    ]
    for number, ((data, encoder), names) in enumerate(zip(given, expected, strict=True)):
        call("site", "init", f"site{number}", "--name", "clinic", "--data", data, "--encoder", encoder)
        settings = read_settings(SiteFolder.open(tmp_path / f"site{number}").settings)
        assert (settings.data.source, settings.site.encoder) == names


def test_another_encoder_than_the_studys_is_named(trial, tmp_path):
    file = feature_file(tmp_path, "site1", encoder_digest="e" * 64)
    folder = SiteFolder.open(trial.path("south"))
    before = read_settings(folder.settings)
    changed = dataclasses.replace(
        before,
        site=dataclasses.replace(before.site, encoder=f"features:{file}"),
        data=dataclasses.replace(before.data, source=f"features:{file}"),
    )
    folder.write(folder.settings, changed.encode())
    found = check_site(folder, trial.study, _now())
    folder.write(folder.settings, before.encode())
    assert [f.topic for f in found if f.level is Level.WRONG] == ["encoder"]
    assert "the encoder here is eeeeeeeeeeeeeeee" in next(f.text for f in found if f.topic == "encoder")


def test_a_clock_before_the_last_signed_head_is_told(trial, tmp_path):
    from datetime import UTC, datetime

    found = check_site(SiteFolder.open(trial.path("west")), None, datetime(2024, 1, 1, tzinfo=UTC))
    assert any(f.topic == "clock" and f.level is Level.LOOK for f in found)


@pytest.mark.parametrize("stage", STAGES)
def test_a_site_killed_at_any_stage_comes_back_from_its_folder_in_the_next_round(fresh, stage):
    """Its round is lost for it, its secrets are gone; in the next one it takes part again."""
    killed = []

    def die(way, at, site, round_id, frame):
        if way == "down" and (at, site) == (stage, "west") and not killed:
            killed.append(round_id)
            folders.nodes["west"].close()
            folders.nodes["west"] = open_site(fresh.path("west"))
            raise KilledError
        return [frame]

    with Folders(fresh) as folders:
        wire = FolderWire(folders)
        wire.change.append(die)
        summary = fresh.serve(f"killed-{stage}", wire)
    assert summary["secure_aggregation"]["dropouts"][stage] == 1
    assert sum(summary["secure_aggregation"]["dropouts"].values()) == 1
    assert verify_run(fresh.root / f"killed-{stage}", roster=fresh.root / "roster.json").is_verified


def test_a_full_disk_is_said_at_both_ends_and_nothing_half_written_is_left(trial, monkeypatch, caplog):
    node = open_site(trial.path("east"))
    hello = {"version": CONTROL_VERSION, "software": "x", "run_id": "full", "study": trial.study.digest,
             "roster": trial.study.roster.digest}  # fmt: skip

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("audit.durable.os.fsync", full)
        reply = node.handle("Hello", encode_request(ControlStage.HELLO, hello))
    node.close()
    with pytest.raises(RefusedBySiteError, match=r"disk: the site cannot write its state \(No space left on device\)"):
        decode_reply(ControlStage.HELLO, reply)
    assert "east: refused Hello: " in caplog.text
    assert "cannot be written (No space left on device); free space on this disk" in caplog.text
    assert not list(trial.path("east").glob("*.part"))


def test_a_full_disk_makes_a_refusal_and_nothing_leaves(fresh, monkeypatch):
    original, full = SiteFolder.write, []

    def refuse(self, path, content):
        if self.path.name == "west" and full:
            raise RunFolderError(path, "cannot be written (No space left on device)") from OSError(28, "No space left")
        return original(self, path, content)

    monkeypatch.setattr(SiteFolder, "write", refuse)

    def fill(way, stage, site, round_id, frame):
        if (way, stage, site) == ("down", "MaskedInputCollection", "west") and training_round(round_id) == 1:
            full.append(True)
        if (way, stage) == ("down", "CloseRound"):
            full.clear()
        return [frame]

    with Folders(fresh) as folders:
        wire = FolderWire(folders)
        wire.change.append(fill)
        summary = fresh.serve("full", wire)
    assert summary["secure_aggregation"]["dropouts"]["MaskedInputCollection"] == 1
    first = [reply for stage, site, number, _, reply in wire.log
             if (stage, site, training_round(number)) == ("MaskedInputCollection", "west", 1)]  # fmt: skip
    assert [frame_type(reply) for reply in first] == [FrameType.REFUSAL]
    assert len(first[0]) < 60


def lose_west(way, stage, site, round_id, frame):
    if site == "west":
        raise KilledError
    return [frame]


def test_a_second_run_of_a_study_cannot_single_a_hospital_out(fresh):
    """The same model, the same data: a sum without one hospital would give its update away."""
    with Folders(fresh) as folders:
        wire = FolderWire(folders)
        fresh.serve("first", wire)

        wire.change.append(lose_west)
        with pytest.raises(RoundAbortedError, match="nothing was revealed"):
            fresh.serve("second", wire)


def approved_again(trial, name, digest):
    trial.approve(name, "other.toml", digest=digest)
    trial.approve(name)


def test_a_hospital_that_approves_another_study_and_this_one_again_remembers_which_sums_it_opened(fresh):
    other = fresh.new_study("other.toml", federation__seed=5)
    with Folders(fresh) as folders:
        fresh.serve("first", FolderWire(folders))
    states = {name: SiteFolder(fresh.path(name)).state.read_bytes() for name in NAMES}
    for name in NAMES:
        approved_again(fresh, name, other)
        assert SiteFolder(fresh.path(name)).state.read_bytes() == states[name]

    with Folders(fresh) as folders:
        wire = FolderWire(folders)
        wire.change.append(lose_west)
        with pytest.raises(RoundAbortedError, match="nothing was revealed"):
            fresh.serve("second", wire)


def test_a_state_is_that_of_its_own_study_whatever_became_of_the_approval(fresh):
    other = fresh.new_study("other.toml", federation__seed=5)
    with Folders(fresh) as folders:
        fresh.serve("first", FolderWire(folders))
    folder = SiteFolder(fresh.path("west"))
    state = folder.state.read_bytes()
    folder.approval.write_bytes(b"damaged")
    fresh.approve("west")
    assert folder.state.read_bytes() == state
    fresh.approve("west", "other.toml", digest=other)
    assert not folder.state.exists()
    assert folder.state_of(fresh.digest).read_bytes() == state
    folder.state_of(fresh.digest).chmod(0o644)
    assert folder.exposed() == [folder.state_of(fresh.digest)]


def test_a_process_that_is_killed_while_it_changes_studies_leaves_nothing_that_forgets(fresh, monkeypatch):
    other = fresh.new_study("other.toml", federation__seed=5)
    with Folders(fresh) as folders:
        fresh.serve("first", FolderWire(folders))
    folder = SiteFolder(fresh.path("west"))
    state = folder.state.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("securefed.site.approving.file_features", lambda *_: 1 / 0)
        fresh.approve("west", "other.toml", digest=other, code=1)
    with pytest.raises(ConfigError, match="nothing is approved"):
        open_site(folder.path)
    fresh.approve("west")
    assert folder.state.read_bytes() == state


@pytest.mark.parametrize("secure", ["true", "false"])
def test_a_study_of_two_hospitals_is_told_what_its_lead_can_do(trial, tmp_path, secure):
    publics = [trial.path(name) / "identity.pub" for name in NAMES[:2]]
    call("keys", "roster", tmp_path / "two.json", "--server", trial.root / "server.pub", *publics)
    classes = [word for name in trial.study.classes for word in ("--class", name)]
    refused = call("study", "init", tmp_path / "two.toml", "--roster", tmp_path / "two.json", "--name", "two", *classes,
                   "--encoder", f"features:{trial.root / 'site0.safetensors'}",
                   "--set", f"secure_aggregation.enabled={secure}", code=2)  # fmt: skip
    assert str(refused.exception) == (
        "roster.hospitals: a sum over 2 hospitals hides nobody, at least 3 are needed; make a roster with the keys of "
        "more (securefed keys roster)"
    )


def test_the_site_and_study_commands_read_well():
    for command in (("site",), ("study",), ("site", "init"), ("site", "check"), ("site", "approve"), ("study", "init")):
        text = call(*command, "--help").output
        assert len(text.splitlines()) <= 40, command
