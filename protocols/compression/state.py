"""What everybody knows of a compressed federation: step, ranges and bases, all from opened sums."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocols.compression.basis import MAX_SIDE, bases_of, first_basis, seen_from_both_sides
from protocols.compression.codec import CompressedCodec
from protocols.compression.parts import Bases, Lifts, Part
from protocols.compression.ranges import FIRST_PROJECTED_RANGE, FIRST_RANGE, next_range, second_ranges
from protocols.compression.scheme import Scheme, SchemeKind
from protocols.errors import ParameterError
from protocols.labels import Label
from protocols.ring import required_ring_bits

_SERVER_STEP = np.float32(1.05)
"""What a projected sum moves the model by, in mean updates. What a subspace does not show the feedback hands on late,
and in the end not at all; the larger step about makes up for it (docs/results/compression.md)."""


def levels_for(value_bits: int, clients: int, noise_tail: int = 0) -> int:
    """Return L: the largest even number of steps that the ring of `value_bits` has room for.

    The ring of n clients with 2**value_bits - 2 steps each has a whole number of bits; what is left of it is used up.

    Args:
        value_bits: 2 to 22.
        clients: n.
        noise_tail: Bound of a summed noise, 0 without noise.
    """
    bits = required_ring_bits(clients, (1 << value_bits) - 2, noise_tail)
    return ((1 << bits) - 1 - 2 * noise_tail) // clients // 2 * 2


@dataclass(frozen=True, slots=True, eq=False)
class CompressionState:
    """The public side of the encoding after a number of opened sums.

    Attributes:
        shapes: Shape of each tensor of an update, in their order.
        scheme: `ring` with its numbers.
        clients: Size n of the largest cohort.
        levels: L.
        max_counters: Largest values of the caller's counters.
        step: Opened sums so far.
        ranges: Range of each group; a projected matrix is two groups, all other tensors are one, the last.
        bases: Bases of each tensor for the next step, None for tensors that are sent as they are.
        lifts: Lift of each tensor with bases in the last sum, zeros before the first; a client needs them to know what
            of its last contribution was delivered.
    """

    shapes: tuple[tuple[int, ...], ...]
    scheme: Scheme
    clients: int
    levels: int
    max_counters: tuple[int, ...]
    step: int
    ranges: tuple[float, ...]
    bases: tuple[Bases | None, ...]
    lifts: Lifts

    @classmethod
    def start(
        cls,
        shapes: Sequence[tuple[int, ...]],
        scheme: Scheme,
        clients: int,
        *,
        max_counters: Sequence[int] = (),
        noise_tail: int = 0,
    ) -> Self:
        """Return the state before the first sum.

        Args:
            shapes: Shape of each tensor.
            scheme: What to do.
            clients: Size n of the largest cohort.
            max_counters: Largest values of the caller's counters.
            noise_tail: Bound of a summed noise.

        Raises:
            ParameterError: The scheme is no `ring`, or a tensor has a side above 65,536.
        """
        if scheme.kind is not SchemeKind.RING:
            raise ParameterError("compression", f"{scheme.kind.value} has no state")
        matrices = [_is_projected(shape, scheme) for shape in shapes]
        bases: list[Bases | None] = [None] * len(shapes)
        for index in (i for i, projected in enumerate(matrices) if projected):
            rows, columns = shapes[index]
            if max(rows, columns) > MAX_SIDE:
                raise ParameterError("shapes", f"a side may have at most {MAX_SIDE} coordinates")
            rank = scheme.rank(rows, columns) // 2
            bases[index] = Bases(
                first_basis(rows, rank, _context(0, index, b"left")),
                first_basis(columns, rank, _context(0, index, b"right")),
            )
        ranges = [FIRST_PROJECTED_RANGE] * (2 * sum(matrices)) + [FIRST_RANGE] * (not all(matrices))
        levels = levels_for(scheme.value_bits, clients, noise_tail)
        named = tuple(tuple(int(side) for side in shape) for shape in shapes)
        lifts = tuple(None if sides is None else np.zeros(sides.left.shape, np.int32) for sides in bases)
        return cls(named, scheme, clients, levels, tuple(max_counters), 0, tuple(ranges), tuple(bases), lifts)

    def codec(self) -> CompressedCodec:
        """Return the encoding of the next sum."""
        parts, group = [], 0
        for shape, bases in zip(self.shapes, self.bases, strict=True):
            if bases is None:
                parts.append(Part((int(np.prod(shape)), 1), len(self.ranges) - 1, None))
            else:
                parts.append(Part((shape[0], shape[1]), group, bases))
                group += 2
        return CompressedCodec(parts, self.ranges, self.levels, max_counters=self.max_counters)

    def advance(
        self, codec: CompressedCodec, public: NDArray[np.int64], survivors: int, lifts: Lifts
    ) -> "CompressionState":
        """Return the state after a sum was opened.

        Args:
            codec: The encoding of that sum: `self.codec()`.
            public: int64[codec.public_length], the public part of the sum.
            survivors: How many clients are in it.
            lifts: `codec.lifts` of it.
        """
        step = self.step + 1
        columns, contexts, projected = [], [], []
        for index, (part, sums) in enumerate(zip(codec.parts, codec.centred(public, survivors), strict=True)):
            if part.bases is not None:
                ratio = codec.ranges[part.group] / codec.ranges[part.group + 1]
                left, right = part.bases.left, part.bases.right
                to_right, to_left = seen_from_both_sides(sums[0], sums[1], ratio, survivors * self.levels, right, left)
                columns += [to_left, to_right]
                contexts += [_context(step, index, b"left"), _context(step, index, b"right")]
                projected.append(index)
        found = bases_of(columns, contexts)
        bases: list[Bases | None] = list(self.bases)
        for place, index in enumerate(projected):
            bases[index] = Bases(*found[2 * place : 2 * place + 2])
        clamped = codec.clamped_of(public)
        ranges = [
            next_range(r, count, survivors * size)
            for r, count, size in zip(self.ranges, clamped, codec.group_sizes, strict=True)
        ]
        for part in codec.parts if self.step == 0 else ():
            if part.bases is not None:
                ranges[part.group : part.group + 2] = second_ranges(part.shape[1], part.bases.right.shape[1])
        return self.at(step, tuple(ranges), tuple(bases), lifts)

    def at(
        self, step: int, ranges: tuple[float, ...], bases: tuple[Bases | None, ...], lifts: Lifts
    ) -> "CompressionState":
        """Return the state of another step of the same federation."""
        return replace(self, step=step, ranges=ranges, bases=bases, lifts=lifts)

    @property
    def server_step(self) -> np.float32:
        """What a sum moves the model by, in mean updates: 1, or more where something is projected."""
        return _SERVER_STEP if any(bases is not None for bases in self.bases) else np.float32(1)

    @property
    def basis_shapes(self) -> tuple[tuple[tuple[int, int], tuple[int, int]] | None, ...]:
        """The shapes of each tensor's left and right basis, None where there is none."""
        return tuple(None if bases is None else (bases.left.shape, bases.right.shape) for bases in self.bases)


def _is_projected(shape: Sequence[int], scheme: Scheme) -> bool:
    """A matrix that the subspace makes smaller; everything else is sent as it is."""
    return len(shape) == 2 and 0 < 2 * scheme.rank(shape[0], shape[1]) <= min(shape)


def _context(step: int, index: int, side: bytes) -> bytes:
    return Label.ENCODING.encoded + b"basis" + side + step.to_bytes(8, "little") + index.to_bytes(4, "little")
