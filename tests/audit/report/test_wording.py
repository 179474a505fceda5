"""What a report says in words is true of the run's claim, method, unit and rounds."""

import io
import re

import pypdf
import pytest

from audit.accounting import GroupedSampledGaussian, mechanism_fields
from audit.history import read_history
from audit.log import read_events
from audit.report import (
    build_report,
    privacy,
    questions,
    render_html,
    render_markdown,
)
from audit.report.compare import compare_reports, comparison_table
from audit.report.pdf import render_pdf
from audit.report.registry import render_registry
from audit.report.verdicts import hospital_sentence
from audit.verify import verify_run
from tests.audit.report.pages import PROTOCOL, Page, edited
from tests.audit.runs import SITES, Run, round_fields


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


def answer_about_libraries(accountant, checks, north=1.0, south=1.0):
    events = [
        {"hospital": site, "mechanism": mechanism_fields(GroupedSampledGaussian((4.0, 3.0), rate)), "repetitions": 50}
        for site, rate in (("north", north), ("south", south))
    ]
    claim = {"accountant": accountant, "cross_checks": checks, "events": events, "delta": 1e-5}
    return questions._libraries(claim)


@pytest.mark.parametrize(
    ("accountant", "checks", "said"),
    [
        ("PLD", {"RDP": 9.0, "PRV": 8.0}, "checked against this project's Renyi bounds and this project's privacy"),
        ("RDP", {}, "by this project's Renyi bounds, by no other: it is checked against nothing"),
    ],
)
def test_no_cross_check_is_claimed_that_was_not_made(accountant, checks, said):
    assert said in answer_about_libraries(accountant, checks)


def test_a_library_is_named_only_where_it_computed_epsilon():
    """Without sampling the distribution is known, and nothing of `dp-accounting` is called."""
    assert "Epsilon is computed by dp-accounting (" in answer_about_libraries("PLD", {}, 0.5, 0.5)
    assert "Epsilon is computed by dp-accounting (" in answer_about_libraries("PLD", {}, south=0.5)
    assert "Renyi bounds, checked against dp-accounting (" in answer_about_libraries("RDP", {"PLD": 9.0}, 0.5, 0.5)
    assert "Epsilon is computed by this project's closed form" in answer_about_libraries("PLD", {"RDP": 9.0})


def test_attempts_that_were_aborted_are_told_with_their_bytes(tmp_path):
    run = Run(tmp_path / "r", rounds=0, masked=True)
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
    section = report["communication"]
    total, sent = section["total"], section["all_sent"]
    assert sum(both["up"] for both in section["by_client"].values()) == sent["up"]
    assert (sent["up"] - total["up"], sent["down"] - total["down"]) == (173, 7001)
    assert "1 attempt at a round was aborted without a sum." in report["verdicts"][1]["sentence"]
    words = " ".join(Page(render_html(report)).text)
    assert "1 client is left" in words
    assert "west (AdvertiseKeys)" in words
    assert words.count(", rounds aborted or done again included. ") == len(report["hospitals"])


@pytest.mark.parametrize(
    ("kills", "says"), [(0, ""), (1, "1 attempt at a round was"), (2, "2 attempts at rounds were")]
)
def test_attempts_that_a_kill_cut_short_are_told_as_not_counted(tmp_path, kills, says):
    run = Run(tmp_path / "r", rounds=2, masked=True)
    for _ in range(kills):
        run.start(3)
        run.log.append("resumed", {"round": 2})
    run.round(3)
    folder = run.complete()
    (check,) = (check for check in verify_run(folder).checks if check.name == "bytes")
    report = build_report(folder)
    words = " ".join(Page(render_html(report)).text)
    assert (f"cut short, of which nothing was counted: {kills})" in check.detail) == bool(kills)
    assert report["communication"].get("cut_short", 0) == kills
    assert words.count(", attempts that were cut short not counted. ") == (len(report["hospitals"]) if kills else 0)
    assert says in words
    assert ("cut short, as by a kill: what " in words) == bool(kills)


def test_the_formula_counts_the_coordinates_that_are_sent(tmp_path):
    """With `subspace` a quarter of the update's, without compression the counters beside them."""
    run = Run(tmp_path / "r", rounds=0)
    values = {"compression": "ring:6,subspace:0.25", "vector_length": 260}
    run.log.append("protocol_described", {**PROTOCOL, "ring_bits": 8, "dimension": 1000, "values": values})
    run.round(1)
    comparison = build_report(run.complete(1))["communication"]["comparison"]
    assert {"ring bits x coordinates / 8": 260.0, "the same update in float32": 4000.0}.items() <= {
        entry["name"]: entry["bytes"] for entry in comparison
    }.items()


