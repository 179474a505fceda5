"""Lists of clients' positions and of one 32-byte block for each: count, all positions ascending, then all blocks."""

import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from protocols.errors import DecodeError
from protocols.wire import Reader


@dataclass(frozen=True, slots=True)
class PositionedBlocks:
    """A list of 32-byte blocks of distinct clients: count, all positions ascending, then all blocks.

    Attributes:
        positions: Ascending.
        blocks: 32 bytes for each, joined.
    """

    positions: tuple[int, ...]
    blocks: bytes

    @classmethod
    def of(cls, blocks: Mapping[int, bytes]) -> Self:
        """Make the list of {position: 32 bytes}."""
        positions = tuple(sorted(blocks))
        return cls(positions, b"".join(blocks[position] for position in positions))

    def items(self) -> Iterable[tuple[int, bytes]]:
        """Return positions with their blocks."""
        return ((position, self.blocks[32 * i : 32 * i + 32]) for i, position in enumerate(self.positions))

    def encode(self) -> bytes:
        """Return the list's bytes."""
        return encode_positions(self.positions) + self.blocks

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read a list.

        Raises:
            DecodeError: The bytes are not one, or positions repeat.
        """
        positions = parse_positions(reader, item_bytes=34)
        return cls(positions, reader.take(32 * len(positions)))

    def __len__(self) -> int:
        return len(self.positions)


def encode_positions(positions: Sequence[int]) -> bytes:
    """Return count and positions, 16 bits each."""
    return struct.pack(f"<H{len(positions)}H", len(positions), *positions)


def parse_positions(reader: Reader, item_bytes: int = 2) -> tuple[int, ...]:
    """Read count and positions.

    Raises:
        DecodeError: They are not strictly ascending.
    """
    count = reader.count(item_bytes)
    positions = struct.unpack(f"<{count}H", reader.view(2 * count))
    if any(a >= b for a, b in itertools.pairwise(positions)):
        raise DecodeError("positions are not strictly ascending")
    return positions
