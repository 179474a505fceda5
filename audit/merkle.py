"""The Merkle tree over the lines of a log: one root says what all lines are, short proofs that none was rewritten.

Hashes and proofs are those of RFC 9162, section 2.1 (SHA-256; a leaf is prefixed by 0x00, an inner node by 0x01).
"""

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of a tree without leaves."""


def leaf_hash(line: bytes) -> bytes:
    """Return the hash of a leaf, bytes[32]; `line` is without its line end."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node, bytes[32]."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A growing tree that keeps every complete subtree: an append and the root of any size cost O(log n) hashes."""

    def __init__(self, lines: Sequence[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for line in lines:
            self.append(line)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, line: bytes) -> None:
        """Add a leaf."""
        node = leaf_hash(line)
        for height in range(len(self._levels) + 1):
            if height == len(self._levels):
                self._levels.append([])
            level = self._levels[height]
            level.append(node)
            if len(level) % 2:
                return
            node = node_hash(level[-2], level[-1])

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first `size` leaves (all by default), bytes[32].

        Raises:
            ValueError: The tree has fewer leaves.
        """
        size = len(self) if size is None else size
        self._check(size)
        return self._subtree(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the proof that leaf `index` is in the tree of the first `size` leaves (RFC 9162, section 2.1.3.1).

        Raises:
            ValueError: There is no such leaf.
        """
        self._check(size)
        if not 0 <= index < size:
            raise ValueError(f"there is no leaf {index} in a tree of {size}")
        return self._path(index, 0, size)

    def consistency_proof(self, old_size: int, size: int) -> list[bytes]:
        """Return the proof that the first `size` leaves begin with the first `old_size` (RFC 9162, section 2.1.4.1).

        Raises:
            ValueError: `old_size` is above `size`, or the tree has fewer leaves.
        """
        self._check(size)
        if not 0 <= old_size <= size:
            raise ValueError(f"a tree of {size} leaves does not extend one of {old_size}")
        return [] if old_size in (0, size) else self._subproof(old_size, 0, size, whole=True)

    def _check(self, size: int) -> None:
        if not 0 <= size <= len(self):
            raise ValueError(f"the tree has {len(self)} leaves, not {size}")

    def _subtree(self, start: int, end: int) -> bytes:
        """Root over leaves [start, end); complete aligned subtrees are looked up."""
        width = end - start
        if width & (width - 1) == 0:
            height = width.bit_length() - 1
            return self._levels[height][start >> height]
        split = start + _split(width)
        return node_hash(self._subtree(start, split), self._subtree(split, end))

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        split = start + _split(end - start)
        if index < split:
            return [*self._path(index, start, split), self._subtree(split, end)]
        return [*self._path(index, split, end), self._subtree(start, split)]

    def _subproof(self, old_end: int, start: int, end: int, *, whole: bool) -> list[bytes]:
        if old_end == end:
            return [] if whole else [self._subtree(start, end)]
        split = start + _split(end - start)
        if old_end <= split:
            return [*self._subproof(old_end, start, split, whole=whole), self._subtree(split, end)]
        return [*self._subproof(old_end, split, end, whole=False), self._subtree(start, split)]


def verify_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether `proof` shows that the leaf hash is at `index` under `root` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    fn, sn, node = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            node = node_hash(sibling, node)
            while fn and not fn % 2:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and node == root


def verify_consistency(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether `proof` shows that the tree under `root` extends the one under `old_root` (RFC 9162, 2.1.4.2)."""
    if not 0 <= old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    fn, sn = old_size - 1, size - 1
    while fn % 2:
        fn, sn = fn >> 1, sn >> 1
    old_node = node = path[0]
    for sibling in path[1:]:
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            old_node, node = node_hash(sibling, old_node), node_hash(sibling, node)
            while fn and not fn % 2:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old_node == old_root and node == root


def _split(width: int) -> int:
    """The largest power of two below `width` (at least 2)."""
    return 1 << ((width - 1).bit_length() - 1)
