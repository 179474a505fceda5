"""Rounds and attempts as one number."""

from audit.log import read_events
from audit.verify import verify_run
from securefed.nodes.control import ControlStage, decode_reply, encode_reply
from securefed.nodes.numbering import MAX_LEAD, next_attempt, protocol_round, training_round


def test_rounds_and_attempts_make_one_number():
    assert training_round(protocol_round(100_001, 7)) == 100_001
    assert protocol_round(1, 8) > protocol_round(100_001, 7)
    assert protocol_round(1, (1 << 15) - 1) < 1 << 32


def test_an_attempt_is_above_what_hospitals_have_seen():
    assert next_attempt({"a": -1, "b": -1, "c": -1}, 1) == (0, ())
    assert next_attempt({"a": protocol_round(3, 4), "b": protocol_round(2, 4), "c": -1}, 1) == (5, ())
    assert next_attempt({"a": protocol_round(3, 9), "b": protocol_round(3, 4), "c": protocol_round(2, 4)}, 1) == (
        10,
        (),
    )
    assert next_attempt({"a": protocol_round(1, 700), "b": -1, "c": -1}, 701) == (701, ())


def test_a_hospital_far_beyond_the_others_is_named_and_not_followed():
    others = {"b": protocol_round(3, 4), "c": protocol_round(2, 4), "d": -1}
    for claimed in ((1 << 32) - 1, protocol_round(1, 5 + MAX_LEAD + 1), 4_294_836_222):
        assert next_attempt({"a": claimed, **others}, 5) == (5, ("a",))
    assert next_attempt({"a": protocol_round(1, 4 + MAX_LEAD), **others}, 5) == (5 + MAX_LEAD, ())


def test_a_study_goes_on_where_a_hospital_names_the_largest_round(deployment):
    deployed = deployment(federation={"rounds": 1})

    def exaggerated(way, stage, site, round_id, frame):
        if (way, stage, site) != ("up", "Hello", "site1"):
            return [frame]
        reply = decode_reply(ControlStage.HELLO, frame)
        return [encode_reply(ControlStage.HELLO, {**reply, "last_round": (1 << 32) - 1})]

    deployed.wire.change.append(exaggerated)
    deployed.serve()
    refused = [event.fields for event in read_events(deployed.run / "audit.jsonl") if event.kind == "refused"]
    assert [fields["hospital"] for fields in refused if fields["what"] == "last_round"] == ["site1"]
    assert verify_run(deployed.run).is_verified
