"""The report: made from files alone, the same every time, and saying no number that is not in the record."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest

import audit.report
from audit import EvidenceError
from audit.accounting import Gaussian, Repeated, mechanism_fields, upper_epsilon
from audit.empirical import GaussianCurve, ProfileCurve
from audit.history import read_history
from audit.log import read_events
from audit.report import (
    FORMATS,
    build_report,
    decode_report,
    encode_report,
    render,
    render_html,
    render_markdown,
    verdict_lines,
    write_report,
)
from audit.report.form import REPORT
from tests.audit.report.pages import Page, edited, rich_run, verdicts
from tests.audit.report.schema import json_schema
from tests.audit.runs import SITES, STEP, STEPS, roster_of


def numbers_in(value):
    if isinstance(value, dict):
        return {found for item in value.values() for found in numbers_in(item)}
    if isinstance(value, list):
        return {found for item in value for found in numbers_in(item)}
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def test_a_report_is_the_same_every_time_and_survives_its_file(private_run, tmp_path):
    first = build_report(private_run)
    moved = shutil.copytree(private_run, tmp_path / "elsewhere")
    for name in FORMATS:
        assert render(first, name) == render(build_report(moved), name)
    assert render_html(decode_report(encode_report(first))) == render_html(first)


def test_the_published_schema_is_that_of_the_code(private_report):
    path = Path(audit.report.__file__).parent / "schema.json"
    schema = json.loads(path.read_text())
    assert schema == json_schema(REPORT, "SecureFed audit report, version 1")
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(encode_report(private_report)), schema)


@pytest.mark.parametrize("encoded", [b"", b"[]", b"{}", b'{"format":"securefed-report/2"}', b"\xff"])
def test_other_files_are_no_report(encoded):
    with pytest.raises(EvidenceError):
        decode_report(encoded)


@pytest.mark.parametrize("kind", ["complete_run", "private_run"])
def test_the_page_is_whole_and_fetches_nothing(request, kind):
    page = render_html(build_report(request.getfixturevalue(kind)))
    parsed = Page(page)
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "input"}
    assert not re.search(r"(https?:)?//|@import|url\(|javascript:", page)
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert parsed.headings[0] == 1
    assert parsed.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(parsed.headings, parsed.headings[1:], strict=False))
    for tag, given in parsed.tags:
        if tag == "svg":
            assert given["role"] == "img"
            assert given["aria-label"]
        if tag == "html":
            assert given["lang"] == "en"
    assert page.count("<table") == page.count("<caption>")
    assert page.count("<svg") == page.count("<title>") - 1
    assert "viewport" in page


@pytest.mark.parametrize("kind", ["complete_run", "private_run"])
def test_every_number_of_the_page_is_in_the_report(request, kind):
    report = build_report(request.getfixturevalue(kind))
    shown = Page(render_html(report)).numbers
    assert len(shown) > 40
    assert set(shown) <= numbers_in(report)


def test_every_number_of_the_report_follows_from_the_log(private_run, private_report):
    history = read_history(read_events(private_run / "audit.jsonl"))
    rows = [row for record in history.rounds for row in record.byte_rows()]
    up = sum(row.bytes for row in rows if row.way == "up")
    down = sum(row.bytes for row in rows if row.way == "down")
    communication = private_report["communication"]
    assert communication["total"] == {"up": up, "down": down}
    for name in ("by_client", "by_stage", "by_kind"):
        assert sum(both["up"] for both in communication[name].values()) == up
        assert sum(both["down"] for both in communication[name].values()) == down
    assert sum(sum(entry["kinds"].values()) for entry in communication["by_round"]) == up
    assert communication["per_client_round"]["up"] == up / 6
    assert sum(entry["sent"] for entry in private_report["hospitals"]) == up
    epsilon = upper_epsilon([Repeated(STEP, STEPS * 2)], 1e-5)
    assert private_report["claim"]["epsilon"] == epsilon
    assert {entry["epsilon"] for entry in private_report["hospitals"]} == {epsilon}
    assert private_report["rounds"][-1]["epsilon"] == epsilon


def test_a_run_without_noise_claims_nothing_and_warns(report):
    assert verdicts(report) == {
        "The record": "PASS",
        "Secure aggregation": "NOT CLAIMED",
        "Differential privacy": "NOT CLAIMED",
        "Privacy budget": "NOT CLAIMED",
        "Attacks tried": "NOT CLAIMED",
        "Communication": "PASS",
    }
    assert "a sum alone leaks" in report["claim"]["statement"]
    assert all("No differential privacy is claimed" in entry["sentence"] for entry in report["hospitals"])
    assert report["pitfalls"][0]["outcome"] == "NOT APPLICABLE"
    assert {row["epsilon"] for row in report["trust"]} == {None}


def test_a_private_run_states_its_claim_for_every_adversary(private_report):
    claim = private_report["claim"]
    assert verdicts(private_report)["Differential privacy"] == "PASS"
    assert (claim["unit"], claim["adjacency"], claim["delta"]) == ("image", "add-or-remove-one", 1e-5)
    assert claim["lower"] < claim["epsilon"] <= claim["cross_checks"]["RDP"]
    assert "adding or removing one training image" in claim["statement"]
    assert {row["epsilon"] for row in private_report["trust"]} == {claim["epsilon"]}
    epsilons = [entry["epsilon"] for entry in claim["by_delta"]]
    assert epsilons == sorted(epsilons)
    assert [event["repetitions"] for event in claim["events"]] == [2 * STEPS] * 3


def test_a_pinned_roster_is_said(complete_run, tmp_path):
    (tmp_path / "roster.json").write_bytes(roster_of().encode())
    report = build_report(complete_run, roster=tmp_path / "roster.json")
    assert report["identity"]["is_pinned"]
    assert "agreed on before the run" in report["verdicts"][0]["sentence"]


def test_a_changed_run_fails_on_the_first_page(complete_run):
    (complete_run / "summary.json").write_text("{}")
    report = build_report(complete_run)
    assert verdicts(report)["The record"] == "FAIL"
    assert "summary.json was changed" in report["verdicts"][0]["sentence"]
    page = render_html(report)
    assert page.index("FAIL") < page.index("Contents")
    (complete_run / "audit.jsonl").write_bytes(b"")
    with pytest.raises(EvidenceError):
        build_report(complete_run)


def test_an_unfinished_run_is_reported_as_such(run):
    report = build_report(run.folder)
    assert verdicts(report)["The record"] == "NOT CLAIMED"
    assert "did not reach its end" in render_html(report)
    assert report["identity"]["ended"] is None


def test_what_cannot_be_accounted_fails(private_run):
    edited(private_run, "privacy_event", lambda f: f.update(mechanism={"type": "unknown", "reason": "in clear"}))
    report = build_report(private_run)
    assert report["claim"]["epsilon"] is None
    assert verdicts(report)["Differential privacy"] == "FAIL"
    assert "could not be accounted" in report["hospitals"][0]["sentence"]
    render_html(report)


def test_a_missed_target_fails(private_run):
    edited(private_run, "privacy_claim", lambda f: f.update(target_epsilon=0.01))
    report = build_report(private_run)
    assert verdicts(report)["Differential privacy"] == "FAIL"


def test_an_epsilon_that_does_not_verify_is_told_with_what_is_wrong_with_it(private_run):
    edited(private_run, "epsilon", lambda f: f.update(upper=0.01))
    report = build_report(private_run)
    sentence = next(row["sentence"] for row in report["verdicts"] if row["subject"] == "Differential privacy")
    assert sentence.startswith("The record does not bear out the epsilon that it states: event ")
    assert "states epsilon 0.01, the events before it give" in sentence


def test_everything_that_a_run_can_record_is_shown(tmp_path):
    report = build_report(rich_run(tmp_path))
    page, plain = render_html(report), render_markdown(report)
    parsed = Page(page)
    words = " ".join(parsed.text)
    for expected in ("tumour typing <b>", "X-1", "b|c", "ViT & co", "west (Unmasking)", "inversion", "unreadable: 2"):
        assert expected in words
    assert "tumour typing <b>" not in page
    assert set(parsed.numbers) <= numbers_in(report)
    assert report["data"]["hospitals"] == [*SITES, "zenith"]
    assert report["utility"]["worst"]["accuracy"] == {"site": "north", "value": 0.5}
    assert report["utility"]["worst"]["ece"]["value"] == 0.1
    assert report["utility"]["mean"]["ensemble"]["accuracy"] == pytest.approx(0.6)
    assert report["utility"]["held_out"]["east"]["ensemble"]["accuracy"] == 0.125
    assert list(report["utility"]["sites"]) == list(SITES)
    assert "east (held out: took no part)" in words
    assert report["hospitals"][0]["refused"] == 1
    assert verdicts(report)["Secure aggregation"] == "PASS"
    assert verdicts(report)["Attacks tried"] == "PASS"
    assert "1 loss of a hospital was survived" in report["verdicts"][1]["sentence"]
    assert [row["state"] for row in report["questions"]].count("open") == 1
    assert len(report["questions"]) == 13
    assert "necessity (GDPR 35(7)(b))" not in report["purpose"]["open_items"]
    assert "west (Unmasking)" in plain
    assert "b\\|c" not in plain or "b|c" in words
    comparison = {entry["name"]: entry["bytes"] for entry in report["communication"]["comparison"]}
    assert comparison["ring bits x coordinates / 8"] == 2250


@pytest.mark.parametrize(("kind", "state"), [("private_run", "open"), ("complete_run", "answered")])
def test_a_delta_that_nobody_has_compared_with_the_number_of_people_is_an_open_item(request, kind, state):
    report = build_report(request.getfixturevalue(kind))
    (row,) = [row for row in report["questions"] if row["question"].startswith("Is delta small")]
    assert row["state"] == state
    assert row["answer"].startswith("open: delta is 1e-05; the controller compares it") is (state == "open")
    assert f"| {row['answer']} | {state} |" in render_markdown(report)


def test_too_few_in_a_sum_fails(tmp_path):
    folder = rich_run(tmp_path)
    edited(folder, "protocol_described", lambda f: f.update(threshold=4))
    assert verdicts(build_report(folder))["Secure aggregation"] == "FAIL"


def test_fields_of_the_protocol_are_shown_and_not_what_is_written_beside_them(tmp_path):
    folder = rich_run(tmp_path)
    beside = {"secure_aggregation": False, "threshold": 99, "neighbours": 2}
    edited(folder, "protocol_described", lambda f: f.update(values=beside))
    report = build_report(folder)
    assert report["protocol"]["secure_aggregation"] is True
    assert (report["protocol"]["threshold"], report["protocol"]["neighbours"]) == (3, 2)
    assert not report["identity"]["is_verified"]


def test_a_successful_attack_fails(tmp_path):
    folder = rich_run(tmp_path)
    edited(folder, "attack", lambda f: f.update(outcome="FAIL"))
    report = build_report(folder)
    assert verdicts(report)["Attacks tried"] == "FAIL"
    assert "1 of 1 attacks succeeded: inversion" in report["verdicts"][4]["sentence"]


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        ({"outcome": "MEASURED"}, "No attack on a claim was tried; 1 measured without a claim."),
        ({"outcome": "MEASURED", "setting": "not tried"}, "No attack on a claim was tried; 1 not tried."),
    ],
)
def test_an_attack_that_was_not_tried_or_has_no_claim_against_it_passes_nothing(tmp_path, attack, told):
    folder = rich_run(tmp_path)
    edited(folder, "attack", lambda f: f.update(attack))
    report = build_report(folder)
    assert verdicts(report)["Attacks tried"] == "NOT CLAIMED"
    assert report["verdicts"][4]["sentence"] == told


def test_no_file_name_and_no_value_of_a_patient_reaches_the_report(complete_run):
    (complete_run / "sites" / "north" / "PATIENT-4711.txt").write_text("PATIENT-4711")
    for name in FORMATS:
        assert b"PATIENT-4711" not in render(build_report(complete_run), name)


def test_reports_are_written_beside_the_run(complete_run, tmp_path):
    report, paths = write_report(complete_run)
    assert sorted(path.name for path in paths.values()) == ["report.html", "report.json", "report.md"]
    assert decode_report(paths["json"].read_bytes()) == json.loads(encode_report(report))
    lines = verdict_lines(report)
    assert [line.split(":")[0] for line in lines] == ["privacy", "bytes", "record"]
    assert build_report(complete_run) == report
    with pytest.raises(ValueError, match="no format"):
        render(report, "docx")
    _, paths = write_report(complete_run, ("md",), output=tmp_path / "new" / "folder")
    assert paths["md"] == tmp_path / "new" / "folder" / "report.md"
    assert paths["md"].exists()
    with pytest.raises(audit.LogWriteError):
        write_report(complete_run, output=paths["md"])


def test_the_tradeoff_of_a_claim_bounds_every_attack():
    assert ProfileCurve(((1.0, 0.0),)).found(0.01) == pytest.approx(0.02718, abs=1e-5)
    assert ProfileCurve(((0.0, 0.0),)).found(0.01) == pytest.approx(0.01)
    assert ProfileCurve(((1.0, 0.0),)).found(0.5) == pytest.approx(1 - 0.5 / 2.71828, abs=1e-5)
    assert ProfileCurve(((0.0, 0.5),)).found(0.1) == pytest.approx(0.6)
    assert ProfileCurve(((float("inf"), 1e-5),)).found(0.1) == 1
    assert ProfileCurve(((1000.0, 1e-5),)).found(0.1) == 1


@pytest.mark.parametrize("noise", [0.6, 1.5, 5.0])
def test_what_any_attack_can_find_is_stated_close_above_the_exact_curve_of_the_noise(private_run, noise):
    mechanism = mechanism_fields(Gaussian(noise))
    edited(private_run, "privacy_event", lambda fields: fields.update(mechanism=mechanism, repetitions=1))
    attacker = build_report(private_run)["claim"]["attacker"]
    exact = GaussianCurve(math.sqrt(2) / noise)  # two rounds
    assert [row["false_positives"] for row in attacker] == [0.001, 0.01, 0.1]
    for row in attacker:
        truth = exact.found(row["false_positives"])
        assert truth <= row["true_positives"] <= min(1.0, 1.1 * truth)
