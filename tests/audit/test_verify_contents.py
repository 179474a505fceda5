"""Verification: a record that contradicts itself, its keys, its files or its epsilon is found."""

import shutil
import subprocess
import sys
import time

import pytest

from audit.accounting import Repeated, Skellam, account, mechanism_fields, pld
from audit.canonical import encode_canonical
from audit.check_epsilon import seen_by
from audit.roster import Roster
from audit.verify import Outcome, verify_run
from tests.audit.runs import (
    RESULTS,
    SITES,
    STEP,
    STEPS,
    D,
    Run,
    key_of,
    model_digest,
    model_of,
    rechained,
    roster_of,
    round_fields,
    safetensors,
    sha256,
    signed_again,
)
from tests.audit.tampering import COMPLETED, changed, edited, failure, lines_of, write_lines
from tests.audit.test_forged_records import masked_run


def test_a_swapped_key_is_found(complete_run, tmp_path):
    honest = tmp_path / "honest.json"
    honest.write_bytes(roster_of().encode())
    lines = lines_of(complete_run)
    forged = Roster(roster_of().server, {**roster_of().hospitals, "west": roster_of(("mallory",)).hospitals["mallory"]})
    (complete_run / "roster.json").write_bytes(forged.encode())
    first, reason = failure(complete_run)
    assert first == 1
    assert "swapped" in reason
    lines[1] = changed(lines[1], digest=forged.digest, hospitals=dict(forged.hospitals))
    for site in SITES:
        shutil.rmtree(complete_run / "sites" / site)
    signed_again(complete_run, rechained(lines))
    assert "wrong signature of 'west'" in failure(complete_run)[1]
    assert failure(complete_run, roster=honest)[0] == 1


def test_keys_in_the_log_that_are_not_those_of_the_digest_are_found(complete_run):
    lines = lines_of(complete_run)
    lines[1] = changed(lines[1], server=roster_of(("mallory",)).hospitals["mallory"])
    for site in SITES:
        shutil.rmtree(complete_run / "sites" / site)
    signed_again(complete_run, rechained(lines))
    assert failure(complete_run)[0] == 1


def test_heads_without_a_roster_in_the_log_are_found(complete_run):
    for site in SITES:
        shutil.rmtree(complete_run / "sites" / site)
    signed_again(complete_run, rechained([line for line in lines_of(complete_run) if b'"roster"' not in line]))
    first, reason = failure(complete_run)
    assert first == 0
    assert "names no roster" in reason


def test_heads_of_another_run_are_found(complete_run, tmp_path):
    other = Run(tmp_path / "other", run_id="r2").complete()
    first, reason = failure(complete_run, heads=[other / "heads.jsonl"])
    assert first == 0
    assert "'r2'" in reason


@pytest.mark.parametrize(
    ("kind", "edit", "reason"),
    [
        ("config", lambda f: f.update(values={"federation": {"rounds": 4}}), "digest beside it"),
        ("round_started", lambda f: f.update(round=2), "begins after round 0"),
        ("round_completed", lambda f: f.update(round=2), "without having begun"),
        ("round_completed", lambda f: f.update(cohort=["north"], survivors=["north"]), "cohort"),
        ("round_completed", lambda f: f.update(survivors=["north"]), "survivors and dropouts"),
        ("round_completed", lambda f: f.update(survivors=["north", "south", "west", "x"]), "survivors and dropouts"),
        ("round_completed", lambda f: f["bytes"].update(x={}), "outside of the cohort"),
        ("run_completed", lambda f: f.update(model_digest="0" * 64), "kept model"),
        ("run_completed", lambda f: f.update(chosen_round=4), "more rounds"),
        ("run_completed", lambda f: f.update(rounds=4), "more rounds"),
        ("run_completed", lambda f: f["files"].update({"../x": "0" * 64}), "outside"),
        ("run_completed", lambda f: f["files"].update({"gone": "0" * 64}), "missing"),
        ("run_completed", lambda f: f["files"].update({"summary.json": "0" * 64}), "changed after"),
    ],
)
def test_a_log_that_contradicts_itself_or_the_files_is_found(complete_run, kind, edit, reason):
    at = edited(complete_run, kind, edit)
    first, found = failure(complete_run)
    assert first == at
    assert reason in found


