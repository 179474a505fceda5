"""Rounds of training and rounds of the protocol.

A client takes part in a round of the protocol once. Where a server has to repeat a round of training (it was restarted,
or a round was given up), it counts up the attempt, so that the protocol sees a new round and the training the same one.
"""

from typing import Final

from securefed.errors import RunFolderError

ROUND_BITS: Final = 17
"""Rounds of training are below 2**17 (the configuration allows 100,000, and one more scores the last model)."""

MAX_ATTEMPTS: Final = 1 << 15
"""Protocol rounds are below 2**32."""


def protocol_round(number: int, attempt: int) -> int:
    """Return the protocol's number of a round of training.

    Args:
        number: The round, from 1.
        attempt: How often the run was taken up again, 0 at first; never counted down within a run.

    Raises:
        RunFolderError: The run was taken up too often.
    """
    if attempt >= MAX_ATTEMPTS:
        raise RunFolderError("", f"the run was taken up {attempt} times; start a new one")
    return attempt << ROUND_BITS | number


def training_round(protocol: int) -> int:
    """Return the round of training behind a protocol's number."""
    return protocol & ((1 << ROUND_BITS) - 1)
