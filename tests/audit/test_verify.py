"""Verification: a clean run passes; what an attacker does to the log is found and the first bad event named."""

import json
import shutil
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import EventLog, heads
from audit.canonical import decode_canonical, encode_canonical
from audit.heads import SignedHead
from audit.report import build_report
from audit.verify import Outcome, verify_run
from tests.audit.runs import SITES, Ticks, rechained, roster_of, round_fields, signed_again
from tests.audit.tampering import COMPLETED, changed, failure, lines_of, write_lines


def test_a_clean_run_verifies(complete_run):
    found = verify_run(complete_run)
    assert {check.name: check.outcome for check in found.checks} == {
        "log": Outcome.PASS,
        "history": Outcome.PASS,
        "signatures": Outcome.PASS,
        "sums": Outcome.ABSENT,
        "configuration": Outcome.PASS,
        "files": Outcome.PASS,
        "model": Outcome.PASS,
        "bytes": Outcome.PASS,
        "epsilon": Outcome.ABSENT,
    }
    assert (found.run_id, found.events, found.is_complete, found.is_pinned) == ("r1", 13, True, False)
    assert found.first_bad_event == -1
    found.require()
    assert "9684 bytes up" in next(check.detail for check in found.checks if check.name == "bytes")


def test_a_roster_from_outside_pins_the_keys(complete_run, tmp_path):
    (tmp_path / "pinned.json").write_bytes(roster_of().encode())
    found = verify_run(complete_run, roster=tmp_path / "pinned.json")
    assert found.is_verified
    assert found.is_pinned


def test_a_clock_that_went_back_is_remarked_on_and_no_fault(run):
    """Times are the writer's and no proof of order; a run must not be said to end before it began without a word."""
    run.log._clock.now -= timedelta(days=400)
    found = verify_run(run.complete())
    assert found.is_verified
    history = next(check.detail for check in found.checks if check.name == "history")
    remark = "clock of the log went back at event 11, from 2026-01-02T03:04:16.000000Z to 2024-11-28T03:04:17.000000Z"
    assert history.endswith(f"the run reached its end; the {remark}")
    said = build_report(run.folder)["limitations"]
    assert f"The {remark}: its times do not say when, or for how long, it was written." in said


def test_an_interrupted_run_verifies_as_far_as_it_came(run):
    run.start(4)
    run.log.append("interrupted", {"round": 3, "reason": "stopped by the user"})
    run.log.close()
    found = verify_run(run.folder)
    assert found.is_verified
    assert not found.is_complete
    assert "DID NOT REACH ITS END" in found.checks[1].detail
    assert "last 2 events are not signed" in found.checks[2].detail


def test_a_resumed_run_verifies_and_counts_what_was_sent(run):
    run.log.append("interrupted", {"round": 3, "reason": "power"})
    run.log.append("resumed", {"round": 2})
    run.round(3)
    folder = run.complete()
    found = verify_run(folder)
    assert found.is_verified, found.failed
    assert "1 were done again" in found.checks[1].detail


def test_an_unsigned_run_says_so(run, tmp_path):
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "x", "operation": "simulation"}, Ticks()):
        pass
    found = verify_run(tmp_path)
    assert found.is_verified
    assert found.checks[2].outcome is Outcome.ABSENT
    assert "nobody signed" in found.checks[2].detail


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_the_log_is_found_where_it_is(complete_run, data):
    path = complete_run / "audit.jsonl"
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    line = content[:position].count(b"\n")
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    before = path.read_bytes()
    path.write_bytes(content)
    first, _ = failure(complete_run)
    path.write_bytes(before)
    assert line <= first <= line + 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    name=st.sampled_from(["heads.jsonl", "roster.json", "summary.json", "config.toml", "fam.safetensors"]),
)
def test_any_flipped_bit_of_the_other_files_is_found(complete_run, data, name):
    path = complete_run / name
    before = path.read_bytes()
    content = bytearray(before)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    failure(complete_run)
    path.write_bytes(before)


@pytest.mark.parametrize("at", range(13))
def test_a_deleted_event_is_found(complete_run, at):
    lines = lines_of(complete_run)
    write_lines(complete_run, lines[:at] + lines[at + 1 :])
    first, _ = failure(complete_run)
    assert first == at


@pytest.mark.parametrize("at", range(12))
def test_swapped_events_are_found(complete_run, at):
    lines = lines_of(complete_run)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    write_lines(complete_run, lines)
    assert failure(complete_run)[0] == at


@pytest.mark.parametrize("at", range(1, 13))
def test_a_truncated_log_is_found(complete_run, at):
    write_lines(complete_run, lines_of(complete_run)[:at])
    first, reason = failure(complete_run)
    assert first == at
    assert "cut" in reason