def test_another_model_between_rounds_is_found(complete_run):
    at = edited(complete_run, "round_started", lambda f: f.update(model_digest="0" * 64), occurrence=1)
    first, reason = failure(complete_run)
    assert first == at
    assert "another model" in reason


def test_bytes_that_do_not_add_up_are_found(complete_run):
    def more(fields):
        fields["bytes"]["north"]["up"]["Unmasking"]["shares"] += 1

    at = edited(complete_run, "round_completed", more, occurrence=1)
    first, reason = failure(complete_run)
    assert first == at
    assert "round 2, north, up, Unmasking, shares: 64 bytes in bytes.csv, 65 in the log" in reason
    table = complete_run / "bytes.csv"
    table.write_text(
        table.read_text().replace("2,north,upload,Unmasking,shares,64", "2,north,upload,Unmasking,shares,65")
    )
    first, reason = failure(complete_run)
    assert first == COMPLETED
    assert "upload_bytes 9684, the log sums to 9685" in reason


def test_bytes_of_rounds_done_again_are_not_left_out(tmp_path):
    run = Run(tmp_path / "r")
    run.log.append("resumed", {"round": 2})
    run.round(3)
    folder = run.complete()
    (check,) = (check for check in verify_run(folder).checks if check.name == "bytes")
    counted = "12915 bytes up and 24000 down over 3 rounds and 1 aborted or done again"
    assert check.detail == f"{counted}, summed from the log"
    table = (folder / "bytes.csv").read_text().splitlines(keepends=True)
    (folder / "bytes.csv").write_text("".join(dict.fromkeys(table)))
    reason = failure(folder)[1]
    assert "round 3, north, down, AdvertiseKeys, payload: 2000 bytes in bytes.csv, 4000 in the log" in reason


@pytest.mark.parametrize("name", RESULTS)
def test_the_end_of_the_log_vouches_for_every_result(complete_run, name):
    edited(complete_run, "run_completed", lambda fields: fields["files"].pop(name))
    assert f"the end of the log states no digest of {name}" in failure(complete_run)[1]


def test_counts_that_are_stated_nowhere_are_missed(complete_run, tmp_path):
    (complete_run / "bytes.csv").unlink()
    assert "bytes.csv cannot be read" in failure(complete_run)[1]
    folder = Run(tmp_path / "silent").complete(communication={"upload_bytes": 9684})
    assert "states download_bytes None, the log sums to 18000" in failure(folder)[1]


def test_a_model_without_a_layout_or_with_more_than_it_names_is_found(complete_run):
    for metadata, tensors, reason in (
        ({}, model_of(3), "layout in fam.safetensors is missing"),
        ({"layout": '["fam.b"]'}, model_of(3), "holds fam.a, which its layout does not name"),
    ):
        content = safetensors(tensors, {"fam_sha256": model_digest(3), **metadata})
        (complete_run / "fam.safetensors").write_bytes(content)
        edited(complete_run, "run_completed", lambda f, c=content: f["files"].update({"fam.safetensors": sha256(c)}))
        assert reason in failure(complete_run)[1]


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("data_described", {"classes": ["a", "melanoma"]}, "states classes ['a', 'melanoma'], fam.safetensors has"),
        ("protocol_described", {"dimension": 7}, "states a dimension of 7, fam.safetensors has 1000 parameters"),
    ],
)
def test_a_model_is_as_long_and_for_the_classes_that_the_log_says(tmp_path, kind, change, reason):
    folder = masked_run(tmp_path / "masked")
    edited(folder, kind, lambda fields: fields.update(change))
    assert reason in failure(folder)[1]


@pytest.mark.parametrize("width", [3, 4])
def test_an_encoder_is_as_wide_as_the_features_of_the_class_names(tmp_path, width):
    run = Run(tmp_path / "run", rounds=0)
    run.log.append("encoder_described", {"name": "ViT", "digest": D, "embed_dim": width})
    for number in (1, 2, 3):
        run.round(number)
    folder = run.complete()
    metadata = {"fam_sha256": model_digest(3), "layout": '["fam.b", "fam.a"]'}
    content = safetensors({**model_of(3), "text_features": bytes(4 * 3 * 2)}, metadata)
    (folder / "fam.safetensors").write_bytes(content)
    edited(folder, "run_completed", lambda f: f["files"].update({"fam.safetensors": sha256(content)}))
    if width == 3:
        assert verify_run(folder).is_verified
    else:
        assert "states an embed_dim of 4, the features of 2 classes" in failure(folder)[1]


