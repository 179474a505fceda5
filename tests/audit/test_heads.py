"""Heads: signed by the server, countersigned by hospitals that refuse one that does not extend their last."""

import shutil

import pytest

from audit import EventLog, EvidenceError
from audit.heads import HeadBook, SignedHead, TreeHead, Witness, read_given_heads, read_heads, sign_head
from audit.merkle import MerkleTree
from audit.roster import _SMALL_ORDER, Roster, is_small_order
from tests.audit.runs import SITES, Run, Ticks, key_of, roster_of


def lines_of(log):
    return [event.line for event in log.events]


def test_every_hospital_keeps_every_head(run):
    heads = read_heads(run.folder / "heads.jsonl")
    assert [(signed.head.round, signed.head.size) for signed in heads] == [(1, 7), (2, 9), (3, 11)]
    for signed in heads:
        signed.verify(run.roster)
        assert sorted(signed.witnesses) == sorted(SITES)
        assert signed.head.root == MerkleTree(lines_of(run.log)[: signed.head.size]).root().hex()
    for site in SITES:
        kept = read_heads(run.folder / "sites" / site / "heads.jsonl")
        assert [signed.head for signed in kept] == [signed.head for signed in heads]
        for signed in kept:
            signed.verify(run.roster, of=site)


def test_hospitals_of_one_process_countersign_at_the_same_time_and_a_refusal_is_heard(tmp_path, monkeypatch):
    """Each has written when the head is published; the one that refuses keeps nothing of it."""
    many = Run(tmp_path / "many", sites=[f"site{number:02d}" for number in range(40)], rounds=2)
    for site in many.sites:
        kept = read_heads(many.folder / "sites" / site / "heads.jsonl")
        assert [(signed.head.round, list(signed.witnesses)) for signed in kept] == [(1, [site]), (2, [site])]
    for signed in read_heads(many.folder / "heads.jsonl"):
        signed.verify(many.roster)
        assert list(signed.witnesses) == sorted(many.sites)
    monkeypatch.setattr(many.witnesses[7], "_run_id", "another")
    with pytest.raises(EvidenceError, match="site07: the head is of the run"):
        many.round(3)
    assert len(read_heads(many.folder / "heads.jsonl")) == 2
    assert len(read_heads(many.folder / "sites" / "site07" / "heads.jsonl")) == 2
    many.log.close()


def publish(log, witness, round=9):
    tree = MerkleTree(lines_of(log))
    signed = sign_head(log, tree, round, key_of("server"))
    proof = tree.consistency_proof(min(witness.size, len(tree)), len(tree))
    return witness.countersign(signed.head, signed.server, proof)


def test_a_fork_is_not_countersigned(run, tmp_path):
    fork = Run(tmp_path / "fork", rounds=2)
    fork.log.append("interrupted", {"round": 2, "reason": "another history"})
    fork.round(3)
    witness = run.witnesses[0]
    before = (run.folder / "sites" / "north" / "heads.jsonl").read_bytes()
    with pytest.raises(EvidenceError, match="does not extend") as caught:
        publish(fork.log, witness)
    assert caught.value.seq == 10
    assert (run.folder / "sites" / "north" / "heads.jsonl").read_bytes() == before
    fork.log.close()


def test_an_older_head_is_not_countersigned(run, tmp_path):
    older = Run(tmp_path / "older", rounds=2)
    with pytest.raises(EvidenceError, match="fewer"):
        publish(older.log, run.witnesses[0])
    older.log.close()


def test_a_hospital_remembers_its_heads_after_a_restart(run, tmp_path):
    path = run.folder / "sites" / "north" / "heads.jsonl"
    with path.open("ab") as stream:
        stream.write(b'{"head":{"crash')
    again = Witness("north", key_of("north"), run.roster.server, path, "r1")
    assert again.size == 11
    run.log.append("interrupted", {"round": 3, "reason": "restart"})
    publish(run.log, again)
    assert [signed.head.size for signed in read_heads(path)] == [7, 9, 11, 12]
    with pytest.raises(EvidenceError, match="of the run 'r1'"):
        Witness("north", key_of("north"), run.roster.server, path, "r2")


def test_a_head_of_another_run_or_another_server_is_not_countersigned(run, tmp_path):
    other = Run(tmp_path / "other", run_id="r2")
    with pytest.raises(EvidenceError, match="of the run"):
        publish(other.log, run.witnesses[0])
    signed = read_heads(run.folder / "heads.jsonl")[-1]
    with pytest.raises(EvidenceError, match="server of the roster"):
        run.witnesses[0].countersign(signed.head, key_of("mallory").sign(b"x").hex(), [])
    other.log.close()


