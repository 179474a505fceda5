"""What can be asked for: `none`, `float16-zlib`, `auto`, or `ring:BITS[,subspace:FRACTION]`."""

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from protocols.codec import MAX_VALUE_BITS, MIN_VALUE_BITS
from protocols.errors import ParameterError

_RING = re.compile(r"ring:(?P<bits>[0-9]+)(,subspace:(?P<fraction>[0-9]*\.?[0-9]+))?")


class SchemeKind(StrEnum):
    """Ways to encode an update."""

    NONE = "none"
    FLOAT16_ZLIB = "float16-zlib"
    RING = "ring"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to encode updates.

    Attributes:
        kind: Which way.
        value_bits: Bits v of a coordinate, 2 to 22 (`ring` only, else 0).
        fraction: Share of a matrix's coordinates that are sent, above 0 and at most 1; 1 sends all (`ring` only).

    Raises:
        ParameterError: A number is out of its range.
    """

    kind: SchemeKind
    value_bits: int = 0
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.kind is SchemeKind.RING and not MIN_VALUE_BITS <= self.value_bits <= MAX_VALUE_BITS:
            raise ParameterError("ring", f"{self.value_bits} bits: use {MIN_VALUE_BITS} to {MAX_VALUE_BITS}")
        if not 0 < self.fraction <= 1:
            raise ParameterError("subspace", f"{self.fraction}: use a share above 0 and at most 1")

    def __str__(self) -> str:
        if self.kind is not SchemeKind.RING:
            return self.kind.value
        return f"ring:{self.value_bits}" + (f",subspace:{self.fraction:g}" if self.fraction < 1 else "")

    def rank(self, rows: int, columns: int) -> int:
        """Return how many rows and columns a matrix is sent as, half by half; 0 where it is sent as it is.

        The largest power of two that is not above `fraction` times the shorter side, at least 2.
        """
        shorter = min(rows, columns)
        if self.fraction >= 1 or shorter < 4:
            return 0
        return 1 << max(1, math.floor(math.log2(max(1.0, self.fraction * shorter))))


def parse_scheme(text: str) -> Scheme:
    """Read a scheme.

    Raises:
        ParameterError: The text is none.
    """
    for kind in (SchemeKind.NONE, SchemeKind.FLOAT16_ZLIB, SchemeKind.AUTO):
        if text == kind.value:
            return Scheme(kind)
    match = _RING.fullmatch(text)
    if match is None:
        raise ParameterError("compression", f"{text!r}: use none, auto, float16-zlib or ring:BITS[,subspace:FRACTION]")
    return Scheme(SchemeKind.RING, int(match["bits"]), float(match["fraction"] or 1))