def test_an_event_after_the_end_or_twice_is_found(complete_run):
    lines = lines_of(complete_run)
    for site in SITES:
        shutil.rmtree(complete_run / "sites" / site)
    again = encode_canonical({"kind": "interrupted", "round": 3, "reason": "x", "time": "2026-01-02T03:04:05.500000Z"})
    signed_again(complete_run, rechained([*lines, again]))
    assert failure(complete_run)[0] == COMPLETED + 1
    signed_again(complete_run, rechained([*lines[:3], lines[2], *lines[3:]]))
    assert failure(complete_run) == (3, "the log contradicts itself: event 3: config stands twice (first as event 2)")


def test_an_event_about_an_attack_may_follow_the_end(complete_run):
    lines = lines_of(complete_run)
    time_ = "2026-01-02T03:04:05.500000Z"
    attack = {"kind": "attack", "time": time_, "name": "m", "setting": "s", "outcome": "PASS", "values": {}}
    write_lines(complete_run, rechained([*lines, encode_canonical(attack)]))
    found = verify_run(complete_run)
    assert found.is_verified
    assert "last 1 events are not signed" in found.checks[2].detail


def test_a_swapped_parameter_is_found(complete_run):
    path = complete_run / "fam.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-8] + content[-4:] + content[-8:-4])
    first, reason = failure(complete_run)
    assert first == COMPLETED
    assert "fam.safetensors are not those of the log" in reason


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"{}", b"\x02" + bytes(7) + b"[]"])
def test_a_damaged_model_file_is_named(complete_run, content):
    (complete_run / "fam.safetensors").write_bytes(content)
    assert "fam.safetensors" in failure(complete_run)[1]


@pytest.mark.parametrize(
    "name", ["summary.json", "config.toml", "bytes.csv", "roster.json", "heads.jsonl", "audit.jsonl"]
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b"{}", b'{"a":1}\n', b"\x00" * 100])
def test_garbage_in_any_file_is_a_failed_check(complete_run, name, content):
    (complete_run / name).write_bytes(content)
    failure(complete_run)


def test_garbage_from_outside_is_a_failed_check(complete_run, tmp_path):
    (tmp_path / "x").write_bytes(b"garbage\n")
    failure(complete_run, heads=[tmp_path / "x"])
    failure(complete_run, roster=tmp_path / "x")
    failure(complete_run, roster=tmp_path / "absent")


# privacy


def test_a_private_run_verifies_with_its_epsilon(private_run):
    found = verify_run(private_run)
    assert found.is_verified, found.failed
    check = found.checks[-1]
    assert check.outcome is Outcome.PASS
    assert "6 stated values recomputed" in check.detail


@pytest.mark.parametrize(
    ("kind", "edit", "reason"),
    [
        ("epsilon", lambda f: f.update(upper=f["upper"] * 0.9), "states epsilon"),
        ("epsilon", lambda f: f.update(upper=None), "states epsilon None"),
        ("privacy_event", lambda f: f.update(repetitions=61), "states epsilon"),
        ("privacy_event", lambda f: f["mechanism"].update(noise_multiplier=1.1), "states epsilon"),
        ("privacy_event", lambda f: f.update(hospital="south"), "nothing was accounted for north"),
        ("privacy_claim", lambda f: f.update(delta=1e-6), "summary.json states epsilon"),
        ("privacy_claim", lambda f: f.update(claim="NOT CLAIMED"), "claims nothing"),
        ("privacy_claim", lambda f: f.pop("delta"), "without a delta"),
        ("privacy_claim", lambda f: f.update(adjacency="replace-one"), "states epsilon"),
    ],
)
def test_an_epsilon_that_is_not_that_of_the_events_is_found(private_run, kind, edit, reason):
    edited(private_run, kind, edit, occurrence=-3 if kind != "privacy_claim" else 0)
    assert reason in failure(private_run)[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"upper": 9.0}, "states epsilon 9.0"),
        ({"upper": 0.001}, "states epsilon 0.001"),
        ({"lower": 50.0}, "states epsilon (lower) 50.0"),
        ({"cross_checks": {"RDP": 0.1}}, "states epsilon (RDP) 0.1"),
        ({"cross_checks": {"guess": 0.1}}, "a cross-check by guess, which there is none of here"),
    ],
)
def test_every_stated_epsilon_is_recomputed_the_first_as_the_last(private_run, change, reason):
    at = edited(private_run, "epsilon", lambda fields: fields.update(change), occurrence=0)
    first, found = failure(private_run)
    assert first == at
    assert reason in found