def test_a_log_cut_together_with_its_heads_contradicts_every_hospital(complete_run, tmp_path):
    write_lines(complete_run, lines_of(complete_run)[:9])
    heads = (complete_run / "heads.jsonl").read_bytes().splitlines(keepends=True)
    (complete_run / "heads.jsonl").write_bytes(b"".join(heads[:2]))
    for site in SITES[1:]:
        shutil.rmtree(complete_run / "sites" / site)
    assert failure(complete_run)[0] == 9
    shutil.move(complete_run / "sites" / "north" / "heads.jsonl", tmp_path / "north.jsonl")
    (complete_run / "summary.json").unlink()
    assert verify_run(complete_run).is_verified
    first, reason = failure(complete_run, heads=[tmp_path / "north.jsonl"])
    assert first == 9
    assert "cut" in reason


def test_older_heads_than_a_hospital_kept_are_found(complete_run):
    heads = (complete_run / "heads.jsonl").read_bytes().splitlines(keepends=True)
    (complete_run / "heads.jsonl").write_bytes(b"".join(heads[:-1]))
    first, reason = failure(complete_run)
    assert first == 11
    assert "a hospital kept a head over 13 events" in reason
    assert reason.endswith("; if the run was cut off there: simulate --resume goes on and has it signed")
    for site in SITES:
        (complete_run / "sites" / site / "heads.jsonl").unlink()
    first, reason = failure(complete_run)
    assert first == 11
    assert "not covered" in reason
    assert reason.endswith("; if the run was cut off there: simulate --resume goes on and has it signed")


@pytest.mark.parametrize("at", ["before the first hospital", "between the hospitals", "before the server's file"])
def test_a_run_that_was_killed_while_a_head_was_signed_fails_and_is_told_the_way_on(run, monkeypatch, at):
    """What a crash leaves there cannot be told from a record that somebody cut: the check fails until it is signed."""
    real, calls = heads.append_line, {"before the first hospital": 1, "between the hospitals": 2}.get(at, 4)
    left = iter(range(calls - 1))

    def killed(path, line):
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(path, line)

    run.start(4)
    monkeypatch.setattr(heads, "_TOGETHER", 1)
    monkeypatch.setattr(heads, "append_line", killed)
    run.log.append("round_completed", round_fields(4))
    with pytest.raises(KeyboardInterrupt):
        run.book.publish(4, run.witnesses)
    monkeypatch.undo()
    if at == "before the first hospital":
        assert verify_run(run.folder).is_verified  # a crash leaves one round unsigned
    else:
        first, reason = failure(run.folder)
        assert first == 11
        assert reason.endswith("; if the run was cut off there: simulate --resume goes on and has it signed")
    run.book.publish(4, run.witnesses)
    assert verify_run(run.folder).is_verified


def test_an_attack_that_was_killed_while_its_head_was_signed_is_told_the_way_on(complete_run):
    lines, kept = lines_of(complete_run), (complete_run / "heads.jsonl").read_bytes()
    attack = {"kind": "attack", "name": "inversion", "setting": "x", "outcome": "FAIL", "values": {}}
    lines = rechained([*lines, encode_canonical({**attack, "time": decode_canonical(lines[-1])["time"]})])
    signed_again(complete_run, lines)
    signed = SignedHead.decode((complete_run / "heads.jsonl").read_bytes().splitlines()[-1])
    own = SignedHead(signed.head, signed.server, {"north": signed.witnesses["north"]})
    (complete_run / "heads.jsonl").write_bytes(kept)
    with (complete_run / "sites" / "north" / "heads.jsonl").open("ab") as stream:
        stream.write(own.encode() + b"\n")
    _, reason = failure(complete_run)
    assert "a hospital kept a head over 14 events" in reason
    assert reason.endswith("; if an attack on it was cut off there: audit attack has it signed again")


@pytest.mark.parametrize("at", range(13))
def test_a_replaced_event_with_the_chain_made_good_again_is_found(complete_run, at):
    """The forger can write the log, but holds no key: the first head over the event disagrees."""
    lines = lines_of(complete_run)
    lines[at] = changed(lines[at], time="2026-01-02T03:04:05.500000Z")
    write_lines(complete_run, rechained(lines))
    first, reason = failure(complete_run)
    assert "another history" in reason
    heads = [json.loads(line)["head"]["size"] for line in (complete_run / "heads.jsonl").read_bytes().splitlines()]
    assert first == next(size for size in heads if size > at) - 1


def test_a_server_that_rewrites_and_signs_again_contradicts_every_hospital(complete_run, tmp_path):
    lines = lines_of(complete_run)
    lines[8] = changed(lines[8], aggregate_digest="0" * 64)
    copy = shutil.copytree(complete_run, tmp_path / "copy")
    signed_again(copy, rechained(lines))
    first, reason = failure(copy)
    assert "sites" not in reason
    assert "fork" in reason
    assert 8 <= first <= 12
    for site in SITES:
        shutil.rmtree(copy / "sites" / site)
    assert verify_run(copy).is_verified
    kept = complete_run / "sites" / "west" / "heads.jsonl"
    assert "fork" in failure(copy, heads=[kept])[1]


def test_a_server_without_the_hospitals_keys_cannot_sign_for_them(complete_run):
    for site in SITES:
        shutil.rmtree(complete_run / "sites" / site)
    signed_again(complete_run, lines_of(complete_run), sites=SITES[:2])
    first, reason = failure(complete_run)
    assert first == COMPLETED
    assert "lacks the countersignature of 'west'" in reason
