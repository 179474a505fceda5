"""Rounds of training and rounds of the protocol.

A client takes part in a round of the protocol once. Where a server has to repeat a round of training (it was restarted,
or a round was given up), it counts up the attempt, so that the protocol sees a new round and the training the same one.
"""

from collections.abc import Mapping
from typing import Final

from securefed.errors import RunFolderError

ROUND_BITS: Final = 17
"""Rounds of training are below 2**17 (the configuration allows 100,000, and one more scores the last model)."""

MAX_ATTEMPTS: Final = 1 << 15
"""Protocol rounds are below 2**32."""

MAX_LEAD: Final = 64
"""Attempts by which a hospital may be ahead of most others and of the server's log, and still be believed."""


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


def next_attempt(last: Mapping[str, int], taken_up: int) -> tuple[int, tuple[str, ...]]:
    """Return an attempt above those of the hospitals' last rounds, and the hospitals that are too far ahead to be so.

    What a server has lost of its log, most hospitals know. One that names a round far beyond theirs would use up the
    numbers of the run for all.

    Args:
        last: {hospital: the last protocol round that it has seen, -1 for none}; not empty.
        taken_up: Attempts that the server's log knows of.
    """
    attempts = {name: (number >> ROUND_BITS) + 1 if number >= 0 else 0 for name, number in last.items()}
    borne_out = max(taken_up, sorted(attempts.values())[(len(attempts) - 1) // 2])
    ahead = tuple(sorted(name for name, attempt in attempts.items() if attempt > borne_out + MAX_LEAD))
    return max(attempt for name, attempt in attempts.items() if name not in ahead), ahead
