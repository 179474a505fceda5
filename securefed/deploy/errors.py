"""What a caller of a deployment may have to react to."""

from securefed.errors import SecureFedError


class DeploymentError(SecureFedError):
    """An engine is missing, refuses, or does not answer; the message says what to do next (exit code 1)."""
