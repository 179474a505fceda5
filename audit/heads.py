"""Tree heads: the log's state after a round in one signed line, which every hospital countersigns and keeps.

The server signs a head; a hospital signs it only when a consistency proof shows that it extends the last head it
signed, and writes it into its own file before it answers. A log that is cut, forked or rewritten then contradicts the
file of any single hospital.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import JSON, CanonicalError, decode_canonical, encode_canonical
from audit.durable import append_line, cut_incomplete
from audit.errors import EvidenceError
from audit.log import EventLog
from audit.merkle import MerkleTree, verify_consistency
from audit.regular_file import read_regular
from audit.roster import Roster, is_signed, public_hex
from audit.rules import DIGEST, NAME, SIGNATURE, TIME, Choice, FieldError, Integer, MapOf, Record

HEAD_FORMAT = "securefed-tree-head/1"
SERVER_LABEL = b"securefed tree head v1 server\n"
"""Precedes the head's bytes in what the server signs."""

WITNESS_LABEL = b"securefed tree head v1 witness\n"
"""Precedes the head's bytes in what a hospital signs."""

_TOGETHER = 16
"""Hospitals of one process that write their heads at the same time: a disk takes little longer for all than for one."""

_HEAD = Record(
    {
        "format": Choice((HEAD_FORMAT,)),
        "run_id": NAME,
        "round": Integer(),
        "size": Integer(1),
        "root": DIGEST,
        "time": TIME,
    }
)
_SIGNED = Record({"head": _HEAD, "server": SIGNATURE, "witnesses": MapOf(SIGNATURE)})


@dataclass(frozen=True)
class TreeHead:
    """What a log held at one time.

    Attributes:
        run_id: The log's run.
        round: The round after which it was taken; the last of the run has the number of rounds again.
        size: Events of the log.
        root: Merkle root over their lines, hex.
        time: UTC time of the last of these events.
    """

    run_id: str
    round: int
    size: int
    root: str
    time: str

    def encode(self) -> bytes:
        """Return the canonical bytes that are signed (after a label)."""
        return encode_canonical(self.fields())

    def fields(self) -> dict[str, JSON]:
        """Return the head as a JSON object."""
        return {
            "format": HEAD_FORMAT,
            "run_id": self.run_id,
            "round": self.round,
            "size": self.size,
            "root": self.root,
            "time": self.time,
        }


@dataclass(frozen=True)
class SignedHead:
    """A head with the server's signature and those of the hospitals that witnessed it (hex)."""

    head: TreeHead
    server: str
    witnesses: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the canonical bytes of a line of a heads file."""
        return encode_canonical({"head": self.head.fields(), "server": self.server, "witnesses": dict(self.witnesses)})

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read a line of a heads file; raises EvidenceError where it is none."""
        try:
            value = decode_canonical(line)
            _SIGNED.check(value, "")
        except (CanonicalError, FieldError) as error:
            raise EvidenceError(-1, f"a tree head is damaged: {error}") from error
        assert isinstance(value, Mapping)  # noqa: S101 (narrows the type)
        plain, witnesses = value["head"], value["witnesses"]
        assert isinstance(plain, Mapping)  # noqa: S101
        assert isinstance(witnesses, Mapping)  # noqa: S101
        number, size = plain["round"], plain["size"]
        assert isinstance(number, int)  # noqa: S101
        assert isinstance(size, int)  # noqa: S101
        head = TreeHead(str(plain["run_id"]), number, size, str(plain["root"]), str(plain["time"]))
        return cls(head, str(value["server"]), {name: str(signature) for name, signature in witnesses.items()})

    def verify(self, roster: Roster, *, of: str = "") -> None:
        """Refuse a head that the server or a named witness did not sign.

        Args:
            roster: The keys.
            of: A hospital that must be among the witnesses; "" for none in particular.

        Raises:
            EvidenceError: naming the last event that the head covers.
        """
        last, encoded = self.head.size - 1, self.head.encode()
        if not is_signed(roster.server, self.server, SERVER_LABEL + encoded):
            raise EvidenceError(last, "the tree head up to here is not signed by the server of the roster")
        for name, signature in self.witnesses.items():
            if name not in roster.hospitals:
                raise EvidenceError(last, f"the tree head up to here is countersigned by a stranger, {name!r}")
            if not is_signed(roster.hospitals[name], signature, WITNESS_LABEL + encoded):
                raise EvidenceError(last, f"the tree head up to here carries a wrong signature of {name!r}")
        if of and of not in self.witnesses:
            raise EvidenceError(last, f"the tree head up to here lacks the countersignature of {of!r}")


