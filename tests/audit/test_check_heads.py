"""What hospitals have to have signed of a record: their sums, and its end."""

import json

import pytest

from audit.canonical import decode_canonical, encode_canonical
from audit.heads import SERVER_LABEL, SignedHead, TreeHead, read_heads
from audit.merkle import MerkleTree
from audit.report import build_report
from audit.verify import Outcome, verify_run
from tests.audit.runs import SITES, Run, key_of, rechained, sha256
from tests.audit.tampering import failure, lines_of, write_lines

FIVE = ("east", *SITES, "yonder")


def masked(folder, rounds=3):
    """A run of five hospitals, four of which open a sum, after its last round."""
    run = Run(folder, rounds=0, sites=FIVE, masked=True)
    terms = {"secure_aggregation": True, "clients": 5, "dimension": 1000, "threat_model": "active", "threshold": 0}
    run.log.append("protocol_described", {**terms, "threshold": 4, "corrupt": 1})
    for number in range(1, rounds + 1):
        run.round(number)
    return run


def signatures(folder):
    return next(check for check in verify_run(folder).checks if check.name == "signatures")


def end_by_the_server_alone(folder):
    """What a server writes that has no hospital's key: another end after the last round's head."""
    summary = json.loads((folder / "summary.json").read_text()) | {"better": 0.999}
    (folder / "summary.json").write_text(json.dumps(summary))
    *rounds, end = lines_of(folder)
    files = {**decode_canonical(end)["files"], "summary.json": sha256((folder / "summary.json").read_bytes())}
    lines = rechained([*rounds, encode_canonical({**decode_canonical(end), "files": files})])
    write_lines(folder, lines)
    sign_by_the_server(folder, lines, read_heads(folder / "heads.jsonl")[:-1])
    for path in folder.glob("sites/*/heads.jsonl"):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def sign_by_the_server(folder, lines, before):
    last = decode_canonical(lines[-1])
    head = TreeHead("r1", 3, len(lines), MerkleTree(lines).root().hex(), last["time"])
    signed = SignedHead(head, key_of("server").sign(SERVER_LABEL + head.encode()).hex(), {})
    (folder / "heads.jsonl").write_bytes(b"".join(each.encode() + b"\n" for each in [*before, signed]))


@pytest.mark.parametrize(
    ("make", "needed"),
    [
        (Run, "0 of 3 hospitals countersigned the end of the run, 1 have to"),
        (masked, "0 of 5 hospitals countersigned the end of the run, 4 have to"),
    ],
)
def test_the_server_alone_cannot_write_the_end_of_a_record(tmp_path, make, needed):
    folder = make(tmp_path / "run").complete()
    assert signatures(folder).outcome is Outcome.PASS
    end_by_the_server_alone(folder)
    first, reason = failure(folder)
    assert first == len(lines_of(folder)) - 1
    assert needed in reason
    assert "lacks the countersignature of" in reason


@pytest.mark.parametrize(("there", "is_enough"), [(5, True), (4, True), (3, False)])
def test_the_end_is_signed_by_as_many_hospitals_as_open_a_sum(tmp_path, there, is_enough):
    run = masked(tmp_path / "run")
    run.witnesses, away = run.witnesses[:there], FIVE[there:]
    folder = run.complete()
    found = verify_run(folder)
    detail = found.checks[2].detail
    assert found.is_verified is is_enough
    if is_enough:
        assert found.unsigned_by == away
        assert f"signed by {1 + there} of 6 parties" in detail
    else:
        assert "3 of 5 hospitals countersigned the end of the run, 4 have to" in detail
        assert "it lacks the countersignature of west, yonder; in a simulation all sign at once" in detail
    if there == 4:
        assert "yonder did not countersign the end of the run" in detail
        sentence = build_report(folder)["verdicts"][0]["sentence"]
        assert sentence.endswith(" but yonder: the end of the run is signed by 4 of 5 hospitals.")


def test_those_who_come_later_sign_the_same_end(tmp_path):
    run = masked(tmp_path / "run")
    all_of_them, run.witnesses = run.witnesses, run.witnesses[:2]
    folder = run.complete()
    assert "2 of 5 hospitals" in failure(folder)[1]
    run.book.publish(3, all_of_them[2:])
    found = verify_run(folder)
    assert found.is_verified
    assert found.unsigned_by == ()


def test_an_attack_that_the_server_alone_appends_is_named(complete_run):
    lines = lines_of(complete_run)
    attack = {"kind": "attack", "name": "membership", "setting": "everybody", "outcome": "PASS", "values": {}}
    attack["time"] = decode_canonical(lines[-1])["time"]
    lines = rechained([*lines, encode_canonical(attack)])
    write_lines(complete_run, lines)
    for heads in (False, True):
        if heads:
            sign_by_the_server(complete_run, lines, read_heads(complete_run / "heads.jsonl"))
        found = verify_run(complete_run)
        assert found.is_verified
        assert found.unsigned == 1
        assert "the last 1 events are not signed by enough hospitals" in found.checks[2].detail
        sentence = build_report(complete_run)["verdicts"][0]["sentence"]
        assert sentence.endswith("; the record of an attack after the end is not signed by enough hospitals.")


def test_a_head_before_its_last_sum_is_not_the_signature_of_a_hospital(tmp_path):
    """Yonder signed the heads of two rounds, and is in the sum of the third; all others signed everything."""
    run = masked(tmp_path / "run", rounds=2)
    run.witnesses = run.witnesses[:4]
    run.round(3)
    assert "lacks the countersignature of 'yonder'" in failure(run.complete())[1]
