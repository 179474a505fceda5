"""What can happen to the processes and messages of a deployment, over a wire in memory; models are compared by bits."""

import json

import numpy as np
import pytest
from deployed import SITES, KilledError, verified

import securefed.nodes.server as server_module
from audit.log import read_events
from audit.verify import verify_run
from protocols.errors import DecodeError
from protocols.messages import frame_type
from protocols.wire import FrameType
from securefed.config import STAGES
from securefed.deploy.errors import DeploymentError
from securefed.errors import RoundAbortedError
from securefed.nodes.control import ControlStage, decode_reply, encode_request
from securefed.nodes.numbering import training_round
from securefed.nodes.site_run import Agreement

RING = {"secure_aggregation": {"compression": "ring:4,subspace:0.25"}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What runs without faults end with: {compression: summary}."""
    from deployed import Deployment

    patch = pytest.MonkeyPatch()
    patch.setattr("securefed.outcome.draw_plots", lambda *_: None)
    root = tmp_path_factory.mktemp("undisturbed")
    found = {"none": Deployment(root, "none").serve(), "ring": Deployment(root, "ring", **RING).serve()}
    patch.undo()
    return found


@pytest.mark.parametrize("scheme", ["none", "ring"])
def test_a_site_may_have_a_new_process_for_every_message(deployment, undisturbed, scheme):
    """Dump and load between all stages, secrets included: nothing changes."""
    deployed = deployment(**(RING if scheme == "ring" else {}))

    def reborn(way, stage, site, round_id, frame):
        if way == "down":
            deployed.nodes[site] = deployed.open_site(site, deployed.nodes[site].dump())
        return [frame]

    deployed.wire.change.append(reborn)
    summary = deployed.serve()
    assert summary["fam_sha256"] == undisturbed[scheme]["fam_sha256"]
    assert sum(summary["secure_aggregation"]["dropouts"].values()) == 0
    verified(deployed)
    for site in SITES:
        kept = json.loads((deployed.folder / site / "server" / "summary.json").read_text())
        assert kept["fam_sha256"] == summary["fam_sha256"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_site_that_lost_its_secrets_is_lost_for_the_round_only(deployment, stage):
    """What is left on its disk has no secret of the round: its process can only wait for the next one."""
    deployed = deployment()

    def killed(way, at, site, round_id, frame):
        if (way, at, site, training_round(round_id)) == ("down", stage, "site1", 2):
            deployed.nodes[site] = deployed.open_site(site, deployed.nodes[site].dump(secrets=False))
        return [frame]

    deployed.wire.change.append(killed)
    summary = deployed.serve()
    lost = summary["secure_aggregation"]["dropouts"]
    # at AdvertiseKeys nothing is lost yet: a new process simply begins the round
    assert lost == {name: int(name == stage != "AdvertiseKeys") for name in STAGES}
    verified(deployed)


def test_an_old_state_cannot_be_used_for_a_second_masked_vector(deployment):
    """The stage is spent in the state that the site keeps: another request for it is refused, whoever sends it."""
    deployed = deployment()
    seen = []

    def ask_again(way, stage, site, round_id, frame):
        if (way, stage, site) == ("down", "MaskedInputCollection", "site0") and not seen:
            first = deployed.nodes[site].handle(stage, frame)
            again = deployed.open_site(site, deployed.nodes[site].dump(secrets=False)).handle(stage, frame)
            once_more = deployed.nodes[site].handle(stage, frame)
            seen.extend((frame_type(first), frame_type(again), frame_type(once_more)))
        return [frame]

    deployed.wire.change.append(ask_again)
    deployed.serve()
    assert seen == [FrameType.MASKED_INPUT_REPLY, FrameType.REFUSAL, FrameType.REFUSAL]


def test_every_message_twice_changes_nothing(deployment, undisturbed):
    deployed = deployment()
    deployed.wire.change.append(lambda way, stage, site, round_id, frame: [frame, frame] if way == "up" else [frame])
    summary = deployed.serve()
    assert summary["fam_sha256"] == undisturbed["none"]["fam_sha256"]
    verified(deployed)


def test_every_request_twice_loses_nobody(deployment, undisturbed):
    """The second request of a stage is refused; the first answer stands."""
    deployed = deployment(federation={"rounds": 1})
    deployed.wire.change.append(lambda way, stage, site, round_id, frame: [frame, frame] if way == "down" else [frame])
    summary = deployed.serve()
    assert sum(summary["secure_aggregation"]["dropouts"].values()) == 0
    verified(deployed)


def test_a_late_message_of_an_earlier_round_is_refused_and_harms_nobody(deployment, undisturbed):
    deployed = deployment()
    kept = {}

    def late(way, stage, site, round_id, frame):
        if way == "down" and site == "site3":
            if training_round(round_id) == 1:
                kept.setdefault(stage, frame)
            elif stage in kept and stage in STAGES:
                assert frame_type(deployed.nodes[site].handle(stage, kept.pop(stage))) is FrameType.REFUSAL
        return [frame]

    deployed.wire.change.append(late)
    assert deployed.serve()["fam_sha256"] == undisturbed["none"]["fam_sha256"]
    assert not [stage for stage in kept if stage in STAGES]


@pytest.mark.parametrize("stage", [*STAGES, *(stage.value for stage in ControlStage)])
def test_altered_bytes_of_a_site_cost_that_site_at_most(deployment, stage):
    deployed = deployment(federation={"rounds": 2})

    def alter(way, at, site, round_id, frame):
        if (way, at, site) == ("up", stage, "site4") and training_round(round_id) in (0, 1):
            # a bit within a masked vector is a bit within the sum, which nobody can see: that frame is cut instead
            return [frame[:-1] if at == "MaskedInputCollection" else frame[:-1] + bytes([frame[-1] ^ 1])]
        return [frame]

    deployed.wire.change.append(alter)
    summary = deployed.serve()
    assert sum(summary["secure_aggregation"]["dropouts"].values()) <= 1
    assert read_events(deployed.run / "audit.jsonl")[-1].kind == "run_completed"


@pytest.mark.parametrize("scheme", ["none", "ring"])
@pytest.mark.parametrize("moment", ["before", "during", "opened", "closed", "saved"])
def test_a_server_that_was_killed_goes_on_to_the_same_model(deployment, undisturbed, monkeypatch, moment, scheme):
    deployed = deployment(**(RING if scheme == "ring" else {}))
    kill_server(deployed, monkeypatch, moment)
    with pytest.raises(KeyboardInterrupt):
        deployed.serve()
    deployed.wire.change.clear()
    monkeypatch.undo()
    monkeypatch.setattr("securefed.outcome.draw_plots", lambda *_: None)
    trained = {site: node._memory.last for site, node in deployed.nodes.items()}
    summary = deployed.serve()
    assert summary["fam_sha256"] == undisturbed[scheme]["fam_sha256"]
    assert summary["chosen_round"] == undisturbed[scheme]["chosen_round"]
    verified(deployed)
    kinds = [event.kind for event in read_events(deployed.run / "audit.jsonl")]
    assert kinds.count("resumed") == 1
    assert set(trained.values()) <= {1, 2}


@pytest.mark.parametrize("moment", ["unsigned", "signed"])
def test_a_server_that_was_killed_after_the_last_event_is_finished_by_the_next_one(deployment, monkeypatch, moment):
    deployed = deployment(federation={"rounds": 1})

    def stop(way, stage, site, round_id, frame):
        logged = read_events(deployed.run / "audit.jsonl")[-1].kind == "run_completed"
        if moment == "unsigned" and logged and site == "site2":
            raise KeyboardInterrupt
        return [frame]

    def stop_signed(folder):
        if moment == "signed":
            raise KeyboardInterrupt

    deployed.wire.change.append(stop)
    monkeypatch.setattr(server_module, "delete_checkpoint", stop_signed)
    with pytest.raises(KeyboardInterrupt):
        deployed.serve()
    deployed.wire.change.clear()
    monkeypatch.undo()
    before = read_events(deployed.run / "audit.jsonl")
    asked = len(deployed.wire.log)
    summary = deployed.serve()
    assert summary == json.loads((deployed.run / "summary.json").read_text())
    assert read_events(deployed.run / "audit.jsonl") == before
    assert not (deployed.run / "checkpoint").exists()
    assert (len(deployed.wire.log) > asked) == (moment == "unsigned")
    verified(deployed)


def test_a_line_that_was_cut_off_in_a_round_keeps_no_server_from_going_on(deployment, monkeypatch):
    deployed = deployment(federation={"rounds": 2})
    kill_server(deployed, monkeypatch, "before")
    with pytest.raises(KeyboardInterrupt):
        deployed.serve()
    deployed.wire.change.clear()
    with (deployed.run / "audit.jsonl").open("ab") as stream:
        stream.write(b'{"cohort":["si')
    deployed.serve()
    verified(deployed)


def kill_server(deployed, monkeypatch, moment):
    """Have the server's process end in round 2."""
    if moment in ("before", "during", "closed"):
        at = {"before": "AdvertiseKeys", "during": "ConsistencyCheck", "closed": "CountersignHead"}[moment]

        def stop(way, stage, site, round_id, frame):
            if (stage, training_round(round_id)) == (at, 2):
                raise KeyboardInterrupt
            return [frame]

        deployed.wire.change.append(stop)
    elif moment == "opened":

        def stop(way, stage, site, round_id, frame):
            if (stage, training_round(round_id), site) == ("CloseRound", 2, "site2"):
                raise KeyboardInterrupt  # two sites know that the round was opened, three do not
            return [frame]

        deployed.wire.change.append(stop)
    else:
        original = server_module.save_checkpoint

        def save(folder, checkpoint):
            if checkpoint.current.number == 2:
                raise KeyboardInterrupt
            original(folder, checkpoint)

        monkeypatch.setattr(server_module, "save_checkpoint", save)


def test_a_round_that_was_opened_is_repeated_over_the_same_sites_only(deployment, monkeypatch):
    """The server was killed after it had opened a sum and before it had saved it; then a site is lost."""
    deployed = deployment()
    kill_server(deployed, monkeypatch, "saved")
    with pytest.raises(KeyboardInterrupt):
        deployed.serve()
    monkeypatch.undo()

    def lose(way, stage, site, round_id, frame):
        if site == "site0" and stage in STAGES:
            raise KilledError
        return [frame]

    deployed.wire.change.append(lose)
    with pytest.raises(RoundAbortedError, match="nothing was revealed"):
        deployed.serve()
    deployed.wire.change.clear()
    monkeypatch.setattr("securefed.outcome.draw_plots", lambda *_: None)
    deployed.serve()
    verified(deployed)


def test_a_site_that_was_away_for_rounds_catches_up_and_signs_again(deployment):
    deployed = deployment(federation={"rounds": 4}, **RING)

    def away(way, stage, site, round_id, frame):
        if site == "site2" and training_round(round_id) in (2, 3):
            raise KilledError
        return [frame]

    deployed.wire.change.append(away)
    summary = deployed.serve()
    assert summary["secure_aggregation"]["dropouts"]["AdvertiseKeys"] == 2
    verified(deployed)
    kept = json.loads((deployed.folder / "site2" / "server" / "summary.json").read_text())
    assert kept["fam_sha256"] == summary["fam_sha256"]


def test_a_site_that_signs_one_head_later_is_enough_for_the_evidence(deployment):
    deployed = deployment()
    lost = []

    def lose(way, stage, site, round_id, frame):
        if (way, stage, site) == ("down", "CountersignHead", "site1") and training_round(round_id) == 1 and not lost:
            lost.append(1)
            raise KilledError
        return [frame]

    deployed.wire.change.append(lose)
    deployed.serve()
    verified(deployed)


def test_a_site_that_never_signs_is_named_by_the_verification(deployment):
    deployed = deployment()

    def lose(way, stage, site, round_id, frame):
        if (stage, site) == ("CountersignHead", "site1"):
            raise KilledError
        return [frame]

    deployed.wire.change.append(lose)
    deployed.serve()
    failed = verify_run(deployed.run).failed
    assert [check.name for check in failed] == ["signatures"]
    assert "lacks the countersignature of 'site1'" in failed[0].detail


def test_a_forked_log_is_refused_by_the_hospitals(deployment, tmp_path):
    """A server that shows another history after a head was signed gets no signature for it."""
    deployed = deployment(federation={"rounds": 1})
    deployed.serve()
    frames = [entry for entry in deployed.wire.log if entry[:2] == ("CountersignHead", "site0")]
    node = deployed.nodes["site0"]
    request = frames[-1][3]
    first = json.loads(request[4:])
    for field, value in (("root", "0" * 64), ("size", first["head"]["size"] + 5)):
        changed = {**first, "head": {**first["head"], field: value}, "from": first["head"]["size"]}
        with pytest.raises(Exception, match="evidence"):
            decode_reply(ControlStage.COUNTERSIGN, node.handle(
                "CountersignHead", encode_request(ControlStage.COUNTERSIGN, changed)))  # fmt: skip


def test_wrong_versions_are_refused_by_name_and_stand_in_the_log(deployment, monkeypatch):
    deployed = deployment()
    monkeypatch.setattr("securefed.nodes.parties.CONTROL_VERSION", 999)
    with pytest.raises(DeploymentError, match="0 of 5 hospitals are ready") as caught:
        deployed.serve()
    assert "site0: version: this site runs securefed" in str(caught.value)
    refused = [event for event in read_events(deployed.run / "audit.jsonl") if event.kind == "refused"]
    assert {(event.fields["hospital"], event.fields["what"]) for event in refused} == {(s, "version") for s in SITES}


def test_a_hospital_with_another_roster_refuses_by_name(deployment):
    deployed = deployment()
    other = Agreement(deployed.study.digest, "9" * 64, "5" * 64)
    deployed.nodes["site3"] = deployed.open_site("site3", agreement=other)
    deployed.serve()
    refused = [event.fields for event in read_events(deployed.run / "audit.jsonl") if event.kind == "refused"]
    assert {(fields["hospital"], fields["what"]) for fields in refused} >= {("site3", "roster")}


def test_a_fault_at_a_site_leaves_as_a_class_of_errors_only(deployment, caplog):
    """What training says when it fails stays in the site's own log."""
    deployed = deployment()

    def broken(received, number):
        raise RuntimeError("the patient's name is Schmidt")

    deployed.hospitals["site1"].train = broken
    summary = deployed.serve()
    assert summary["secure_aggregation"]["dropouts"]["MaskedInputCollection"] == 3
    sent = b"".join(bytes(reply) for *_, reply in deployed.wire.log)
    assert b"Schmidt" not in sent
    assert b"Traceback" not in sent
    assert b"Schmidt" not in (deployed.run / "audit.jsonl").read_bytes()
    assert any(record.name == "securefed.site" for record in caplog.records)


def test_nothing_is_trained_and_nobody_is_asked_without_every_approval(deployment):
    deployed = deployment()
    deployed.approvals.pop()
    with pytest.raises(DeploymentError, match="not approved by site4"):
        deployed.serve()
    assert not deployed.wire.log


def test_arbitrary_bytes_never_raise_and_never_hang(deployment):
    deployed = deployment(federation={"rounds": 1})
    deployed.serve()
    rng = np.random.default_rng(0)
    frames = {(stage, request) for stage, _, _, request, _ in deployed.wire.log}
    for stage, request in frames:
        node = deployed.nodes["site0"]
        for _ in range(8):
            mutated = bytearray(request)
            for place in rng.integers(0, len(mutated), 3):
                mutated[place] = int(rng.integers(0, 256))
            for data in (bytes(mutated), bytes(mutated[: int(rng.integers(0, len(mutated)))]), b""):
                assert isinstance(node.handle(stage, data), bytes)
    assert isinstance(deployed.nodes["site0"].handle("NoSuchStage", b"x"), bytes)


@pytest.mark.parametrize("data", [b"", b"garbage" * 10])
def test_a_damaged_state_is_refused(deployment, data):
    deployed = deployment()
    with pytest.raises(DecodeError):
        deployed.nodes["site0"].load(data)
    other = deployment("other", federation={"seed": 9})
    with pytest.raises(DecodeError, match="another study"):
        deployed.nodes["site0"].load(other.nodes["site0"].dump())