class Witness:
    """A hospital that countersigns heads and keeps them in a file of its own.

    Args:
        name: The hospital.
        key: Its long-term signing key.
        server: The server's public key from the roster, hex.
        path: Its heads file; continued where it exists.
        run_id: The run it takes part in.

    Raises:
        EvidenceError: The file is damaged or of another run. A last line that a crash left incomplete is cut: this
            hospital has told nobody of it.
        OSError: There is such a line, and the file cannot be written.
    """

    def __init__(self, name: str, key: Ed25519PrivateKey, server: str, path: Path, run_id: str) -> None:
        self.name = name
        self._key = key
        self._server = server
        self._path = path
        self._run_id = run_id
        self._last: TreeHead | None = None
        if path.exists():
            if not _is_whole(path):
                cut_incomplete(path)
            for signed in read_heads(path):
                if signed.head.run_id != run_id:
                    raise EvidenceError(-1, f"{path} holds heads of the run {signed.head.run_id!r}, not of {run_id!r}")
                self._last = signed.head

    @property
    def size(self) -> int:
        """Events that the last head of this hospital covers."""
        return 0 if self._last is None else self._last.size

    def countersign(self, head: TreeHead, server_signature: str, proof: Sequence[bytes]) -> str:
        """Keep a head and return this hospital's signature (hex) over it.

        Args:
            head: The new head.
            server_signature: The server's signature over it.
            proof: Consistency proof from the tree of `size` events to the new one.

        Raises:
            EvidenceError: The head is of another run, not signed by the server, older than the last one or does not
                extend it; nothing is signed.
        """
        if head.run_id != self._run_id:
            raise EvidenceError(-1, f"{self.name}: the head is of the run {head.run_id!r}, not of {self._run_id!r}")
        if not is_signed(self._server, server_signature, SERVER_LABEL + head.encode()):
            raise EvidenceError(-1, f"{self.name}: the head is not signed by the server of the roster")
        if self._last is not None:
            old = self._last
            if head.size < old.size:
                raise EvidenceError(head.size, f"{self.name}: {old.size} events were witnessed, the new head has fewer")
            if not verify_consistency(
                old.size, head.size, bytes.fromhex(old.root), bytes.fromhex(head.root), list(proof)
            ):
                raise EvidenceError(old.size - 1, f"{self.name}: the new head does not extend the last one (a fork)")
        signature = self._key.sign(WITNESS_LABEL + head.encode()).hex()
        append_line(self._path, SignedHead(head, server_signature, {self.name: signature}).encode())
        self._last = head
        return signature


def sign_head(log: EventLog, tree: MerkleTree, round: int, key: Ed25519PrivateKey) -> SignedHead:
    """Return the server's head over all events of the log.

    Args:
        log: The log.
        tree: The tree over its lines (`grow` it first).
        round: The last finished round.
        key: The server's key.
    """
    first, last = log.events[0], log.events[-1]
    if len(tree) != len(log):
        raise ValueError(f"the tree has {len(tree)} leaves, the log {len(log)} events")
    head = TreeHead(str(first.fields["run_id"]), round, len(log), tree.root().hex(), last.time)
    return SignedHead(head, key.sign(SERVER_LABEL + head.encode()).hex())


def read_heads(path: Path) -> list[SignedHead]:
    """Return the heads of a file that a party writes; an incomplete last line of a crash is left out.

    Raises:
        EvidenceError: The file cannot be read, or a complete line is no head.
    """
    return [SignedHead.decode(line) for line in _lines(path)[:-1]]


