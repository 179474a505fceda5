"""What a server node starts from, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.roster import public_hex
from securefed.deploy.errors import DeploymentError
from securefed.study.approval import Approval
from securefed.study.form import Study


@dataclass(frozen=True)
class StudyStart:
    """What a server node starts from.

    Attributes:
        study: The study.
        approvals: Those of all hospitals.
        key: The server's signing key.
    """

    study: Study
    approvals: Sequence[Approval]
    key: Ed25519PrivateKey

    def check(self) -> None:
        """Refuse to begin without the approval of every hospital, or with another key than the study's.

        Raises:
            ConfigError, DeploymentError: Names who is missing.
        """
        for approval in self.approvals:
            approval.check(self.study)
        missing = sorted(set(self.study.roster.hospitals) - {approval.hospital for approval in self.approvals})
        if missing:
            raise DeploymentError(f"not approved by {', '.join(missing)}; each runs `site approve` and sends the file")
        if public_hex(self.key) != self.study.roster.server:
            raise DeploymentError("the server's key is not the one of the study's roster; use the key that was named")