def test_a_bracket_that_holds_passes(private_run):
    found = account([Repeated(STEP, STEPS)], 1e-5)
    bracket = {"lower": found.lower, "cross_checks": dict(found.cross_checks)}
    edited(private_run, "epsilon", lambda fields: fields.update(bracket), occurrence=0)
    assert verify_run(private_run).is_verified


def test_more_epsilons_than_a_run_states_are_not_waited_for(private_run, monkeypatch):
    monkeypatch.setattr("audit.check_epsilon._MOST_VALUES", 1)
    assert "more than 1 different epsilons are stated" in failure(private_run)[1]


def test_a_share_of_noise_is_no_noise_against_everybody():
    shares = [Repeated(Skellam(90.0, 50.0, 3000.0, 3))]
    broken = seen_by(shares, "aggregation-broken")
    assert seen_by(shares, "everybody") == broken
    assert seen_by(shares, "aggregate-only") != broken


def test_a_summary_that_claims_what_the_log_does_not_is_found(tmp_path):
    folder = Run(tmp_path / "run").complete(privacy={"epsilon": None, "claim": "CLAIMED: all"})
    assert "summary.json claims privacy, the log claims nothing" in failure(folder)[1]


def test_a_claim_without_events_is_found(private_run):
    lines = [line for line in lines_of(private_run) if b'"privacy_event"' not in line]
    for site in SITES:
        shutil.rmtree(private_run / "sites" / site)
    signed_again(private_run, rechained(lines))
    assert "no privacy event was recorded before this release" in failure(private_run)[1]


def test_a_summary_that_claims_more_than_the_log_is_found(tmp_path):
    run = Run(tmp_path / "run")
    folder = run.complete(privacy={"epsilon": 1.0, "delta": 1e-5})
    first, reason = failure(folder)
    assert first == COMPLETED
    assert "claims nothing" in reason


def test_releases_without_a_stated_epsilon_are_absent_not_passed(tmp_path):
    """As where a run was cut off between its first sum and what is stated of it."""
    run = Run(tmp_path / "run", rounds=0, private=True)
    run.describe()
    run.log.append("round_started", {"round": 1, "cohort": list(SITES), "model_digest": model_digest(0)})
    for site in SITES:
        noise = {"mechanism": mechanism_fields(STEP), "repetitions": STEPS}
        run.log.append("privacy_event", {**noise, "hospital": site, "round": 1})
    run.log.append("round_completed", round_fields(1))
    run.book.publish(1, run.witnesses)
    run.log.close()
    found = verify_run(run.folder)
    assert found.is_verified, found.failed
    check = next(check for check in found.checks if check.name == "epsilon")
    assert (check.outcome, "nothing in it states an epsilon" in check.detail) == (Outcome.ABSENT, True)


def test_without_the_accountant_epsilon_is_absent_not_passed(private_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    pld._composed.cache_clear()
    found = verify_run(private_run)
    assert found.checks[-1].outcome is Outcome.ABSENT
    assert "pip install dp-accounting" in found.checks[-1].detail


# cost


def test_verification_needs_neither_torch_nor_an_accountant(complete_run):
    program = (
        "import sys; from pathlib import Path; from audit.verify import verify_run; "
        f"assert verify_run(Path({str(complete_run)!r})).is_verified; "
        "print(sorted(m for m in ('torch', 'scipy', 'dp_accounting', 'opacus', 'open_clip') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_five_thousand_events_verify_in_two_seconds(tmp_path):
    run = Run(tmp_path / "run", rounds=0)
    with run.log.batch():
        for number in range(1, 2498):
            run.start(number)
            from tests.audit.runs import round_fields

            run.log.append("round_completed", round_fields(number))
    run.book.publish(2497, run.witnesses)
    run.complete(2497)
    start = time.process_time()
    found = verify_run(run.folder)
    seconds = time.process_time() - start
    assert found.is_verified, found.failed
    assert found.events == 5001
    assert seconds < 2, seconds


def test_a_key_from_the_test_is_the_one_of_the_roster():
    assert key_of("server").public_key().public_bytes_raw().hex() == roster_of().server