@pytest.mark.parametrize("masked", [True, False])
def test_the_width_of_the_ring_is_told_where_vectors_were_sent_in_it(tmp_path, masked):
    """In clear the same integers are added in that ring, and are sent in their own width."""
    run = Run(tmp_path / "r", rounds=0, masked=masked)
    run.log.append("protocol_described", {**PROTOCOL, "secure_aggregation": masked, "ring_bits": 19, "value_bits": 16})
    run.round(1)
    report = build_report(run.complete(1))
    page = " ".join(Page(render_html(report)).text)
    assert ("ring bits x coordinates / 8" in page) is masked
    assert bool(re.search(r"ring bits\s+19\b", page)) is masked
    assert re.search(r"value bits\s+16\b", page)
    assert report["protocol"]["ring_bits"] == 19


def test_a_run_that_only_aborted_says_so(tmp_path):
    run = Run(tmp_path / "r", rounds=0, masked=True)
    run.log.append("protocol_described", PROTOCOL)
    run.start(1)
    sent = {"north": {"down": {"AdvertiseKeys": {"payload": 2_500_000}}}}
    run.log.append("round_aborted", {"round": 1, "stage": "ShareKeys", "cause": "nobody is left", "bytes": sent})
    run.log.close()
    page = render_markdown(build_report(run.folder))
    assert "No round was finished: all hospitals sent 0.00 kB and received 2.50 MB in attempts at one." in page
    assert "Nothing was sent" not in page
    assert "Nothing was aggregated in this run. 1 attempt at a round was aborted without a sum." in page
    assert "nobody is left" in page
    assert "did not train together" not in page


def of_method(tmp_path, method, *, rounds=2, select="", **protocol):
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
        fields["values"]["federation"] |= {"method": method, **({"select": select} if select else {})}

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


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("select", ["best-val", "last", ""])
def test_what_leaves_beside_the_updates_is_told(tmp_path, masked, select):
    report = of_method(tmp_path, "fedmedclip", select=select, secure_aggregation=masked)
    sees, listed = report["trust"][0]["sees"], report["claim"]["unprotected"]
    released = report["questions"][5]["answer"]
    score, clamped = "validation accuracy, by which the kept round is chosen", "share of clamped coordinates"
    assert (f"{'; mean ' if masked else '; '}{score}" in sees) is (select == "best-val")
    assert sees.endswith(f"{'; mean ' if masked else '; '}{clamped}")
    whose = "mean over the hospitals of the" if masked else "every hospital's"
    scored = [f"{whose} {score}: seen by the server, each round"] if select == "best-val" else []
    assert listed[1:-1] == [*scored, f"{whose} {clamped}: seen by the server, each round"]
    assert released.startswith("Everything was: nothing that left a hospital carried noise. What left: ")
    page = render_markdown(report)
    assert all(f"- {line}" in page and line in released for line in listed)
    assert "The run lists none" not in page


@pytest.mark.parametrize(("method", "said"), [("local", "trained on its own"), ("zero-shot", "trained nothing")])
def test_of_a_run_that_shares_nothing_nothing_is_said_of_sums(tmp_path, method, said):
    report = of_method(tmp_path, method, rounds=0)
    assert said in report["hospitals"][0]["sentence"]
    assert report["trust"] == []
    page = render_markdown(report)
    assert "Nothing left the hospitals in this run" in page
    assert "a sum alone leaks" not in page
    assert "sent in clear" not in page
    assert "A sum over few hospitals" not in page
    assert report["claim"]["unprotected"] == []
    assert "The run lists none" not in page


@pytest.mark.parametrize(("mode", "beside"), [("local", "; mean share of clamped coordinates"), ("distributed", "")])
def test_of_noisy_sums_no_count_is_said_to_leave(tmp_path, mode, beside):
    run = Run(tmp_path / "r", rounds=0, private=True, masked=True)
    run.log.append("protocol_described", PROTOCOL)
    run.round(1)
    edited(run.complete(1), "privacy_claim", lambda fields: fields.update(mode=mode))
    seen = build_report(run.folder)["trust"][0]["sees"]
    assert seen == f"the sum of the updates of a round and who took part{beside}"


def test_updates_in_clear_are_not_said_to_be_in_a_sum(tmp_path):
    sentence = of_method(tmp_path, "fedclip", secure_aggregation=False)["hospitals"][0]["sentence"]
    assert "each of its updates, read in clear, may reveal something" in sentence
    assert "the sum" not in sentence


@pytest.mark.parametrize(
    ("unit", "protected", "change"),
    [
        ("image", "Its training images are protected", "adding or removing one training image at a hospital."),
        (
            "patient",
            "The training images of each of its patients, together, are protected",
            "adding or removing all training images of one patient at a hospital.",
        ),
        ("hospital", "All of its data, as one, are protected", "adding or removing all data of one hospital."),
    ],
)
def test_the_unit_is_named_once(private_run, unit, protected, change):
    edited(private_run, "privacy_claim", lambda fields: fields.update(unit=unit))
    report = build_report(private_run)
    assert protected in report["hospitals"][0]["sentence"]
    assert change in report["claim"]["statement"]


