"""Who signs in a deployment, as the server sees it: its own key, and hospitals at the far end of a transport.

The counterpart of audit.parties, where one process holds all keys.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import JSON
from audit.heads import HeadBook, SignedHead
from audit.log import EventLog
from audit.roster import Roster
from protocols.errors import DecodeError
from protocols.transport import Patience, Transport
from securefed.nodes.control import ControlStage, RefusedBySiteError, decode_reply, encode_request
from securefed.nodes.site_run import CONTROL_VERSION, software_version


class RemoteParties:
    """Greets hospitals and has them countersign, over a transport.

    Args:
        folder: The run folder.
        key: The server's signing key.
        roster: The keys of all.
        study: SHA-256 (hex) of the study.
        transport: Reaches the hospitals.
        patience: How long an exchange waits.
        refused: Called with (hospital, code, reason) of every refusal.

    Attributes:
        said_hello: {hospital: its reply} of those that have greeted back since this process started.
        reached: Hospitals that have signed the last head.
        data: {hospital: what it calls its data}, as it said last.
    """

    def __init__(
        self,
        folder: Path,
        key: Ed25519PrivateKey,
        roster: Roster,
        study: str,
        transport: Transport,
        patience: Patience,
        refused: Callable[[str, str, str], None],
    ) -> None:
        self._folder = folder
        self._key = key
        self._roster = roster
        self._study = study
        self._transport = transport
        self._patience = patience
        self._refused = refused
        self._book: HeadBook | None = None
        self._witnessed: dict[str, int] = {}
        self.said_hello: dict[str, Mapping[str, Any]] = {}
        self.reached: frozenset[str] = frozenset()
        self.data: dict[str, str] = {}

    def announce(self, log: EventLog) -> None:
        """Write the roster's file and record it in the log of a new run."""
        (self._folder / "roster.json").write_bytes(self._roster.encode())
        keys: dict[str, JSON] = {"server": self._roster.server, "hospitals": dict(self._roster.hospitals)}
        log.append("roster", {"digest": self._roster.digest, **keys})

    def greet(self, run_id: str, round_id: int = 0, *, ended: bool = False) -> dict[str, Mapping[str, Any]]:
        """Say Hello to every hospital that has not greeted back yet; return the replies.

        Args:
            run_id: The run.
            round_id: The round that is about to begin.
            ended: Whether no round of training is to come: hospitals answer then whatever their budget bears.
        """
        fields: dict[str, JSON] = {
            "version": CONTROL_VERSION,
            "software": software_version(),
            "run_id": run_id,
            "study": self._study,
            "roster": self._roster.digest,
            **({"ended": True} if ended else {}),
        }
        absent = [name for name in self._roster.hospitals if name not in self.said_hello]
        frame = encode_request(ControlStage.HELLO, fields)
        replies = self.ask(ControlStage.HELLO, dict.fromkeys(absent, frame), round_id)
        self.said_hello |= replies
        self.data |= {name: reply["data"] for name, reply in replies.items()}
        self._witnessed |= {name: reply["witnessed"] for name, reply in replies.items()}
        return replies

    def publish(self, log: EventLog, round: int, reachable: Sequence[str]) -> SignedHead:
        """Sign the log as it is, and have the hospitals that answer countersign and keep it.

        Args:
            log: The log; the same one on every call.
            round: The last finished round.
            reachable: Hospitals to ask.

        Raises:
            EvidenceError: A hospital answers with a signature that is not its own.
        """
        if self._book is None:
            self._book = HeadBook(log, self._key, self._roster, self._folder / "heads.jsonl")

        def gather(unsigned: SignedHead, proof: Callable[[int], list[bytes]]) -> Mapping[str, str]:
            signatures: dict[str, str] = {}
            asked = [name for name in reachable if name in self._witnessed]
            for _ in range(2):  # again: who stands elsewhere than was thought and says where, or is silent for once
                frames = {name: self._frame(unsigned, self._witnessed[name], proof) for name in asked}
                replies = self.ask(ControlStage.COUNTERSIGN, frames, round)
                asked = [name for name in asked if name in self.reached and name not in replies]
                self.data |= {name: reply["data"] for name, reply in replies.items()}
                for name, reply in replies.items():
                    elsewhere = reply["witnessed"] != self._witnessed[name]
                    self._witnessed[name] = reply["witnessed"]
                    if reply["signature"]:
                        signatures[name] = reply["signature"]
                    elif elsewhere:
                        asked.append(name)
                    else:
                        self._refused(name, "evidence", "neither signs the head nor says where it stands")
            self.reached = frozenset(signatures)
            return signatures

        return self._book.publish_by(round, gather)

    def ask(self, stage: ControlStage, requests: Mapping[str, bytes], round_id: int) -> dict[str, Mapping[str, Any]]:
        """Send requests beside the rounds and return the replies of the hospitals that gave one."""
        if not requests:
            return {}
        replies, _ = self._transport.exchange(stage.value, requests, round_id=round_id, patience=self._patience)
        answered: dict[str, Mapping[str, Any]] = {}
        for name, reply in replies:
            try:
                answered[name] = decode_reply(stage, reply)
            except RefusedBySiteError as error:
                self._refused(name, error.code, error.reason)
            except DecodeError as error:
                self._refused(name, "message", str(error))
        return answered

    def _frame(self, signed: SignedHead, start: int, proof: Callable[[int], list[bytes]]) -> bytes:
        start = min(start, signed.head.size)
        return encode_request(
            ControlStage.COUNTERSIGN,
            {
                "head": signed.head.fields(),
                "server": signed.server,
                "from": start,
                "proof": [node.hex() for node in proof(start)],
            },
        )
