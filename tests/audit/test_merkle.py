"""The Merkle tree against a recursion written straight from RFC 9162, and its proofs against forgeries."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.merkle import EMPTY_ROOT, MerkleTree, leaf_hash, verify_consistency, verify_inclusion

LINES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
"""The leaves that the Certificate Transparency test suites have in common."""

ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def slow_root(lines):
    if not lines:
        return hashlib.sha256(b"").digest()
    if len(lines) == 1:
        return hashlib.sha256(b"\x00" + lines[0]).digest()
    split = 1
    while split * 2 < len(lines):
        split *= 2
    return hashlib.sha256(b"\x01" + slow_root(lines[:split]) + slow_root(lines[split:])).digest()


def numbered(count):
    return [str(number).encode() for number in range(count)]


def test_known_roots():
    tree = MerkleTree(LINES)
    assert {size: tree.root(size).hex() for size in ROOTS} == ROOTS
    assert tree.root(0) == EMPTY_ROOT


def test_every_root_equals_the_recursion():
    tree = MerkleTree(numbered(70))
    assert [tree.root(size) for size in range(71)] == [slow_root(numbered(size)) for size in range(71)]
    with pytest.raises(ValueError, match="71"):
        tree.root(71)


def test_every_inclusion_proof_verifies_and_only_there():
    tree = MerkleTree(numbered(20))
    for size in range(1, 21):
        for index in range(size):
            proof = tree.inclusion_proof(index, size)
            leaf = leaf_hash(numbered(20)[index])
            assert verify_inclusion(leaf, index, size, tree.root(size), proof)
            assert not verify_inclusion(leaf, index, size, tree.root(size), [*proof, bytes(32)])
            assert not verify_inclusion(leaf_hash(b"x"), index, size, tree.root(size), proof)
            assert not any(
                verify_inclusion(leaf, other, size, tree.root(size), proof) for other in range(size) if other != index
            )
            if proof:
                assert not verify_inclusion(leaf, index, size, tree.root(size), proof[:-1])
    with pytest.raises(ValueError, match="no leaf"):
        tree.inclusion_proof(5, 5)


def test_every_consistency_proof_verifies_and_only_there():
    tree = MerkleTree(numbered(20))
    for size in range(21):
        for old in range(size + 1):
            proof = tree.consistency_proof(old, size)
            assert verify_consistency(old, size, tree.root(old), tree.root(size), proof)
            assert not verify_consistency(old, size, tree.root(old), tree.root(size), [*proof, bytes(32)])
            assert not verify_consistency(old, size, bytes(32), tree.root(size), proof)
            if old:
                assert not verify_consistency(old, size, tree.root(old), bytes(32), proof)
            if proof:
                assert not verify_consistency(old, size, tree.root(old), tree.root(size), proof[:-1])
    with pytest.raises(ValueError, match="extend"):
        tree.consistency_proof(6, 5)


@given(st.integers(2, 300), st.data())
def test_a_fork_has_no_consistency_proof(size, data):
    old = data.draw(st.integers(1, size - 1))
    changed = data.draw(st.integers(0, old - 1))
    honest, forked = numbered(size), numbered(size)
    forked[changed] += b"'"
    tree, fork = MerkleTree(honest), MerkleTree(forked)
    assert verify_consistency(old, size, tree.root(old), tree.root(size), tree.consistency_proof(old, size))
    assert not verify_consistency(old, size, tree.root(old), fork.root(size), fork.consistency_proof(old, size))
    assert not verify_consistency(old, size, tree.root(old), fork.root(size), tree.consistency_proof(old, size))


def test_no_leaf_is_at_a_place_that_the_tree_does_not_have():
    for size in range(1, 9):
        tree = MerkleTree([bytes([place]) for place in range(size)])
        for index in range(size):
            leaf, proof = leaf_hash(bytes([index])), tree.inclusion_proof(index, size)
            for outside in (-1, -size, size, size + index, 2 * size + index, 8 * size + index):
                assert not verify_inclusion(leaf, outside, size, tree.root(size), proof)
