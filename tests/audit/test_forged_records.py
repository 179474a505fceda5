"""What a forger without the hospitals' keys, or without any, could make of a record, and what verification says."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from audit.canonical import decode_canonical, encode_canonical
from audit.heads import SERVER_LABEL, WITNESS_LABEL, SignedHead, read_heads
from audit.report import build_report
from audit.verify import Outcome, verify_run
from tests.audit.runs import (
    SITES,
    Run,
    key_of,
    model_digest,
    model_of,
    rechained,
    round_fields,
    safetensors,
    signed_again,
)
from tests.audit.tampering import changed, edited, failure, lines_of, write_lines


def check(folder, name, **arguments):
    return next(check for check in verify_run(folder, **arguments).checks if check.name == name)


def without_signatures(folder):
    """A forger without a key: heads are gone, the end of the run too."""
    lines = [line for line in lines_of(folder) if decode_canonical(line)["kind"] != "run_completed"]
    write_lines(folder, rechained(lines))
    (folder / "heads.jsonl").write_bytes(b"")
    for site in SITES:
        shutil.rmtree(folder / "sites" / site)


def test_rounds_that_nobody_signed_are_found(complete_run):
    without_signatures(complete_run)
    found = verify_run(complete_run, roster=complete_run / "roster.json")
    assert not found.is_verified
    assert "round 1 and 2 more were finished, and no signed head covers them" in found.failed[0].detail


def test_a_first_round_that_a_crash_left_unsigned_is_absent_not_passed(complete_run):
    without_signatures(complete_run)
    lines = lines_of(complete_run)
    rounds = [seq for seq, line in enumerate(lines) if decode_canonical(line)["kind"] == "round_completed"]
    write_lines(complete_run, lines[: rounds[0] + 1])
    assert check(complete_run, "signatures").outcome is Outcome.ABSENT
    (complete_run / "heads.jsonl").unlink()
    assert check(complete_run, "signatures").outcome is Outcome.ABSENT


def test_more_rounds_after_the_last_head_than_a_crash_leaves_are_found(run):
    for number in (4, 5):
        run.start(number)
        run.log.append("round_completed", round_fields(number))
        found = check(run.folder, "signatures")
        assert found.outcome is (Outcome.PASS if number == 4 else Outcome.FAIL)
    assert "round 4 and 1 more were finished" in found.detail


def rewritten(folder, edit, sites):
    """The server's own forgery: rounds changed, chained and signed anew by it and by `sites` alone."""
    lines = lines_of(folder)
    for seq, line in enumerate(lines):
        if decode_canonical(line)["kind"] == "round_completed":
            lines[seq] = changed(line, **edit(decode_canonical(line)))
    for site in SITES:
        shutil.rmtree(folder / "sites" / site)
    signed_again(folder, rechained(lines), sites=sites)


def test_a_hospital_of_an_earlier_sum_cannot_be_left_out_of_the_signers(complete_run):
    rewritten(complete_run, lambda f: {"survivors": list(SITES[:2]), "dropouts": {"west": "ShareKeys"}}, SITES[:2])
    assert check(complete_run, "signatures").outcome is Outcome.PASS
    assert verify_run(complete_run).unsigned_by == ("west",)
    rewritten_once = json.loads(lines_of(complete_run)[6])
    assert rewritten_once["kind"] == "round_completed"
    lines = lines_of(complete_run)
    lines[6] = encode_canonical({**rewritten_once, "survivors": list(SITES), "dropouts": {}})
    signed_again(complete_run, rechained(lines), sites=SITES[:2])
    assert "lacks the countersignature of 'west'" in failure(complete_run)[1]


def masked_run(folder, **protocol):
    """A finished run of three rounds under masks; `protocol` replaces what its log says of them."""
    run = Run(folder, rounds=0, masked=True)
    described = {"secure_aggregation": True, "clients": 3, "dimension": 1000, "threat_model": "active"}
    run.log.append("protocol_described", {**described, "threshold": 3, "corrupt": 0, **protocol})
    for number in (1, 2, 3):
        run.round(number)
    return run.complete()


