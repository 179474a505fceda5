"""Which sums over which clients were opened, and what they give away together.

Each opened sum is a row of ones and zeros over the clients. If the clients' vectors do not change from one sum to the
next, every combination of rows is known: a client is isolated where its unit vector lies in the row space (So et al.
2023, "Securing Secure Aggregation"). Vectors are taken to be the same where the clients were given the same model; sums
over different models are not compared. A client whose vector in a sum is constant gives
that sum the session's id in place of the model's digest, and so compares it with no other.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Self

from protocols.errors import DecodeError, IsolationError
from protocols.messages.consistency import SurvivorSet
from protocols.roster import Roster
from protocols.wire import Reader, u32

_PRIME = (1 << 61) - 1
"""Ranks are computed modulo this prime: never above the rational rank, and below it only if it divides a minor."""

Row = frozenset[str]


def isolated(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the clients whose vectors follow from sums over these rows, in the order of their names."""
    basis = _reduce(rows)
    clients = sorted(frozenset().union(*rows)) if rows else []
    return tuple(client for client in clients if not _remainder({client: 1}, basis))


class Participation:
    """The sums that were opened so far, by the model that they began with.

    Args:
        floor: Fewest clients in whom two sums over one model may differ, unless they do not differ at all.
    """

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._rows: dict[bytes, list[Row]] = {}

    def check(self, model: bytes, survivors: Collection[str]) -> None:
        """Refuse a sum over another set of clients than one that was opened over the same model.

        Two sets give at least their difference away, and combinations of more give smaller ones: sums over R, R - A,
        R - B and R - C, where A, B and C overlap in pairs, give the sum over a pair. A federation that goes on has a
        new model, and a round that opened nothing can be begun again.

        Args:
            model: Digest of the model.
            survivors: Who would be in the sum.

        Raises:
            IsolationError: Another set was opened, or the set is smaller than the floor.
        """
        row, earlier = frozenset(survivors), self._rows.get(model, [])
        if row in earlier or (not earlier and len(row) >= self._floor):
            return
        raise IsolationError(tuple(sorted(row ^ earlier[0] if earlier else row)), self._floor)

    def add(self, model: bytes, survivors: Collection[str]) -> None:
        """Record a sum that is being opened."""
        row = frozenset(survivors)
        rows = self._rows.setdefault(model, [])
        if row not in rows:
            rows.append(row)

    def encode(self, roster: Roster) -> bytes:
        """Return the bytes for a client's dump."""
        rows = [(model, row) for model, rows in self._rows.items() for row in rows]
        sets = (
            model + SurvivorSet.of(len(roster), {roster.index(name) for name in row}).encode() for model, row in rows
        )
        return u32(len(rows)) + b"".join(sets)

    @classmethod
    def decode(cls, data: bytes | memoryview, floor: int, roster: Roster) -> Self:
        """Read what `encode` wrote.

        Raises:
            DecodeError: The bytes are not that.
        """
        reader, sums = Reader(data), cls(floor)
        for _ in range(reader.u32()):
            model, row = reader.take(32), SurvivorSet.parse(reader)
            if row.clients != len(roster):
                raise DecodeError("the sums are of another roster")
            sums.add(model, roster.select(sorted(row.positions)))
        reader.done()
        return sums

    @property
    def rows(self) -> tuple[Row, ...]:
        """All sums, over all models."""
        return tuple(row for rows in self._rows.values() for row in rows)


def _reduce(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Gaussian elimination: {pivot: row with a one at the pivot}, no pivot occurs in another row."""
    basis: dict[str, dict[str, int]] = {}
    for row in rows:
        rest = _remainder(dict.fromkeys(row, 1), basis)
        if not rest:
            continue
        pivot = min(rest)
        inverse = pow(rest[pivot], -1, _PRIME)
        rest = {client: value * inverse % _PRIME for client, value in rest.items()}
        for name, other in basis.items():
            if pivot in other:
                basis[name] = _subtract(other, rest, other[pivot])
        basis[pivot] = rest
    return basis


def _remainder(row: dict[str, int], basis: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """What is left of a row after the basis has taken its pivots."""
    for pivot in [client for client in row if client in basis]:
        row = _subtract(row, basis[pivot], row[pivot])
    return row


def _subtract(row: Mapping[str, int], other: Mapping[str, int], factor: int) -> dict[str, int]:
    result = dict(row)
    for client, value in other.items():
        result[client] = (result.get(client, 0) - factor * value) % _PRIME
    return {client: value for client, value in result.items() if value}
