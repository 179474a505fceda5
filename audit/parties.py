"""All parties of a simulated run on one machine: who would sign in a deployment signs here, with keys of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import JSON
from audit.durable import write_whole
from audit.errors import EvidenceError, LogWriteError
from audit.heads import HeadBook, SignedHead, Witness
from audit.log import EventLog
from audit.roster import Roster
from audit.signing_key import create_key, load_key


class SimulatedParties:
    """The server and the hospitals of one run folder, made for a new run or found again in that of an earlier one.

    The server's key lies in `server.key`, a hospital's in its own folder beside its heads.jsonl; all are drawn from the
    system's generator, never from a seed.

    Args:
        folder: The run folder.
        sites: {hospital: its own folder within the run folder}.

    Raises:
        KeyFileError: A key cannot be made or read, or is gone though the roster has it.
        LogWriteError: The roster cannot be written.
        EvidenceError: The roster in the folder is damaged, or of other keys than those in it.
    """

    def __init__(self, folder: Path, sites: Mapping[str, Path]) -> None:
        self._folder = folder
        key = load_key if (folder / "roster.json").exists() else _key  # a new key would be a stranger's to the record
        self._server = key(folder / "server.key")
        self._keys = {name: key(path / "identity.key") for name, path in sites.items()}
        self._sites = dict(sites)
        self._book: HeadBook | None = None
        self._witnesses: dict[str, Witness] = {}
        self.roster = Roster.of(self._server, self._keys)
        path = folder / "roster.json"
        if not path.exists():
            try:
                write_whole(path, [self.roster.encode()])
            except OSError as error:
                raise LogWriteError(path, f"cannot be written ({error.strerror})") from error
        kept = Roster.read(path)
        if kept != self.roster:
            raise EvidenceError(-1, f"the keys in {folder} are not those of its roster.json: restore them")
        self.roster = kept

    def announce(self, log: EventLog) -> None:
        """Record the roster in the log of a new run."""
        keys: dict[str, JSON] = {"server": self.roster.server, "hospitals": dict(self.roster.hospitals)}
        log.append("roster", {"digest": self.roster.digest, **keys})

    def publish(self, log: EventLog, round: int, reachable: Sequence[str]) -> SignedHead:
        """Sign the log as it is, and have the hospitals that can be reached countersign and keep it.

        Args:
            log: The log; the same one on every call.
            round: The last finished round.
            reachable: Hospitals; each checks that the head extends the last one it signed.

        Raises:
            EvidenceError: A hospital refuses.
        """
        run_id = str(log.events[0].fields["run_id"])
        if self._book is None:
            self._book = HeadBook(log, self._server, self.roster, self._folder / "heads.jsonl")
        for name in reachable:
            if name not in self._witnesses:
                path = self._sites[name] / "heads.jsonl"
                self._witnesses[name] = Witness(name, self._keys[name], self.roster.server, path, run_id)
        return self._book.publish(round, [self._witnesses[name] for name in reachable])


def _key(path: Path) -> Ed25519PrivateKey:
    return load_key(path) if path.exists() else create_key(path)
