"""The report: made from files alone, the same every time, and saying no number that is not in the record."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import audit.report
from audit import EvidenceError
from audit.accounting import Repeated, upper_epsilon
from audit.canonical import decode_canonical, encode_canonical
from audit.history import read_history
from audit.log import read_events
from audit.report import (
    FORMATS,
    build_report,
    decode_report,
    encode_report,
    privacy,
    questions,
    render,
    render_html,
    render_markdown,
    verdict_lines,
    write_report,
)
from audit.report.compare import compare_reports, comparison_table
from audit.report.form import REPORT
from audit.report.privacy import true_positives
from audit.report.schema import json_schema
from audit.report.verdicts import hospital_sentence
from audit.verify import verify_run
from tests.audit.runs import SITES, STEP, STEPS, Run, rechained, roster_of, round_fields, signed_again

VOID = {"meta", "line", "rect", "circle", "polyline", "br"}


class Page(HTMLParser):
    """Collects what a test asks of a page; refuses tags that do not nest."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.numbers, self.ids, self.links, self.headings, self.text = [], [], [], [], [], []
        self._open = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "data":
            self.numbers.append(float(given["value"]))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in given:
            self.ids.append(given["id"])
        if "href" in given:
            self.links.append(given["href"])

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def numbers_in(value):
    if isinstance(value, dict):
        return {found for item in value.values() for found in numbers_in(item)}
    if isinstance(value, list):
        return {found for item in value for found in numbers_in(item)}
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


@pytest.fixture
def private_report(private_run):
    return build_report(private_run)


@pytest.fixture
def report(complete_run):
    return build_report(complete_run)


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


def verdicts(report):
    return {line["subject"]: line["verdict"] for line in report["verdicts"]}


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
    assert "adding or removing one image" in claim["statement"]
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


def edited(folder, kind, edit):
    lines = (folder / "audit.jsonl").read_bytes().splitlines()
    found = [decode_canonical(line) for line in lines]
    for event in found:
        if event["kind"] == kind:
            edit(event)
    for site in SITES:
        shutil.rmtree(folder / "sites" / site, ignore_errors=True)
    signed_again(folder, rechained([encode_canonical(event) for event in found]))


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


def append_events(run, *events):
    for kind, fields in events:
        run.log.append(kind, fields)


PROTOCOL = {"secure_aggregation": True, "clients": 3, "dimension": 1000, "threat_model": "active", "threshold": 2}


