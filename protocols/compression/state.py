"""What everybody knows of a compressed federation: step, ranges and bases, all from opened sums."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocols.compression.basis import MAX_SIDE, Basis, first_basis, next_basis
from protocols.compression.codec import CompressedCodec, Part
from protocols.compression.ranges import FIRST_PROJECTED_RANGE, FIRST_RANGE, next_range
from protocols.compression.scheme import Scheme, SchemeKind
from protocols.errors import ParameterError
from protocols.labels import Label
from protocols.ring import required_ring_bits


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
        levels: L.
        max_counters: Largest values of the caller's counters.
        step: Opened sums so far.
        ranges: Range of each group; a projected matrix is a group of its own, all other tensors are one, the last.
        bases: Basis of each tensor for the next step, None for tensors that are sent as they are.
    """

    shapes: tuple[tuple[int, ...], ...]
    scheme: Scheme
    levels: int
    max_counters: tuple[int, ...]
    step: int
    ranges: tuple[float, ...]
    bases: tuple[Basis | None, ...]

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
        bases: list[Basis | None] = [None] * len(shapes)
        for index in (i for i, projected in enumerate(matrices) if projected):
            rows, columns = shapes[index]
            if max(rows, columns) > MAX_SIDE:
                raise ParameterError("shapes", f"a side may have at most {MAX_SIDE} coordinates")
            bases[index] = first_basis(columns, scheme.rank(rows, columns), _context(0, index))
        ranges = [FIRST_PROJECTED_RANGE] * sum(matrices) + [FIRST_RANGE] * (not all(matrices))
        levels = levels_for(scheme.value_bits, clients, noise_tail)
        named = tuple(tuple(int(side) for side in shape) for shape in shapes)
        return cls(named, scheme, levels, tuple(max_counters), 0, tuple(ranges), tuple(bases))

    def codec(self) -> CompressedCodec:
        """Return the encoding of the next sum."""
        parts, projected = [], 0
        for shape, basis in zip(self.shapes, self.bases, strict=True):
            if basis is None:
                parts.append(Part((int(np.prod(shape)), 1), len(self.ranges) - 1, True, None))
            else:
                parts.append(Part((shape[0], shape[1]), projected, self.step % 2 == 0, basis))
                projected += 1
        return CompressedCodec(parts, self.ranges, self.levels, max_counters=self.max_counters)

    def advance(self, codec: CompressedCodec, public: NDArray[np.int64], survivors: int) -> "CompressionState":
        """Return the state after a sum was opened.

        Args:
            codec: The encoding of that sum: `self.codec()`.
            public: int64[codec.public_length], the public part of the sum.
            survivors: How many clients are in it.
        """
        step = self.step + 1
        bases: list[Basis | None] = list(self.bases)
        for index, (part, sums) in enumerate(zip(codec.parts, codec.centred(public, survivors), strict=True)):
            if part.basis is not None:
                bases[index] = next_basis(sums, survivors * self.levels, _context(step, index))
        clamped = codec.clamped_of(public)
        ranges = tuple(
            next_range(r, count, survivors * size)
            for r, count, size in zip(self.ranges, clamped, codec.group_sizes, strict=True)
        )
        return self.at(step, ranges, tuple(bases))

    def at(self, step: int, ranges: tuple[float, ...], bases: tuple[Basis | None, ...]) -> "CompressionState":
        """Return the state of another step of the same federation."""
        return CompressionState(self.shapes, self.scheme, self.levels, self.max_counters, step, ranges, bases)

    def basis_shapes(self, step: int) -> tuple[tuple[int, int] | None, ...]:
        """Return the shape of each tensor's basis at a step, None where there is no basis."""
        return tuple(
            None if basis is None else (shape[1] if step % 2 == 0 else shape[0], basis.shape[1])
            for shape, basis in zip(self.shapes, self.bases, strict=True)
        )


def _is_projected(shape: Sequence[int], scheme: Scheme) -> bool:
    """A matrix that the subspace makes smaller; everything else is sent as it is."""
    return len(shape) == 2 and 0 < 2 * scheme.rank(shape[0], shape[1]) <= min(shape)


def _context(step: int, index: int) -> bytes:
    return Label.ENCODING.encoded + b"basis" + step.to_bytes(8, "little") + index.to_bytes(4, "little")