def read_whole_heads(path: Path) -> list[SignedHead]:
    """The same for a reader who verifies: an incomplete last line is a fault, as it is in a log.

    Raises:
        EvidenceError: The file cannot be read, or a line is no head.
    """
    lines = _lines(path)
    if lines[-1]:
        raise EvidenceError(-1, f"{path.name} ends in an incomplete line: what a crash left goes with the next head")
    return [SignedHead.decode(line) for line in lines[:-1]]


def covered_events(path: Path) -> int:
    """Return how many events the heads of a file cover, 0 where there is none; raises EvidenceError as `read_heads`."""
    return max((signed.head.size for signed in read_heads(path)), default=0) if path.exists() else 0


def read_given_heads(path: Path) -> list[SignedHead]:
    """Return the heads of a file that somebody hands in as a proof: nothing of it is left out.

    Raises:
        EvidenceError: The file cannot be read, holds no head, or a line is none.
    """
    *whole, last = _lines(path)
    heads = [SignedHead.decode(line) for line in whole]
    if last:
        try:
            heads.append(SignedHead.decode(last))
        except EvidenceError as error:
            raise EvidenceError(
                -1,
                f"the last line of {path} is incomplete, as a power failure leaves it: the hospital cuts it when it is "
                "in a run again (start its node, submit); or hand in a copy without that line",
            ) from error
    if not heads:
        raise EvidenceError(-1, f"{path} holds no tree head: it proves nothing")
    return heads


def _is_whole(path: Path) -> bool:
    return not _lines(path)[-1]


def _lines(path: Path) -> list[bytes]:
    try:
        return read_regular(path).split(b"\n")
    except OSError as error:
        raise EvidenceError(-1, f"{path} cannot be read ({error.strerror})") from error


Gather = Callable[[SignedHead, Callable[[int], list[bytes]]], Mapping[str, str]]
"""Collects the countersignatures of a head."""


class HeadBook:
    """The server's side: takes a head after each round, asks the hospitals to countersign, keeps heads.jsonl.

    Args:
        log: The log.
        key: The server's signing key.
        roster: The keys of all.
        path: heads.jsonl; continued where it exists.
    """

    def __init__(self, log: EventLog, key: Ed25519PrivateKey, roster: Roster, path: Path) -> None:
        if public_hex(key) != roster.server:
            raise ValueError("the server's key is not the one of the roster")
        self._log = log
        self._key = key
        self._roster = roster
        self._path = path
        self._tree = MerkleTree()

    def publish(self, round: int, witnesses: Sequence[Witness]) -> SignedHead:
        """Sign the present head, collect countersignatures, append the result to heads.jsonl and return it.

        Args:
            round: The last finished round.
            witnesses: The hospitals that can be reached.

        Raises:
            EvidenceError: A hospital refuses the head, or answers with a signature that is not its own.
        """

        def gather(unsigned: SignedHead, proof: Callable[[int], list[bytes]]) -> Mapping[str, str]:
            head, server = unsigned.head, unsigned.server

            def of(witness: Witness) -> str:
                return witness.countersign(head, server, proof(min(witness.size, head.size)))

            names = [witness.name for witness in witnesses]
            with ThreadPoolExecutor(_TOGETHER) as threads:  # each waits for its own file to be on disk
                return dict(zip(names, threads.map(of, witnesses), strict=True))

        return self.publish_by(round, gather)

    def publish_by(self, round: int, gather: Gather) -> SignedHead:
        """The same where countersignatures come from elsewhere.

        Args:
            round: The last finished round.
            gather: Takes the head with the server's signature, and the consistency proof from a size on; returns
                {hospital: signature}.

        Raises:
            EvidenceError: A signature is not that of its hospital.
        """
        self._grow()
        unsigned = sign_head(self._log, self._tree, round, self._key)
        size = unsigned.head.size
        signatures = gather(unsigned, lambda start: self._tree.consistency_proof(start, size))
        signed = SignedHead(unsigned.head, unsigned.server, signatures)
        signed.verify(self._roster)
        append_line(self._path, signed.encode())
        return signed

    def _grow(self) -> None:
        for event in self._log.events[len(self._tree) :]:
            self._tree.append(event.line)
