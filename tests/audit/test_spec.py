"""The specification shows the bytes that the code writes."""

import hashlib
import re
from pathlib import Path

import pytest

import audit
from audit.heads import SERVER_LABEL, WITNESS_LABEL, SignedHead
from audit.log import parse_events
from audit.merkle import MerkleTree, leaf_hash, verify_consistency, verify_inclusion
from audit.report_signature import PAGES_LABEL, REPORT_LABEL
from audit.roster import Roster
from audit.site_folder import site_folder_name
from tests.audit.spec_example import example

SPEC = (Path(audit.__file__).parent / "SPEC.md").read_text(encoding="utf-8")
BLOCKS = {name: text.strip("\n") for name, text in re.findall(r"^```(\w+)\n(.*?)^```$", SPEC, re.M | re.S)}


@pytest.fixture(scope="module")
def made():
    return example()


@pytest.mark.parametrize(
    "name", ["roster", "log", "leaves", "root", "inclusion", "consistency", "head", "heads", "kinds"]
)
def test_blocks_are_what_the_code_writes(made, name):
    assert BLOCKS[name] == made[name]


def test_the_blocks_of_the_specification_verify_by_themselves():
    lines = BLOCKS["log"].encode().splitlines()
    events = parse_events(BLOCKS["log"].encode() + b"\n")
    tree = MerkleTree([event.line for event in events])
    assert [event.line for event in events] == lines
    assert [leaf_hash(line).hex() for line in lines] == BLOCKS["leaves"].splitlines()
    root = bytes.fromhex(BLOCKS["root"])
    proof = [bytes.fromhex(line) for line in BLOCKS["inclusion"].splitlines()]
    assert verify_inclusion(leaf_hash(lines[1]), 1, 3, root, proof)
    proof = [bytes.fromhex(line) for line in BLOCKS["consistency"].splitlines()]
    assert verify_consistency(2, 3, tree.root(2), root, proof)
    signed = SignedHead.decode(BLOCKS["heads"].encode())
    roster = Roster.decode(BLOCKS["roster"].encode() + b"\n")
    signed.verify(roster, of="north")
    signed.verify(roster, of="south")
    assert signed.head.root == BLOCKS["root"]


def test_labels_are_as_specified():
    for label in (SERVER_LABEL, WITNESS_LABEL, REPORT_LABEL, PAGES_LABEL):
        assert f"`{label.decode().rstrip()}\\n`" in SPEC
        assert f"{len(label)} bytes" in SPEC


def test_folders_of_hospitals_are_named_as_specified():
    assert "each run of other characters becomes `-`" in SPEC
    for name in ("north", "a.b_c-9", "n" * 80):
        assert site_folder_name(name) == name
    for name, plain in (("Köln 2", "K-ln-2"), ("..", "x"), ("-a", "a"), ("n" * 81, "n" * 80)):
        assert site_folder_name(name) == f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def test_the_label_of_renewals_is_as_specified():
    from audit.ledger.policy import RENEWAL_LABEL

    assert f"`{RENEWAL_LABEL.decode().rstrip()}\\n` ({len(RENEWAL_LABEL)} bytes)" in SPEC
