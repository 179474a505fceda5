"""The signature of report.json: over these bytes, by the server of the roster, or the verification fails."""

import hashlib
import json
import shutil

import pytest

from audit import LogWriteError
from audit.canonical import encode_canonical
from audit.errors import KeyFileError
from audit.report import write_report
from audit.report_signature import REPORT_LABEL, SIGNATURE_FILE, sign_report
from audit.roster import is_signed
from audit.verify import Outcome, verify_run
from tests.audit.runs import SITES, Run, key_of, rechained, signed_again
from tests.audit.tampering import lines_of


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
    (signed / SIGNATURE_FILE).write_bytes(sign_report(report, key_of("mallory"), {}))
    assert "another key" in report_check(signed).detail


def test_a_swapped_signature_field_fails(signed):
    value = json.loads((signed / SIGNATURE_FILE).read_bytes())
    value["signature"] = "0" * 128
    (signed / SIGNATURE_FILE).write_bytes(encode_canonical(value) + b"\n")
    assert "was changed" in report_check(signed).detail


def test_a_changed_digest_beside_the_signature_fails(signed):
    value = json.loads((signed / SIGNATURE_FILE).read_bytes())
    value["digest"] = "0" * 64
    (signed / SIGNATURE_FILE).write_bytes(encode_canonical(value) + b"\n")
    assert "another digest" in report_check(signed).detail


def test_pages_are_those_of_the_signed_report_or_fail(signed, tmp_path):
    write_report(signed, ("html", "md"), key=tmp_path / "server.key")
    check = report_check(signed)
    assert check.outcome is Outcome.PASS
    assert "report.json, report.html, report.md signed by the server" in check.detail
    page = signed / "report.html"
    whole = page.read_bytes()
    page.write_bytes(whole.replace(b"3 rounds", b"9 rounds", 1))
    assert page.read_bytes() != whole
    assert "report.html is not the page" in report_check(signed).detail
    assert report_check(signed).outcome is Outcome.FAIL
    value = json.loads((signed / SIGNATURE_FILE).read_bytes())
    value["pages"]["report.html"] = hashlib.sha256(page.read_bytes()).hexdigest()
    (signed / SIGNATURE_FILE).write_bytes(encode_canonical(value) + b"\n")
    assert "not those that the server signed" in report_check(signed).detail
    write_report(signed, key=tmp_path / "server.key")
    (signed / "report.md").write_text("all is well")
    assert report_check(signed).outcome is Outcome.FAIL
    (signed / "report.md").unlink()
    assert report_check(signed).outcome is Outcome.FAIL
    assert "report.md was signed with report.json and cannot be read" in report_check(signed).detail
    write_report(signed, key=tmp_path / "server.key")
    (signed / "report.pdf").write_text("a page that nobody signed")
    assert "nobody signed report.pdf" in report_check(signed).detail


def test_a_page_lies_in_the_run_folder(signed, tmp_path):
    (tmp_path / "elsewhere.md").write_text("a page")
    encoded = (signed / "report.json").read_bytes()
    (signed / SIGNATURE_FILE).write_bytes(sign_report(encoded, key_of("server"), {"../elsewhere.md": b"a page"}))
    assert "outside of the run folder" in report_check(signed).detail


@pytest.mark.parametrize("stripped", ["pages emptied", "an earlier format"])
def test_the_pages_cannot_be_stripped_from_a_signature(signed, stripped):
    """Whoever holds no key would change a page and leave its digest out."""
    (signed / "report.html").write_text("all is well")
    value = json.loads((signed / SIGNATURE_FILE).read_bytes())
    if stripped == "pages emptied":
        value["pages"] = {}
    else:
        kept = {name: value[name] for name in ("digest", "key", "signature")}
        value = {"format": "securefed-report-signature/1", **kept}
    (signed / SIGNATURE_FILE).write_bytes(encode_canonical(value) + b"\n")
    assert report_check(signed).outcome is Outcome.FAIL