def rich_run(tmp_path):
    """A run with everything that a report can show: purpose, data, protocol, losses, metrics, attacks, refusals."""
    run = Run(tmp_path / "rich", rounds=0)
    append_events(
        run,
        ("purpose", {"values": {"purpose": "tumour typing <b>", "necessity": "no other data", "grant": "X-1"}}),
        (
            "data_described",
            {
                "name": "scans",
                "fingerprint": "ab" * 32,
                "sites": [*SITES, "east"],
                "held_out_site": "east",
                "classes": ["a", "b|c"],
                "warnings": ["unreadable: 2"],
            },
        ),
        ("encoder_described", {"name": "ViT & co", "digest": "cd" * 32, "embed_dim": 512}),
        ("protocol_described", {**PROTOCOL, "ring_bits": 18, "values": {"neighbours": 2}}),
    )
    run.round(1)
    run.start(2)
    lost = {**round_fields(2), "dropouts": {"west": "Unmasking"}}
    run.log.append("round_completed", lost)
    values = {site: {"ensemble": {"accuracy": 0.5 + 0.1 * place, "ece": 0.1}} for place, site in enumerate(SITES)}
    values["east"] = {"ensemble": {"accuracy": 0.125, "ece": 0.9}}
    append_events(
        run,
        ("evaluation", {"round": 2, "split": "test", "leaves_hospital": False, "values": values}),
        ("refused", {"what": "r3", "reason": "budget", "hospital": "north", "budget": 3}),
    )
    folder = run.complete(2)
    lines = (folder / "audit.jsonl").read_bytes().splitlines()
    moment = json.loads(lines[-1])["time"]
    attack = {"kind": "attack", "time": moment, "name": "inversion", "setting": "masked", "outcome": "PASS"}
    values = {"values": {"cosine": 0.01, "tried": 32}}
    lines = rechained([*lines, encode_canonical({**attack, **values})])
    (folder / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder


def test_everything_that_a_run_can_record_is_shown(tmp_path):
    report = build_report(rich_run(tmp_path))
    page, plain = render_html(report), render_markdown(report)
    parsed = Page(page)
    words = " ".join(parsed.text)
    for expected in ("tumour typing <b>", "X-1", "b|c", "ViT & co", "west (Unmasking)", "inversion", "unreadable: 2"):
        assert expected in words
    assert "tumour typing <b>" not in page
    assert set(parsed.numbers) <= numbers_in(report)
    assert report["data"]["hospitals"] == list(SITES)
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


def test_too_few_in_a_sum_fails(tmp_path):
    folder = rich_run(tmp_path)
    edited(folder, "protocol_described", lambda f: f.update(threshold=4))
    assert verdicts(build_report(folder))["Secure aggregation"] == "FAIL"


def test_a_successful_attack_fails(tmp_path):
    folder = rich_run(tmp_path)
    edited(folder, "attack", lambda f: f.update(outcome="FAIL"))
    report = build_report(folder)
    assert verdicts(report)["Attacks tried"] == "FAIL"
    assert "1 of 1 attacks succeeded: inversion" in report["verdicts"][4]["sentence"]


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
    assert true_positives(0.01, [(0.0, 0.0)]) == pytest.approx(0.01)
    assert true_positives(0.01, [(0.0, 1.0)]) == pytest.approx(0.02718, abs=1e-5)
    assert true_positives(0.5, [(0.0, 1.0)]) == pytest.approx(1 - 0.5 / 2.71828, abs=1e-5)
    assert true_positives(0.1, [(0.5, 0.0)]) == pytest.approx(0.6)
    assert true_positives(0.1, [(1e-5, float("inf"))]) == 1
    assert true_positives(0.1, [(1e-5, 1000.0)]) == 1


@pytest.mark.parametrize("epsilon", [7.999418588, 0.80726244, 1.0004, 12.34567])
def test_no_stated_epsilon_is_below_the_one_that_was_accounted(private_run, private_report, epsilon):
    report = private_report
    attacker = [{"false_positives": 0.001, "true_positives": 0.5}, {"false_positives": 0.01, "true_positives": 0.99914}]
    report["claim"] |= {"epsilon": epsilon, "statement": privacy._statement(epsilon, 1e-5, "x", attacker, "y")}
    entry = report["hospitals"][0] | {"epsilon": epsilon}
    sentence = hospital_sentence(entry, read_history(read_events(private_run / "audit.jsonl")), report["claim"])
    statement = report["claim"]["statement"]
    stated = [re.search(r"exp\(([0-9.]+)\)", statement)[1], re.search("epsilon ([0-9.]+) at", sentence)[1]]
    stated.append(comparison_table(compare_reports([report]))[1][10])
    shown = re.search(r"epsilon, upper bound \| ([0-9.]+)", render_markdown(report))
    assert all(epsilon <= float(text) <= 1.002 * epsilon for text in [*stated, shown[1]])
    assert float(re.search("at most ([0-9.]+) % of what was", statement)[1]) >= 99.914


@pytest.mark.parametrize(
    ("accountant", "checks", "said"),
    [
        ("PLD", {"RDP": 9.0, "PRV": 8.0}, "checked against this project's Renyi bounds and this project's privacy"),
        ("RDP", {}, "by this project's Renyi bounds, by no other: it is checked against nothing"),
    ],
)
def test_no_cross_check_is_claimed_that_was_not_made(accountant, checks, said):
    assert said in questions._libraries({"accountant": accountant, "cross_checks": checks})


def test_attempts_that_were_aborted_are_told_with_their_bytes(tmp_path):
    run = Run(tmp_path / "r", rounds=0)
    run.log.append("protocol_described", PROTOCOL)
    run.round(1)
    run.start(2)
    sent = {"north": {"up": {"AdvertiseKeys": {"keys": 173}}, "down": {"AdvertiseKeys": {"payload": 7001}}}}
    ended = {"round": 2, "stage": "AdvertiseKeys", "cause": "1 client is left", "dropouts": {"west": "AdvertiseKeys"}}
    run.log.append("round_aborted", {**ended, "bytes": sent})
    run.log.append("resumed", {"round": 1})
    run.round(2)
    folder = run.complete(2)
    assert verify_run(folder).is_verified
    report = build_report(folder)
    assert report["aborted"] == [{**ended, "bytes": {"up": 173, "down": 7001}, "event": report["aborted"][0]["event"]}]
    total, sent = report["communication"]["total"], report["communication"]["all_sent"]
    assert (sent["up"] - total["up"], sent["down"] - total["down"]) == (173, 7001)
    assert "1 attempt at a round was aborted without a sum." in report["verdicts"][1]["sentence"]
    words = " ".join(Page(render_html(report)).text)
    assert "1 client is left" in words
    assert "west (AdvertiseKeys)" in words


def test_a_run_that_only_aborted_says_so(tmp_path):
    run = Run(tmp_path / "r", rounds=0)
    run.log.append("protocol_described", PROTOCOL)
    run.start(1)
    run.log.append("round_aborted", {"round": 1, "stage": "ShareKeys", "cause": "nobody is left"})
    run.log.close()
    page = render_markdown(build_report(run.folder))
    assert "Nothing was aggregated in this run. 1 attempt at a round was aborted without a sum." in page
    assert "nobody is left" in page
    assert "did not train together" not in page


def of_method(tmp_path, method, *, rounds=2, **protocol):
    """The report of a run of a method; one without rounds sums nothing."""
    run = Run(tmp_path / (method or "none"), rounds=0)
    data = {"name": "scans", "fingerprint": "ab" * 32, "sites": list(SITES), "classes": ["a", "b"]}
    run.log.append("data_described", data)
    if rounds:
        run.log.append("protocol_described", {**PROTOCOL, **protocol})
    for number in range(1, rounds + 1):
        run.round(number)
    folder = run.complete(rounds) if rounds else run.folder
    run.log.close()

    def named(fields):
        fields["values"]["federation"]["method"] = method

    edited(folder, "config", named)
    return build_report(folder)


@pytest.mark.parametrize(
    ("method", "stays", "model", "part"),
    [
        (
            "fedmedclip",
            "features and private classifier are in no kind of message",
            "the final FAM and nothing",
            "priv",
        ),
        ("fedclip", "Its images and features are in no kind of message. Its", "the final FAM and", "private"),
        ("fedavg-mlp", "its classifier is part of its updates", "the final FAM and classifier and nothing", "class"),
    ],
)
def test_what_stays_at_a_hospital_is_that_of_the_method(tmp_path, method, stays, model, part):
    report = of_method(tmp_path, method)
    assert stays in report["hospitals"][0]["sentence"]
    assert ("private" in report["hospitals"][0]["sentence"]) == (method == "fedmedclip")
    assert model in report["trust"][-1]["sees"]
    report["utility"]["sites"] = {
        "north": {"mlp": dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece"))}
    }
    assert f"| north | {part}" in render_markdown(report)


@pytest.mark.parametrize(("method", "said"), [("local", "trained on its own"), ("zero-shot", "trained nothing")])
def test_of_a_run_that_shares_nothing_nothing_is_said_of_sums(tmp_path, method, said):
    report = of_method(tmp_path, method, rounds=0)
    assert said in report["hospitals"][0]["sentence"]
    assert report["trust"] == []
    page = render_markdown(report)
    assert "Nothing left the hospitals in this run" in page
    assert "a sum alone leaks" not in page
    assert "sent in clear" not in page


def test_updates_in_clear_are_not_said_to_be_in_a_sum(tmp_path):
    sentence = of_method(tmp_path, "fedclip", secure_aggregation=False)["hospitals"][0]["sentence"]
    assert "each of its updates, read in clear, may reveal something" in sentence
    assert "the sum" not in sentence


@pytest.mark.parametrize(
    ("unit", "protected", "change"),
    [
        ("image", "Its images are protected", "adding or removing one image at a hospital."),
        ("hospital", "All of its data, as one, are protected", "adding or removing all data of one hospital."),
    ],
)
def test_the_unit_is_named_once(private_run, unit, protected, change):
    edited(private_run, "privacy_claim", lambda fields: fields.update(unit=unit))
    report = build_report(private_run)
    assert protected in report["hospitals"][0]["sentence"]
    assert change in report["claim"]["statement"]


def test_a_round_that_only_scores_is_not_counted_as_training(tmp_path):
    run = Run(tmp_path / "r", rounds=0)
    run.log.append("protocol_described", PROTOCOL)
    for number in (1, 2):
        run.round(number)
    run.start(3)
    scores = {name: value for name, value in round_fields(3).items() if name != "model_digest"}
    run.log.append("round_completed", scores)
    report = build_report(run.complete(2))
    assert report["identity"]["rounds"] == 2
    assert "In all 2 rounds of training and one that only scores, updates" in report["verdicts"][1]["sentence"]
    assert "took part in 2 of 2 rounds of training and in one that only scores" in report["hospitals"][0]["sentence"]
    assert [entry["trains"] for entry in report["rounds"]] == [True, True, False]
    assert "| only scores |" in render_markdown(report)
