"""The download: the opened sums since a step that everybody has, or the whole model; from either the model follows.

The payload of a round is one and the same for all clients, since it goes into the session id. It begins with the oldest
step that some client of the cohort may be at; each client applies the sums that it misses and must arrive at the model
whose digest the payload names. Before the first sum everybody has the initial model, which follows from the
configuration. Every format is in SPEC.md, "Download".
"""

import hashlib
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.errors import DecodeError
from protocols.wire import MAX_COORDINATES, Reader, u8, u32

Vector = NDArray[np.float32]

MAGIC = b"SFD1"
_STEPS, _WHOLE = 0, 1
_WIDTHS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One opened sum, as far as the model depends on it.

    Attributes:
        survivors: How many clients are in it.
        public: int64[n], the sums of values and clamp counters; no counter of the caller is among them.
    """

    survivors: int
    public: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PackedStep:
    """One opened sum as it travels: it stays packed until it is applied, so that what comes in is no larger than it is.

    Attributes:
        survivors: How many clients are in it.
        length: Number of coordinates that the sender announces.
        least: What is added to every distance.
        width: Bytes of a distance.
        packed: zlib data of the distances.
    """

    survivors: int
    length: int
    least: int
    width: int
    packed: bytes

    @classmethod
    def of(cls, step: Step) -> "PackedStep":
        """Pack a sum: distances from the least value, byte planes, Huffman codes."""
        least = int(step.public.min())
        distances = step.public - least
        width = next(w for w in _WIDTHS if int(distances.max()) < 1 << 8 * w)
        return cls(step.survivors, len(distances), least, width, deflate(distances.astype(_WIDTHS[width])))

    def encode(self) -> bytes:
        """Return the sum's bytes."""
        least = self.least.to_bytes(8, "little", signed=True)
        return u32(self.survivors) + u32(self.length) + least + u8(self.width) + u32(len(self.packed)) + self.packed

    def unpack(self, public_length: int, clients: int) -> Step:
        """Return the sum; nothing is inflated unless it can be one of this federation.

        Args:
            public_length: Coordinates of a sum, as the receiver knows it.
            clients: Size of the largest cohort, as the receiver knows it.

        Raises:
            DecodeError: It is of another length or of more clients, or its numbers are none.
        """
        if self.length != public_length or self.survivors > clients:
            raise DecodeError("a sum has another length, or more clients, than this federation")
        distances = inflate(self.packed, _WIDTHS[self.width], public_length)
        if self.width == 8 and int(distances.max()) >> 62:
            raise DecodeError("a sum is too large")
        return Step(self.survivors, distances.astype(np.int64) + self.least)


@dataclass(frozen=True, slots=True, eq=False)
class Download:
    """What a payload says.

    Attributes:
        base: Steps before the first sum in here; with `whole` the step of that model.
        model_digest: 32 bytes; SHA-256 of the resulting model's little-endian float32 bytes.
        steps: Opened sums, oldest first, packed.
        whole: The model instead of sums: packed bytes that `Replica` reads.
    """

    base: int
    model_digest: bytes
    steps: tuple[PackedStep, ...] = ()
    whole: bytes | None = None

    @property
    def target(self) -> int:
        """Number of sums behind the resulting model."""
        return self.base + len(self.steps)


def model_digest(vector: Vector) -> bytes:
    """Return the SHA-256 of a model's little-endian float32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).digest()


def encode_download(download: Download) -> bytes:
    """Return the payload's bytes."""
    kind = _STEPS if download.whole is None else _WHOLE
    head = MAGIC + u8(kind) + u32(download.base) + download.model_digest
    if download.whole is not None:
        return head + u32(len(download.whole)) + download.whole
    return head + u32(len(download.steps)) + b"".join(step.encode() for step in download.steps)


def decode_download(data: bytes | memoryview) -> Download:
    """Read a payload; its sums stay packed.

    Raises:
        DecodeError: The bytes are none.
    """
    reader = Reader(data)
    if reader.take(len(MAGIC)) != MAGIC:
        raise DecodeError("the payload is no compressed download")
    kind, base, digest = reader.u8(), reader.u32(), reader.take(32)
    if kind == _WHOLE:
        whole = reader.take(reader.u32())
        reader.done()
        return Download(base, digest, (), whole)
    if kind != _STEPS:
        raise DecodeError("unknown kind of download")
    steps = tuple(_parse_step(reader) for _ in range(reader.u32()))
    reader.done()
    return Download(base, digest, steps)


def deflate(values: NDArray[np.generic], strategy: int = zlib.Z_HUFFMAN_ONLY) -> bytes:
    """Return numbers as zlib data: first all low bytes, then all second bytes, and so on."""
    planes = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1).T
    packer = zlib.compressobj(level=6, strategy=strategy)
    return packer.compress(planes.tobytes()) + packer.flush()


def inflate(data: bytes, dtype: str, count: int) -> NDArray[np.generic]:
    """Undo `deflate`, never allocating more than `count` numbers.

    Raises:
        DecodeError: The data is not exactly that many numbers.
    """
    size = count * np.dtype(dtype).itemsize
    reader = zlib.decompressobj()
    try:
        plain = reader.decompress(data, size + 1)
    except zlib.error as error:
        raise DecodeError("the download does not inflate") from error
    if len(plain) != size or not reader.eof or reader.unused_data:
        raise DecodeError("the download inflates to another size")
    planes = np.frombuffer(plain, dtype=np.uint8).reshape(-1, count)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(-1)


def _parse_step(reader: Reader) -> PackedStep:
    survivors, length = reader.u32(), reader.u32()
    least = int.from_bytes(reader.take(8), "little", signed=True)
    width, packed = reader.u8(), reader.take(reader.u32())
    if width not in _WIDTHS or not 1 <= length <= MAX_COORDINATES or not survivors:
        raise DecodeError("a sum of that width, length or number of clients cannot be")
    if abs(least) >> 62:
        raise DecodeError("a sum is too large")
    return PackedStep(survivors, length, least, width, packed)