def attacked(folder):
    """The server adds an attack that succeeded and signs the log; the report stays as it was."""
    lines = lines_of(folder)
    attack = {"kind": "attack", "name": "inversion", "setting": "x", "outcome": "FAIL", "values": {}}
    lines = rechained([*lines, encode_canonical({**attack, "time": json.loads(lines[-1])["time"]})])
    for site in SITES:
        shutil.rmtree(folder / "sites" / site)
    signed_again(folder, lines)


def test_a_report_that_is_older_than_the_signed_record_fails(signed, tmp_path):
    """It says that no attack was tried, and is signed, too."""
    older = {name: (signed / name).read_bytes() for name in ("report.json", SIGNATURE_FILE)}
    attacked(signed)
    told = report_check(signed).detail
    assert "is of the first 13 events; 14 are signed" in told
    assert told.endswith("write it anew and sign it: audit report --key, with the server's key")
    write_report(signed, ("json",), key=tmp_path / "server.key")
    assert report_check(signed).outcome is Outcome.PASS
    for name, content in older.items():
        (signed / name).write_bytes(content)
    assert report_check(signed).outcome is Outcome.FAIL


def test_a_report_that_is_older_than_the_signed_record_is_replaced_without_a_key_and_then_nobodys(signed):
    attacked(signed)
    write_report(signed)
    assert json.loads((signed / "report.json").read_bytes())["identity"]["events"] == 14
    assert not (signed / SIGNATURE_FILE).exists()
    found = report_check(signed)
    assert found.outcome is Outcome.ABSENT
    assert "nobody signed the report" in found.detail


def test_an_older_report_is_replaced_as_a_whole_whatever_format_is_asked_for(signed):
    attacked(signed)
    write_report(signed, ("md",))
    assert json.loads((signed / "report.json").read_bytes())["identity"]["events"] == 14
    assert {path.name for path in signed.glob("report.*")} == {"report.html", "report.json", "report.md"}


def test_heads_that_cannot_be_read_do_not_give_a_signed_report_away(signed):
    before = {path.name: path.read_bytes() for path in signed.glob("report.*")}
    heads = (signed / "heads.jsonl").read_bytes()
    (signed / "heads.jsonl").write_bytes(heads + b"garbage\n")
    with pytest.raises(LogWriteError, match="is signed"):
        write_report(signed)
    assert {path.name: path.read_bytes() for path in signed.glob("report.*")} == before
    (signed / "heads.jsonl").write_bytes(heads)
    assert report_check(signed).outcome is Outcome.PASS


def test_a_report_of_another_run_fails(signed, tmp_path):
    other = Run(tmp_path / "other", run_id="r2").complete()
    write_report(other, ("json",), key=tmp_path / "server.key")
    for name in ("report.json", SIGNATURE_FILE):
        (signed / name).write_bytes((other / name).read_bytes())
    assert "is of the run 'r2'" in report_check(signed).detail


def test_a_signed_report_is_not_replaced_by_one_that_says_something_else(signed, tmp_path):
    write_report(signed, ("html",))  # what report.json says is the same
    with pytest.raises(LogWriteError, match="is signed, and would become another one; name another folder"):
        write_report(signed, ("html",), roster=signed / "roster.json")
    assert report_check(signed).outcome is Outcome.PASS
    _, paths = write_report(signed, ("html",), roster=signed / "roster.json", output=tmp_path / "mine")
    assert paths["html"].exists()


def test_only_the_servers_key_signs_a_report_and_signing_writes_it(signed, tmp_path):
    mallory = tmp_path / "mallory.key"
    mallory.touch(mode=0o600)
    mallory.write_bytes(key_of("mallory").private_bytes_raw())
    with pytest.raises(KeyFileError, match="not the key of this run's server"):
        write_report(signed, ("json",), key=mallory)
    _, paths = write_report(signed, ("html",), output=tmp_path / "pages", key=tmp_path / "server.key")
    assert paths["json"].exists()
    assert paths["signature"].exists()