def test_survivors_cannot_all_be_lost_before_they_sign(tmp_path):
    folder = masked_run(tmp_path / "masked")
    assert check(folder, "sums").outcome is Outcome.PASS
    rewritten(folder, lambda f: {"dropouts": dict.fromkeys(SITES, "Unmasking")}, ())
    first, reason = failure(folder)
    assert "0 hospitals were left to open the sum of round 1, below the threshold of 3" in reason
    assert decode_canonical(lines_of(folder)[first])["kind"] == "round_completed"


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ({"threshold": 1}, "a threshold of 1"),
        ({"threshold": 2}, "a threshold of 2"),
        ({"corrupt": 3}, "a threshold of 3 of 3 hospitals, 3 of whom may collude"),
        ({"clients": 2, "threshold": 3}, "3 hospitals were asked in round 1, the protocol is for 2"),
        ({"secure_aggregation": False}, "secure_aggregation.enabled = True"),
        ({"threat_model": "semi-honest"}, "secure_aggregation.threat_model = active"),
    ],
)
def test_a_protocol_that_protects_less_than_the_configuration_is_found(tmp_path, protocol, reason):
    assert reason in failure(masked_run(tmp_path / "masked", **protocol))[1]


@pytest.mark.parametrize("missing", ["threshold", "corrupt"])
def test_a_protocol_that_does_not_say_who_opens_a_sum_is_found(tmp_path, missing):
    folder = masked_run(tmp_path / "masked")
    edited(folder, "protocol_described", lambda fields: fields.pop(missing))
    assert f"sums under masks, and no {missing} is stated" in failure(folder)[1]


def test_sums_under_masks_without_a_protocol_are_found(tmp_path):
    assert "describes no protocol" in failure(Run(tmp_path / "masked", masked=True).complete())[1]


def test_a_stranger_in_a_sum_is_found(complete_run):
    stranger = ["east", *SITES[:2]]

    def edit(fields):
        return {"cohort": stranger, "survivors": stranger, "bytes": {}}

    lines = lines_of(complete_run)
    for seq, line in enumerate(lines):
        if decode_canonical(line)["kind"] == "round_started":
            lines[seq] = changed(line, cohort=stranger)
    write_lines(complete_run, rechained(lines))
    rewritten(complete_run, edit, SITES)
    assert "an update of 'east', who is not of the roster" in check(complete_run, "signatures").detail


def test_a_report_says_who_has_not_signed(complete_run):
    rewritten(complete_run, lambda f: {"survivors": list(SITES[:2]), "dropouts": {"west": "ShareKeys"}}, SITES[:2])
    sentence = build_report(complete_run)["verdicts"][0]["sentence"]
    assert "signed by all parties of the roster that came with the run but west" in sentence


def test_heads_that_are_handed_in_are_read_to_their_last_byte(complete_run, tmp_path):
    """A rollback: the log and the server's heads end after round 1; a hospital's file proves that there was more."""
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes((complete_run / "sites" / "west" / "heads.jsonl").read_bytes())
    first = read_heads(complete_run / "heads.jsonl")[0]
    write_lines(complete_run, lines_of(complete_run)[: first.head.size])
    (complete_run / "heads.jsonl").write_bytes(first.encode() + b"\n")
    for site in SITES:
        shutil.rmtree(complete_run / "sites" / site)
    assert verify_run(complete_run).is_verified
    assert "the log was cut" in failure(complete_run, heads=[kept])[1]
    last = kept.read_bytes().splitlines()[-1]
    kept.write_bytes(last)
    assert "the log was cut" in failure(complete_run, heads=[kept])[1]
    kept.write_bytes(b"")
    assert "holds no tree head" in failure(complete_run, heads=[kept])[1]


def test_the_heads_of_one_hospital_do_not_pass_for_those_of_another(complete_run):
    mine, other = (complete_run / "sites" / site / "heads.jsonl" for site in SITES[:2])
    mine.write_bytes(other.read_bytes())
    assert "lacks the countersignature of 'north'" in failure(complete_run)[1]


