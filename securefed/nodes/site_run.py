"""What a deployed site does beside the rounds: it checks who is talking, countersigns, keeps the result.

A simulation has none of this: it looks at its sites directly, and its parties sign in one place (audit/parties.py).
"""

import importlib.metadata
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from audit.canonical import JSON
from audit.errors import AuditError, EvidenceError
from audit.heads import TreeHead, Witness
from audit.ledger.errors import NoBudgetError
from clients.data import DataError
from clients.encoders import EncoderError
from protocols.labels import VERSION
from securefed.errors import ConfigError, RunFolderError

Vector = NDArray[np.float32]

_LOG = logging.getLogger("securefed.site")

CONTROL_VERSION: Final = 100 * VERSION + 3
"""Version of the messages: of the protocol's frames, and of those beside the rounds."""

UNUSABLE: Final = "the data of this site cannot be used; its own log says why"
"""What leaves a site whose data cannot be read: errors about data name files and classes."""

BOOKS: Final = "the ledger or a log of this site cannot be used; its own log says why"
"""What leaves a site whose books fail it: errors about them name files."""


class ControlRefusedError(Exception):
    """A message beside the rounds is refused; `code` names why, `reason` says it to the admins at both ends."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Agreement:
    """What a site has agreed to.

    Attributes:
        study: SHA-256 (hex) of the study, to which every round is bound.
        roster: SHA-256 (hex) of the roster file.
        data: What the site calls its data (audit/data_name.py), 64 hex digits.
    """

    study: str
    roster: str
    data: str


class SiteRun:
    """One site's dealings with the server of one study.

    Args:
        agreement: What the site has agreed to.
        witness: Opens the site's heads of a run by its id.
        keep: Called with (run id, model float32[d], its round) at the end of a run.
        run_id: The run in progress, "" before the first Hello.
        objection: Called with a run id; returns why the site cannot pay for the run, "" where it can. An AuditError
            says that its books cannot be used.
        unusable: Returns why the site's data cannot be those that it approved, "" where they are.

    Attributes:
        run_id: The run in progress, "" where there is none.
        objection: As given.
    """

    def __init__(
        self,
        agreement: Agreement,
        witness: Callable[[str], Witness],
        keep: Callable[[str, Vector, int], None],
        run_id: str = "",
        objection: Callable[[str], str] = lambda _run_id: "",
        unusable: Callable[[], str] = str,
    ) -> None:
        self.objection = objection
        self._unusable = unusable
        self._agreement = agreement
        self._open_witness = witness
        self._keep = keep
        self._witness: Witness | None = None
        self.run_id = run_id

    def hello(self, fields: Mapping[str, Any], last_round: int) -> Mapping[str, JSON]:
        """Check that both ends mean the same study and say where this site stands.

        Raises:
            ControlRefusedError: `version`, `study` or `roster` differ, the site's `data` are not what it approved, or
                its `budget` does not bear the run, or its `ledger` cannot be used; of a run that has `ended` only a
                signature and the kept model are wanted, which need none of it.
        """
        if fields["version"] != CONTROL_VERSION:
            raise ControlRefusedError(
                "version",
                f"this site runs securefed {software_version()} (messages {CONTROL_VERSION}), the server "
                f"{fields['software']} (messages {fields['version']}); install the same version at both ends",
            )
        for what, own in (("study", self._agreement.study), ("roster", self._agreement.roster)):
            if fields[what] != own:
                raise ControlRefusedError(
                    what, f"the server's {what} has the digest {fields[what][:16]}..., this site approved {own[:16]}..."
                )
        run_id = str(fields["run_id"])
        if not fields.get("ended", False):
            self._require("data", self._unusable(), run_id)
            self._require(*self._cannot_pay(run_id), run_id)
        if run_id != self.run_id:
            self.run_id, self._witness = run_id, None
        return {
            "version": CONTROL_VERSION,
            "software": software_version(),
            "last_round": last_round,
            "witnessed": self._heads().size,
            "data": self._agreement.data,
        }

    def _cannot_pay(self, run_id: str) -> tuple[str, str]:
        """Return the code of a refusal and why the site cannot pay for a run, "" where it can."""
        try:
            return "budget", self.objection(run_id)
        except NoBudgetError as error:
            return "budget", error.reason
        except AuditError as error:
            _LOG.error("nobody can tell whether the run %s can be paid for: %s", run_id, error)
            return "ledger", BOOKS

    def _require(self, code: str, reason: str, run_id: str) -> None:
        if reason:
            self.run_id = "" if self.run_id == run_id else self.run_id
            raise ControlRefusedError(code, reason)

    def countersign(self, fields: Mapping[str, Any]) -> Mapping[str, JSON]:
        """Keep a tree head and sign it; where the proof begins elsewhere than this site's last head, say where it is.

        Raises:
            ControlRefusedError: The head is of another run, not the server's, or of another history, or the `disk` does
                not take it: nothing of it is kept then.
        """
        witness, value = self._heads(), fields["head"]
        head = TreeHead(value["run_id"], value["round"], value["size"], value["root"], value["time"])
        if fields["from"] != witness.size and witness.size <= head.size:
            return {"witnessed": witness.size, "signature": "", "data": self._agreement.data}
        try:
            signature = witness.countersign(head, fields["server"], [bytes.fromhex(node) for node in fields["proof"]])
        except EvidenceError as error:
            raise ControlRefusedError("evidence", str(error)) from error
        except OSError as error:
            _LOG.error("a head of the run %s cannot be kept: %s", self.run_id, error)
            raise ControlRefusedError("disk", f"the site cannot keep the head ({error.strerror})") from error
        return {"witnessed": witness.size, "signature": signature, "data": self._agreement.data}

    def close_run(self, fields: Mapping[str, Any], model: bytes) -> Mapping[str, JSON]:
        """Keep the model that the run ends with.

        Raises:
            ControlRefusedError: The run is another one, the bytes are no model, the `disk` does not take it, or
                the `data` to evaluate it on, or the `ledger` to state what it cost, cannot be used.
        """
        if fields["run_id"] != self.run_id:
            raise ControlRefusedError("run", f"this site is in the run {self.run_id!r}, not in {fields['run_id']!r}")
        if not model or len(model) % 4:
            raise ControlRefusedError("model", "the bytes are no vector of float32")
        vector = np.frombuffer(model, dtype="<f4").astype(np.float32)
        if not np.isfinite(vector).all():
            raise ControlRefusedError("model", "the model holds NaN or infinity")
        try:
            self._keep(self.run_id, vector, int(fields["chosen_round"]))
        except (OSError, RunFolderError) as error:
            _LOG.error("the model of the run %s cannot be kept: %s", self.run_id, error)
            cause = error if isinstance(error, OSError) else error.__cause__
            reason = getattr(cause, "strerror", None) or type(cause).__name__
            raise ControlRefusedError("disk", f"the site cannot keep the model ({reason})") from error
        except (ConfigError, DataError, EncoderError) as error:
            _LOG.error("the model of the run %s cannot be evaluated: %s", self.run_id, error)
            raise ControlRefusedError("data", UNUSABLE) from error
        except AuditError as error:
            _LOG.error("what the run %s has cost cannot be stated: %s", self.run_id, error)
            raise ControlRefusedError("ledger", BOOKS) from error
        return {}

    def _heads(self) -> Witness:
        if not self.run_id:
            raise ControlRefusedError("order", "the server has not said Hello since this site was set up")
        if self._witness is None:
            self._witness = self._open_witness(self.run_id)
        return self._witness


def software_version() -> str:
    """Return the installed version of this package."""
    try:
        return importlib.metadata.version("securefed")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
