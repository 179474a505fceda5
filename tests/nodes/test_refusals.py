"""What a hospital's node refuses of a server that lies, and that its own log names it."""

import copy
import dataclasses
import json
import re

import pytest
from deployed import SITES, Deployment, KilledError

from audit.log import read_events
from audit.verify import verify_run
from protocols.errors import PolicyError
from protocols.messages import frame_type
from protocols.server.machine import ServerMachine
from protocols.wire import FrameType
from securefed.engines.guard import Guarded
from securefed.errors import ConfigError
from securefed.nodes.control import ControlStage, RefusedBySiteError, decode_reply, encode_request
from securefed.nodes.site_run import CONTROL_VERSION, Agreement
from securefed.site.settings import PolicyConfig
from securefed.study.form import Study


def asked(deployed, threshold):
    """Return what a server asks of site0 at the start of a round with a threshold of its own choice."""
    parameters = copy.copy(deployed.terms.parameters(deployed.terms.channels.server().codec, 1))
    object.__setattr__(parameters, "threshold", threshold)
    object.__setattr__(parameters, "min_survivors", max(threshold, parameters.corrupt + 3))
    server = ServerMachine(parameters, deployed.study.protocol_roster, b"a model")
    return server.requests("AdvertiseKeys")["site0"]


@pytest.mark.parametrize("name", ["../../../esc", "a/b", ".hidden", "a b", "n" * 101])
def test_a_study_whose_name_could_lead_out_of_its_folder_is_refused(deployment, name):
    study = deployment().study
    assert Study.decode(study.encode()) == study
    with pytest.raises(ConfigError, match=r"name: .*: use letters, digits, dots, dashes and underscores"):
        Study.decode(dataclasses.replace(study, name=name).encode())


@pytest.mark.parametrize("what", ["classes", "prompts", "encoder"])
def test_a_study_with_a_text_that_turns_others_around_is_refused(deployment, what):
    study, turned = deployment().study, "\u202eenignant"
    changed = {
        "classes": (turned, *study.classes[1:]),
        "prompts": ((turned,), *study.prompts[1:]),
        "encoder": turned,
    }
    with pytest.raises(ConfigError, match=rf"^{what}: .* holds U\+202E, which reorders the text around it"):
        Study.decode(dataclasses.replace(study, **{what: changed[what]}).encode())


@pytest.mark.parametrize("name", ["server", "north-node", "../north"])
def test_a_study_with_a_hospital_that_a_deployment_could_not_keep_apart_is_refused(deployment, name):
    study = deployment().study
    hospitals = {name: study.roster.hospitals["site0"], **dict(list(study.roster.hospitals.items())[1:])}
    roster = dataclasses.replace(study.roster, hospitals=hospitals)
    with pytest.raises(ConfigError, match=r"roster\.hospitals: "):
        Study.decode(dataclasses.replace(study, roster=roster).encode())


@pytest.mark.parametrize("threshold", [2, 4])
def test_a_threshold_below_the_studys_is_refused_and_named(deployment, caplog, threshold):
    """With 5 hospitals 2 opens no fair round at all; 4 does, but the study that all have signed says 5."""
    deployed = deployment(secure_aggregation={"threshold": 5})
    assert deployed.terms.example.threshold == 5
    reply = deployed.nodes["site0"].handle("AdvertiseKeys", asked(deployed, threshold))
    assert frame_type(reply) is FrameType.REFUSAL
    assert "site0 refuses AdvertiseKeys" in caplog.text
    assert "threshold" in caplog.text
    accepted = deployed.nodes["site0"].handle("AdvertiseKeys", asked(deployed, 5))
    assert frame_type(accepted) is FrameType.ADVERTISE_KEYS_REPLY


def test_a_hospitals_own_floors_never_lower_what_the_study_says(deployment):
    deployed = deployment(secure_aggregation={"threshold": 5})
    agreed = deployed.terms.policy()
    for floor, threshold in ((3, 5), (7, 7)):
        policy = PolicyConfig(min_threshold=floor).client_policy(deployed.terms)
        assert policy.min_threshold == threshold
        assert policy.min_honest_survivors == agreed.min_honest_survivors
        assert policy.config_digest == agreed.config_digest


@pytest.mark.parametrize(("corrupt", "accepted"), [(-1, {-1, 0, 1}), (0, {0})])
def test_one_in_five_is_wanted_unless_a_hospital_says_otherwise(deployment, corrupt, accepted):
    """Of 5 hospitals -1 in a study is 1; a study with 0 is for hospitals that say so."""
    deployed = deployment(secure_aggregation={"corrupt": corrupt})
    example, roster = deployed.terms.example, deployed.terms.roster
    for floor in (-1, 0, 1, 2):
        policy = PolicyConfig(min_corrupt=floor)
        found, agreed = policy.objections(deployed.study, deployed.terms), policy.client_policy(deployed.terms)
        if floor in accepted:
            assert found == []
            agreed.check(example, roster)
            continue
        assert re.fullmatch(rf"{example.corrupt} colluding .*policy\.min_corrupt is {floor}.*", "; ".join(found))
        with pytest.raises(PolicyError, match="corrupt"):
            agreed.check(example, roster)