def test_files_that_no_log_vouches_for_are_absent_not_passed(run):
    (run.folder / "summary.json").write_text('{"privacy": {"epsilon": 0.1}}')
    (run.folder / "bytes.csv").write_text("nonsense")
    found = {check.name: check for check in verify_run(run.folder).checks}
    assert found["files"].outcome is found["bytes"].outcome is Outcome.ABSENT
    assert "no end that vouches for summary.json" in found["files"].detail
    assert "bytes.csv was not compared" in found["bytes"].detail


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b'{"communication": null}'),
        ("summary.json", b'{"communication": 3}'),
        ("summary.json", b'{"communication": {"upload_bytes": "\\ud800"}}'),
        ("summary.json", DEEP),
        ("config.toml", b"a = " + b"[" * 100_000),
        ("bytes.csv", b"\xff\xfe"),
        ("bytes.csv", b"round,site,direction,stage,kind,bytes\n1,a,up\n"),
        ("roster.json", DEEP),
        ("heads.jsonl", DEEP + b"\n"),
        ("audit.jsonl", DEEP + b"\n"),
    ],
)
def test_nothing_that_a_file_holds_makes_verification_raise(complete_run, name, content):
    (complete_run / name).write_bytes(content)
    found = verify_run(complete_run, report=True)
    assert not found.is_verified
    assert all(check.detail.isprintable() for check in found.checks)


@pytest.mark.parametrize("metadata", ["[]", "null", '"x"', '{"fam_sha256": 1}', '{"layout": [[[]]]}'])
def test_metadata_of_any_kind_are_a_failed_check(complete_run, metadata):
    header = b'{"__metadata__":' + metadata.encode() + b"}"
    (complete_run / "fam.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert check(complete_run, "model").outcome is Outcome.FAIL


@pytest.mark.parametrize("classes", ["{", 3])
def test_classes_of_a_model_that_cannot_be_read_are_a_failed_check(complete_run, classes):
    metadata = {"fam_sha256": model_digest(3), "layout": json.dumps(list(model_of(3))), "classes": classes}
    (complete_run / "fam.safetensors").write_bytes(safetensors(model_of(3), metadata))
    found = check(complete_run, "model")
    assert found.outcome is Outcome.FAIL
    assert "the classes in fam.safetensors cannot be read" in found.detail


@pytest.mark.parametrize("name", ["summary.json", "audit.jsonl", "fam.safetensors", "heads.jsonl"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(complete_run, name):
    (complete_run / name).unlink()
    os.mkfifo(complete_run / name)
    assert not verify_run(complete_run).is_verified


def test_a_hospital_that_is_lost_in_the_end_has_signed_what_came_before(complete_run):
    """West is in three sums and lost while the last one is opened: of the first two it has signed the record."""

    def edit(fields):
        return {"dropouts": {"west": "Unmasking"}} if fields["round"] == 3 else {}

    rewritten(complete_run, edit, SITES[:2])
    assert "lacks the countersignature of 'west'" in failure(complete_run)[1]


def test_a_head_states_the_round_that_was_finished(complete_run):
    signed = read_heads(complete_run / "heads.jsonl")[-1]
    head = replace(signed.head, round=999)
    server = key_of("server").sign(SERVER_LABEL + head.encode()).hex()
    witnesses = {site: key_of(site).sign(WITNESS_LABEL + head.encode()).hex() for site in SITES}
    (complete_run / "heads.jsonl").write_bytes(SignedHead(head, server, witnesses).encode() + b"\n")
    assert "is of round 999, the last finished one is 3" in failure(complete_run)[1]


@pytest.mark.parametrize("name", ["heads.jsonl", "sites/west/heads.jsonl"])
def test_what_follows_the_last_head_is_not_overlooked(complete_run, name):
    with (complete_run / name).open("ab") as stream:
        stream.write(b"anything")
    assert "heads.jsonl ends in an incomplete line" in failure(complete_run)[1]


def test_the_file_of_the_roster_has_its_digest(complete_run, tmp_path):
    (tmp_path / "cut.json").write_bytes((complete_run / "roster.json").read_bytes().removesuffix(b"\n"))
    assert "its line does not end" in failure(complete_run, roster=tmp_path / "cut.json")[1]