def test_signatures_are_checked_against_the_roster(run):
    signed = read_heads(run.folder / "heads.jsonl")[-1]
    with pytest.raises(EvidenceError, match="not signed by the server"):
        signed.verify(Roster(roster_of(("x",)).hospitals["x"], run.roster.hospitals))
    with pytest.raises(EvidenceError, match="'west'"):
        signed.verify(Roster(run.roster.server, {**run.roster.hospitals, "west": run.roster.server}))
    with pytest.raises(EvidenceError, match="stranger"):
        signed.verify(roster_of(("north", "south")))
    with pytest.raises(EvidenceError, match="lacks"):
        SignedHead(signed.head, signed.server, {}).verify(run.roster, of="north")
    changed = TreeHead(signed.head.run_id, 4, signed.head.size, signed.head.root, signed.head.time)
    with pytest.raises(EvidenceError, match="not signed"):
        SignedHead(changed, signed.server, signed.witnesses).verify(run.roster)


def test_a_witness_signature_is_no_server_signature(run):
    signed = read_heads(run.folder / "heads.jsonl")[-1]
    roster = Roster(run.roster.hospitals["north"], {"x": run.roster.server})
    with pytest.raises(EvidenceError, match="not signed by the server"):
        SignedHead(signed.head, signed.witnesses["north"]).verify(roster)


def test_the_book_goes_on_after_a_restart(run):
    run.log.close()
    with EventLog.open(run.folder / "audit.jsonl", Ticks()) as log:
        log.append("resumed", {"round": 3})
        book = HeadBook(log, key_of("server"), run.roster, run.folder / "heads.jsonl")
        book.publish(3, run.witnesses)
    assert [signed.head.size for signed in read_heads(run.folder / "heads.jsonl")] == [7, 9, 11, 12]
    with pytest.raises(ValueError, match="server's key"):
        HeadBook(log, key_of("north"), run.roster, run.folder / "heads.jsonl")


def test_what_a_power_failure_left_of_a_last_head_is_cut_by_its_hospital_and_named_to_others(run, tmp_path):
    path = tmp_path / "heads.jsonl"
    whole = (run.folder / "heads.jsonl").read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(EvidenceError, match="is incomplete, as a power failure leaves it: the hospital cuts it when"):
        read_given_heads(path)
    heads = read_heads(path)
    last = heads[-1].head
    witness = Witness("north", key_of("north"), run.roster.server, path, last.run_id)
    assert witness.size == last.size
    assert path.read_bytes() == b"".join(head.encode() + b"\n" for head in heads)
    assert read_given_heads(path) == heads


@pytest.mark.parametrize("damage", [b"{}\n", b"x\n", b'{"head":{},"server":"","witnesses":{}}\n'])
def test_damaged_heads_raise_the_one_error(run, tmp_path, damage):
    path = tmp_path / "heads.jsonl"
    shutil.copy(run.folder / "heads.jsonl", path)
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(EvidenceError):
        read_heads(path)
    with pytest.raises(EvidenceError):
        read_heads(tmp_path / "absent")


def test_rosters_are_read_strictly(tmp_path):
    roster = roster_of()
    assert Roster.decode(roster.encode()) == roster
    double = Roster(roster.server, {"a": roster.hospitals["north"], "b": roster.hospitals["north"]})
    for encoded in (double.encode(), b"", b"{}", roster.encode().replace(b"/1", b"/2"), roster.encode() + b"\n"):
        with pytest.raises(EvidenceError):
            Roster.decode(encoded)
    with pytest.raises(EvidenceError):
        Roster.read(tmp_path / "absent")


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("encoded", sorted(_SMALL_ORDER))
def test_a_key_under_which_anybody_can_sign_is_no_key(encoded, sign):
    weak = (encoded[:-1] + bytes([encoded[-1] | sign])).hex()
    assert is_small_order(weak)
    for roster in (Roster(weak, roster_of().hospitals), Roster(roster_of().server, {"a": weak})):
        with pytest.raises(EvidenceError, match="anybody can sign"):
            Roster.decode(roster.encode())


def test_the_points_of_small_order_are_those_that_eight_takes_to_the_identity():
    """The group law of edwards25519, as in RFC 8032, 5.1.4: nothing of it is in the package."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def added(a, b):
        mixed = d * a[0] * b[0] * a[1] * b[1] % p
        x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + mixed, -1, p) % p
        return x, (a[1] * b[1] + a[0] * b[0]) * pow(1 - mixed, -1, p) % p

    def point(encoded):
        y = int.from_bytes(encoded, "little") % p
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        x = x if x * x % p == square else x * pow(2, (p - 1) // 4, p) % p
        assert x * x % p == square
        return x, y

    for encoded in _SMALL_ORDER:
        found = point(encoded)
        for _ in range(3):
            found = added(found, found)
        assert found == (0, 1)
    assert len({int.from_bytes(encoded, "little") % p for encoded in _SMALL_ORDER}) == 5  # of eight points, x and -x
    assert not any(is_small_order(key) for key in (roster_of().server, *roster_of().hospitals.values()))
