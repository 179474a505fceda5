"""Files of a run changed as an attacker would change them, and what verification must then say."""

import shutil

import pytest

from audit import EvidenceError
from audit.canonical import decode_canonical, encode_canonical
from audit.verify import verify_run
from tests.audit.runs import SITES, rechained, signed_again

COMPLETED = 12
"""Event number of the end of the run of three rounds."""


def lines_of(folder):
    return (folder / "audit.jsonl").read_bytes().splitlines()


def write_lines(folder, lines):
    (folder / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def changed(line, **fields):
    return encode_canonical({**decode_canonical(line), **fields})


def failure(folder, **arguments):
    """The first bad event and the reasons of a folder that must not verify."""
    found = verify_run(folder, **arguments)
    assert not found.is_verified
    with pytest.raises(EvidenceError) as caught:
        found.require()
    assert caught.value.exit_code == 3
    assert caught.value.seq == found.first_bad_event
    return found.first_bad_event, " / ".join(check.detail for check in found.failed)


def edited(folder, kind, edit, occurrence=0):
    """Change a field of an event, with the chain and all signatures made good again: only the content is wrong."""
    lines = lines_of(folder)
    at = [seq for seq, line in enumerate(lines) if decode_canonical(line)["kind"] == kind][occurrence]
    fields = dict(decode_canonical(lines[at]))
    edit(fields)
    lines[at] = encode_canonical(fields)
    for site in SITES:
        shutil.rmtree(folder / "sites" / site, ignore_errors=True)
    signed_again(folder, rechained(lines))
    return at
