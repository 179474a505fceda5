"""Runs side by side: every number is that of the run's own report, and what cannot be compared is said."""

import pytest

from audit.report import build_report
from audit.report.compare import COLUMNS, compare_reports, comparison_markdown, comparison_table


@pytest.fixture
def reports(complete_run, private_run):
    return [build_report(complete_run), build_report(private_run)]


def test_rows_are_those_of_the_reports(reports):
    compared = compare_reports(reports)
    for row, report in zip(compared["runs"], reports, strict=True):
        assert set(row) == {key for key, _ in COLUMNS}
        assert row["epsilon"] == report["claim"]["epsilon"]
        assert row["up_total"] == report["communication"]["total"]["up"]
        assert row["up_per_client_round"] == report["communication"]["per_client_round"]["up"]
        assert row["verified"]
    assert [row["claim"] for row in compared["runs"]] == ["NOT CLAIMED", "CLAIMED"]
    assert compared["warnings"] == []


def test_a_table_has_a_dash_where_nothing_is_stated(reports):
    header, plain, private = comparison_table(compare_reports(reports))
    shown = dict(zip(header, plain, strict=True))
    assert shown["epsilon"] == "-"
    assert shown["bytes up, all"] == f"{reports[0]['communication']['total']['up']:,}"
    assert dict(zip(header, private, strict=True))["unit"] == "image"
    page = comparison_markdown(compare_reports(reports))
    assert page.count("\n| ") == 3


def test_what_is_not_comparable_is_said(reports):
    reports[1]["data"]["fingerprint"] = "cd" * 32
    reports[1]["identity"]["is_verified"] = False
    reports[0]["claim"] |= {"claim": "CLAIMED", "unit": "patient", "delta": 1e-5}
    warnings = compare_reports(reports)["warnings"]
    assert len(warnings) == 3
    assert warnings[0].startswith("r1 DOES NOT VERIFY")
    assert "- r1 DOES NOT VERIFY" in comparison_markdown(compare_reports(reports))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"unit": "patient"}, "unit"),
        ({"adjacency": "replace-one"}, "neighbouring relation"),
        ({"delta": 1e-6}, "delta"),
        ({"mode": "distributed"}, "adversary"),
        ({"mode": "distributed", "adjacency": "replace-one"}, "neighbouring relation or adversary"),
    ],
)
def test_epsilons_that_promise_different_things_are_not_set_beside_one_another_in_silence(reports, changes, told):
    reports[1]["identity"]["run_id"] = "first"
    other = {**reports[1], "claim": {**reports[1]["claim"], **changes}}
    same, differ = (compare_reports([reports[1], second]) for second in (reports[1], other))
    assert same["warnings"] == []
    assert differ["warnings"] == [
        f"epsilon is not stated for the same {told} in all runs: smaller is not simply better"
    ]
    header, first, second = comparison_table(differ)
    shown = [dict(zip(header, line, strict=True)) for line in (first, second)]
    assert [line["against"] for line in shown] == ["everybody", "sums only" if "mode" in changes else "everybody"]
    assert shown[0]["neighbours"] == "add-or-remove-one"
    assert shown[0]["mode"] == "local"
