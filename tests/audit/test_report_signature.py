"""The signature of report.json: over these bytes, by the server of the roster, or the verification fails."""

import json

import pytest

from audit.canonical import encode_canonical
from audit.report import write_report
from audit.report_signature import REPORT_LABEL, SIGNATURE_FILE, sign_report
from audit.roster import is_signed
from audit.verify import Outcome, verify_run
from tests.audit.runs import key_of


@pytest.fixture
def signed(complete_run, tmp_path):
    path = tmp_path / "server.key"
    path.touch(mode=0o600)
    path.write_bytes(key_of("server").private_bytes_raw())
    write_report(complete_run, ("json",), key=path)
    return complete_run


def report_check(folder):
    return verify_run(folder, report=True).checks[-1]


def test_a_signed_report_verifies(signed):
    assert report_check(signed).outcome is Outcome.PASS
    value = json.loads((signed / SIGNATURE_FILE).read_bytes())
    message = REPORT_LABEL + (signed / "report.json").read_bytes()
    assert len(REPORT_LABEL) == 20
    assert is_signed(value["key"], value["signature"], message)


def test_without_a_signature_nothing_is_claimed(complete_run):
    write_report(complete_run, ("json",))
    assert report_check(complete_run).outcome is Outcome.ABSENT
    assert "report" not in {check.name for check in verify_run(complete_run).checks}


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\n", b"[]\n"])
def test_a_damaged_signature_fails(signed, content):
    (signed / SIGNATURE_FILE).write_bytes(content)
    check = report_check(signed)
    assert check.outcome is Outcome.FAIL
    assert "damaged" in check.detail


def test_a_changed_report_fails(signed):
    path = signed / "report.json"
    path.write_bytes(path.read_bytes().replace(b"NOT CLAIMED", b"PASS", 1))
    assert "was changed" in report_check(signed).detail
    path.unlink()
    assert report_check(signed).outcome is Outcome.FAIL


def test_a_report_of_somebody_else_fails(signed):
    report = (signed / "report.json").read_bytes()
    (signed / SIGNATURE_FILE).write_bytes(sign_report(report, key_of("mallory")))
    assert "another key" in report_check(signed).detail


def test_a_swapped_signature_field_fails(signed):
    value = json.loads((signed / SIGNATURE_FILE).read_bytes())
    value["signature"] = "0" * 128
    (signed / SIGNATURE_FILE).write_bytes(encode_canonical(value) + b"\n")
    assert "was changed" in report_check(signed).detail
