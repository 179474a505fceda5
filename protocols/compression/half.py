"""The published compression, float16 + zlib: for rounds without secure aggregation, where the server sees every update.

Masked vectors are uniform, so that zlib finds nothing in them; this encoding therefore has a round of its own, in
clear. A float16 is a multiple of 2**-24: contributions add up exactly, as integers, in whatever order they come.
"""

import hashlib
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from protocols.client.session import Contribute, RoundContext
from protocols.compression.download import deflate, inflate
from protocols.errors import (
    DecodeError,
    DtypeError,
    NonFiniteError,
    ProtocolError,
    ShapeError,
    TooFewSurvivorsError,
)
from protocols.labels import Label
from protocols.messages import FrameKind
from protocols.parameters import RoundParameters
from protocols.plain import NO_SESSION, STAGE, Attendance, PlainClient, ask_in_clear
from protocols.result import Direction, FrameRecord, Rejection, RoundResult, refusals
from protocols.roster import Roster
from protocols.transport import DEFAULT_PATIENCE, Patience, Transport
from protocols.vectors import Aggregate
from protocols.wire import HEADER_BYTES, FrameType, Header, Reader, decode_frame, encode_frame, u16, u32

_UNIT = 2.0**-24
_OFFSET = 1 << 40
"""Every finite float16 is an integer of absolute value below 2**40 times 2**-24."""
_RING_BITS = 62


class HalfCodec:
    """Float16 coordinates, then one counter of 16 bits.

    Args:
        dimension: Coordinates of an update.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    @property
    def vector_length(self) -> int:
        """Coordinates with the counter."""
        return self.dimension + 1

    @property
    def max_coordinate(self) -> int:
        """Largest integer of a coordinate."""
        return 2 * _OFFSET

    @property
    def digest(self) -> bytes:
        """SHA-256 of the public description."""
        return hashlib.sha256(Label.ENCODING.encoded + b"float16-zlib" + u32(self.dimension)).digest()

    def encode(self, update: NDArray[np.float32], counter: int) -> bytes:
        """Return the body of the reply: counter, length, zlib data of the float16 coordinates.

        Raises:
            ShapeError, DtypeError, NonFiniteError: The update is not a float32[dimension] that float16 can hold.
        """
        if update.shape != (self.dimension,):
            raise ShapeError((self.dimension,), update.shape)
        if update.dtype != np.float32:
            raise DtypeError("float32", str(update.dtype))
        fits = np.abs(update) < 65_520  # False for NaN too
        if not fits.all():
            bad = np.flatnonzero(~fits)
            raise NonFiniteError(len(bad), int(bad[0]))
        packed = deflate(update.astype("<f2"), zlib.Z_DEFAULT_STRATEGY)
        return u16(counter) + u32(len(packed)) + packed

    def decode(self, body: bytes | memoryview) -> NDArray[np.int64]:
        """Return int64[dimension + 1], coordinates in units of 2**-24 and the counter.

        Raises:
            DecodeError: The body is of another codec.
        """
        reader = Reader(body)
        counter, packed = reader.u16(), reader.take(reader.u32())
        reader.done()
        values = inflate(packed, "<f2", self.dimension).astype(np.float64)
        if not np.isfinite(values).all():
            raise DecodeError("a coordinate is NaN or infinite")
        return np.append((values / _UNIT).astype(np.int64), counter)

    def decode_sum(self, total: Aggregate, num_survivors: int) -> NDArray[np.float64]:
        """Return float64[dimension], the exact sum of the survivors' float16 updates."""
        units = total.integers()[:-1] - num_survivors * _OFFSET
        return units.astype(np.float64) * _UNIT

    def decode_counter(self, total: Aggregate) -> int:
        """Return the sum of the counters."""
        return int(total.integers()[-1])


class HalfClient(PlainClient):
    """A client of such rounds, and of the plain ones beside them: the parameters say which of the two a round is.

    Args:
        name: Its name in the roster.
        contribute: Trains and encodes as integers.
        codec: The encoding.
        compress: Trains and encodes as float16.
    """

    def __init__(
        self, name: str, contribute: Contribute, codec: HalfCodec, compress: Callable[[RoundContext], bytes]
    ) -> None:
        super().__init__(name, contribute)
        self._codec = codec
        self._compress = compress

    def _reply(self, context: RoundContext) -> bytes:
        if context.parameters.encoding_digest != self._codec.digest:
            return super()._reply(context)
        return encode_frame(Header(FrameType.PLAIN_INPUT_REPLY, context.round, NO_SESSION), self._compress(context))


def run_half_round(
    codec: HalfCodec,
    parameters: RoundParameters,
    roster: Roster,
    payload: bytes,
    transport: Transport,
    patience: Patience = DEFAULT_PATIENCE,
) -> RoundResult:
    """Gather and add float16 updates in clear.

    Raises:
        TooFewSurvivorsError: Nobody answered.
    """
    names, frames, replies = ask_in_clear(parameters, roster, payload, transport, patience)
    total = np.zeros(codec.vector_length, dtype=np.int64)
    heard: set[str] = set()
    rejections: list[Rejection] = []
    attendance = Attendance(names, parameters.round)
    for name, reply in replies:
        body = 0
        try:
            attendance.check(name, reply, _limit(codec))
            total += _take(codec, reply)
            heard.add(name)
            body = len(reply) - HEADER_BYTES
        except ProtocolError as error:
            rejections.append(Rejection(name, STAGE, error))
        if name in names:
            for kind, size in ((FrameKind.PAYLOAD, body), (FrameKind.OVERHEAD, len(reply) - body)):
                if size:
                    frames.append(FrameRecord(name, Direction.UP, STAGE, kind, size))
    if not heard:
        raise TooFewSurvivorsError(STAGE, 0, 1, refusals(rejections), frames)
    total[:-1] += len(heard) * _OFFSET
    survivors = tuple(name for name in names if name in heard)
    dropouts = {name: STAGE for name in names if name not in heard}
    opened = Aggregate(total.astype(np.uint64), _RING_BITS, len(heard))
    return RoundResult(opened, survivors, dropouts, tuple(frames), tuple(rejections), {}, parameters, NO_SESSION)


def _limit(codec: HalfCodec) -> int:
    """Largest reply in bytes."""
    return HEADER_BYTES + 64 + 3 * codec.dimension


def _take(codec: HalfCodec, reply: bytes) -> NDArray[np.int64]:
    header, reader = decode_frame(reply, _limit(codec))
    if header.type is not FrameType.PLAIN_INPUT_REPLY:
        raise DecodeError("another type of frame than expected here")
    return codec.decode(reader.view(len(reply) - HEADER_BYTES))