def test_a_claim_is_no_wider_than_the_signed_one_and_says_what_that_covers(private_run):
    scope = "training images, in all updates of the FAM; the private MLP is not covered and stays at its hospital"
    listed = ["validation and test images: metrics on them are exact"]
    edited(private_run, "privacy_claim", lambda fields: fields.update(reason=scope, unprotected=listed))
    report = build_report(private_run)
    (line,) = [line for line in report["verdicts"] if line["subject"] == "Differential privacy"]
    assert line["sentence"].startswith(
        f"The claim covers {scope}. Not covered is what the section Scope lists. Of what the claim covers, the chance"
    )
    assert "protected, in what the claim covers, with epsilon" in report["hospitals"][0]["sentence"]
    for page in (render_html(report), render_markdown(report)):
        assert page.count(f"The claim covers {scope}.") == 2  # on the first page, and with the formal claim
        assert page.count(listed[0]) >= 1
    edited(private_run, "privacy_claim", lambda fields: fields.update(reason="x" * 4000))
    assert f"The claim covers {'x' * 2000}. Not" in render_html(build_report(private_run))


def test_a_round_that_only_scores_is_not_counted_as_training(tmp_path):
    run = Run(tmp_path / "r", rounds=0, masked=True)
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


@pytest.mark.parametrize(("scoring", "rounds"), [(0, ""), (1, " and one that only scores")])
def test_one_round_of_training_is_told_as_one(tmp_path, scoring, rounds):
    run = Run(tmp_path / "r", rounds=0, masked=True)
    run.log.append("protocol_described", PROTOCOL)
    run.round(1)
    for number in range(2, 2 + scoring):
        run.start(number)
        scores = {name: value for name, value in round_fields(number).items() if name != "model_digest"}
        run.log.append("round_completed", scores)
    sentence = build_report(run.complete(1))["verdicts"][1]["sentence"]
    assert sentence.startswith(f"In the one round of training{rounds}, updates were summed under pairwise masks; ")


def answers(report):
    """The answers about the implementation and about numbers and randomness."""
    return [report["questions"][place]["answer"] for place in (6, 10)]


@pytest.mark.parametrize(
    ("compression", "numbers"),
    [("none", "updates were sent in clear. Sums are exact integers."), ("float16-zlib", "updates were sent in clear.")],
)
def test_updates_in_clear_are_not_said_to_be_masked(tmp_path, compression, numbers):
    implementation, told = answers(
        of_method(tmp_path, "fedclip", secure_aggregation=False, values={"compression": compression})
    )
    assert implementation == "No secure aggregation was used. Nothing was masked: updates were sent in clear."
    assert told == f"Nothing was masked: {numbers}"


def test_of_masks_and_of_no_sum_the_answers_say_what_was(tmp_path):
    implementation, told = answers(of_method(tmp_path, "fedclip"))
    assert "secure aggregation is this project's own" in implementation
    assert told == "Masks come from a cryptographic generator and sums are exact integers."
    for method in ("local", "zero-shot"):
        implementation, told = answers(of_method(tmp_path, method, rounds=0))
        assert implementation == "Nothing was summed, and no secure aggregation was used."
        assert told == "Nothing was summed."


@pytest.mark.parametrize(
    ("noise", "source"),
    [
        ("system", "comes from a cryptographic generator"),
        ("seeded", "follows from the seed of the run"),
        (None, "comes from a source that the record does not state"),
    ],
)
def test_noise_on_which_no_claim_stands_is_told(private_run, noise, source):
    def unclaimed(fields):
        values = {"noise": noise} if noise else {"noise_source": "system"}
        fields.update(claim="NOT CLAIMED", reason="x", values=values)

    edited(private_run, "privacy_claim", unclaimed)
    implementation, told = answers(build_report(private_run))
    assert "Clipping and noise are this project's own" in implementation
    assert told == f"Noise {source}; continuous noise is computed in floating point."


SIGNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_no_name_in_a_record_made_elsewhere_reorders_a_sentence(tmp_path):
    run = Run(tmp_path / "r", rounds=0, sites=("north", f"so{SIGNS}uth", "west"), private=True)
    run.log.append("purpose", {"values": {"purpose": f"typing {SIGNS}", "grant": SIGNS}})
    run.log.append("protocol_described", PROTOCOL)
    run.round(1)
    report = build_report(run.complete(1))
    assert f"so{SIGNS}uth" in report["identity"]["hospital_keys"]
    for sign in SIGNS:
        for shown in (render_html(report), render_markdown(report), render_registry(report)):
            assert sign not in shown
    told = "".join(f"\\u{ord(sign):04x}" for sign in SIGNS)
    assert f"so{told}uth" in render_html(report)
    assert f"so{told}uth" in render_markdown(report)
    encoded = pypdf.PdfReader(io.BytesIO(render_pdf(report))).pages
    assert not set(SIGNS) & set("".join(page.extract_text() for page in encoded))