@pytest.mark.parametrize("what", ["version", "study", "roster"])
def test_a_server_that_means_something_else_is_refused_and_named(deployment, caplog, what):
    deployed = deployment()
    study = deployed.study
    fields = {"version": CONTROL_VERSION, "software": "x", "run_id": "r", "study": study.digest,
              "roster": study.roster.digest}  # fmt: skip
    other = {"version": CONTROL_VERSION + 1, "study": "1" * 64, "roster": "2" * 64}
    node = deployed.open_site("site1", agreement=Agreement(study.digest, study.roster.digest, "5" * 64))
    frame = encode_request(ControlStage.HELLO, {**fields, what: other[what]})
    with pytest.raises(RefusedBySiteError) as caught:
        decode_reply(ControlStage.HELLO, node.handle("Hello", frame))
    assert caught.value.code == what
    assert f"site1: refused Hello: {what}" in caplog.text


def test_every_answer_is_a_line_of_the_nodes_log_with_its_bytes(deployment, caplog):
    caplog.set_level("INFO", logger="securefed.site")
    deployed = deployment(federation={"rounds": 1, "select": "last"})
    doors = {site: Guarded(lambda node=node: node) for site, node in deployed.nodes.items()}
    for site in SITES:
        deployed.nodes[site] = _Handled(doors[site])
    deployed.serve()
    noted = [record for record in caplog.records if record.getMessage().startswith("answered ")]
    assert len(noted) == len(deployed.wire.log)
    first = next(record for record in noted if record.getMessage() == "answered MaskedInputCollection")
    assert first.numbers["round"] == 1
    sent = sum(record.numbers["sent_bytes"] for record in noted)
    assert sent == sum(len(reply) for *_, reply in deployed.wire.log)
    kinds = [event.kind for event in read_events(deployed.run / "audit.jsonl")]
    assert kinds[-1] == "run_completed"


class _Handled:
    def __init__(self, door):
        self.handle = door.answer


def test_a_disk_that_is_full_at_the_server_ends_the_run_by_name_and_it_goes_on(deployment, monkeypatch):
    from securefed.errors import RunFolderError

    deployed = deployment(federation={"rounds": 3, "select": "last"})
    undisturbed = Deployment(deployed.folder.parent, "undisturbed", federation={"rounds": 3, "select": "last"}).serve()
    from securefed import checkpoint

    original = checkpoint.save_checkpoint

    def full(folder, kept):
        if kept.current.number == 2:
            raise RunFolderError(folder.checkpoint, "cannot be written (No space left on device)")
        original(folder, kept)

    monkeypatch.setattr("securefed.nodes.server.save_checkpoint", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        deployed.serve()
    monkeypatch.undo()
    assert deployed.serve()["fam_sha256"] == undisturbed["fam_sha256"]
    assert json.loads((deployed.run / "summary.json").read_text())["rounds_completed"] == 3


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_site_that_misses_the_close_of_a_round_hears_it_again_once_it_can_be_reached(deployment, way):
    """Without it a site would not know which round is the best, nor that its update was not in the sum."""
    deployed = deployment(secure_aggregation={"compression": "ring:4,subspace:0.25"})
    undisturbed = Deployment(
        deployed.folder.parent, "undisturbed", secure_aggregation={"compression": "ring:4,subspace:0.25"}
    ).serve()
    heard, lost = [], []

    def lose(direction, stage, site, round_id, frame):
        if (stage, site) == ("CloseRound", "site2"):
            if direction == way and round_id not in lost:
                lost.append(round_id)
                raise KilledError
            heard.append((direction, round_id))
        return [frame]

    deployed.wire.change.append(lose)
    summary = deployed.serve()
    assert summary["fam_sha256"] == undisturbed["fam_sha256"]
    assert [round_id for direction, round_id in heard if direction == "up"] == lost == [1, 2, 3]
    asked_again = [site for stage, site, *_ in deployed.wire.log if stage == "CloseRound"]
    assert asked_again.count("site0") == 3


def test_a_site_that_is_gone_is_not_told_again(deployment):
    deployed = deployment(federation={"rounds": 2, "select": "last"})
    told = []

    def lose(direction, stage, site, round_id, frame):
        if site == "site2" and stage != "Hello":
            told.append((stage, round_id))
            raise KilledError
        return [frame]

    deployed.wire.change.append(lose)
    deployed.serve()
    assert [at for at in told if at[0] == "CloseRound"] == [("CloseRound", 1), ("CloseRound", 2)]
    assert [at for at in told if at[0] == "CountersignHead"] == [("CountersignHead", number) for number in (1, 2, 2)]


def test_a_site_that_misses_the_last_head_for_once_is_asked_again(deployment):
    """Otherwise one lost message would leave the record of the whole run incomplete."""
    deployed = deployment(federation={"rounds": 2, "select": "last"})
    lost = []

    def lose(direction, stage, site, round_id, frame):
        ended = read_events(deployed.run / "audit.jsonl")[-1].kind == "run_completed"
        if (stage, site) == ("CountersignHead", "site2") and ended and not lost:
            lost.append(round_id)
            raise KilledError
        return [frame]

    deployed.wire.change.append(lose)
    deployed.serve()
    assert lost == [2]
    verification = verify_run(deployed.run)
    assert verification.is_verified, verification.failed
