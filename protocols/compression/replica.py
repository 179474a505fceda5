"""A copy of the global model that follows the opened sums: at the server and, from downloads, at every client."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.compression.basis import is_orthonormal
from protocols.compression.download import (
    Download,
    PackedStep,
    Step,
    decode_download,
    deflate,
    encode_download,
    inflate,
    model_digest,
)
from protocols.compression.parts import Bases, Lifts
from protocols.compression.state import CompressionState
from protocols.errors import DecodeError, SessionMismatchError
from protocols.wire import Reader, u32

Vector = NDArray[np.float32]

_UNKNOWN = -1
"""Step of a client that was not heard since the server was restarted."""


class Replica:
    """The model and the public state of the encoding.

    Args:
        vector: float32[d], the model.
        state: The encoding's state at that model.
    """

    def __init__(self, vector: Vector, state: CompressionState) -> None:
        self.vector = vector
        self.state = state
        self._first: tuple[int, Lifts] | None = None
        """The first sum that this copy applied: only that one can contain what its site had on its way."""

    @property
    def step(self) -> int:
        """Number of sums behind the model."""
        return self.state.step

    def apply(self, step: Step) -> Vector:
        """Move by one opened sum and return by how much, float32[d]: `server_step` times the mean update.

        Raises:
            ShapeError: The sum is of another encoding.
        """
        codec = self.state.codec()
        mean, lifts = codec.mean_and_lifts(step.public, step.survivors)
        move = mean * self.state.server_step
        self.vector = self.vector + move
        self._first = self._first or (self.step, lifts)
        self.state = self.state.advance(codec, step.public, step.survivors, lifts)
        return move

    def lifts(self, step: int) -> Lifts | None:
        """Return the lifts of the first or last sum of the newest download, None if that is not the one from `step`."""
        if step == self.step - 1:
            return self.state.lifts
        return self._first[1] if self._first is not None and self._first[0] == step else None

    def copy(self) -> "Replica":
        """Return a copy that follows on its own."""
        copy = Replica(self.vector, self.state)
        copy._become(self)
        return copy

    def _become(self, other: "Replica") -> None:
        self.vector, self.state, self._first = other.vector, other.state, other._first  # noqa: SLF001 (of its own class)

    def receive(self, payload: bytes | memoryview) -> Vector:
        """Follow a download and return the model float32[d]; on an error nothing has changed.

        Raises:
            DecodeError: The bytes are no download of this federation, or begin after this copy's step.
            SessionMismatchError: They lead to another model than they name.
        """
        download = decode_download(payload)
        following = Replica(self.vector, self.state)
        if download.whole is not None:
            following = _read_whole(download, self.state)
        else:
            missing = self.step - download.base
            if not 0 <= missing <= len(download.steps):
                raise DecodeError("the download does not continue this copy of the model")
            length = self.state.codec().public_length
            for step in download.steps[missing:]:
                following.apply(step.unpack(length, self.state.clients))
        if model_digest(following.vector) != download.model_digest:
            raise SessionMismatchError("the server")
        self._become(following)
        return self.vector


class DownloadHistory:
    """The server's side: the model, the sums that some client may still miss, and who is known to have what.

    A client is known to have the model of a round if its vector is in the sum that began with it.

    Args:
        replica: The server's copy.
        clients: Names of all clients.
        known: Whether every client has the model of that copy. If not, whole models are sent until all were heard.
    """

    def __init__(self, replica: Replica, clients: tuple[str, ...], *, known: bool = True) -> None:
        self.replica = replica
        self._steps: list[PackedStep] = []
        self._has = dict.fromkeys(clients, replica.step if known else _UNKNOWN)

    def payload(self) -> bytes:
        """Return the next round's payload: sums, or the whole model where that is shorter."""
        digest = model_digest(self.replica.vector)
        base = min(self._has.values())
        missing = self.replica.step - base
        steps = tuple(self._steps[len(self._steps) - missing :]) if missing <= len(self._steps) else ()
        if base == _UNKNOWN:
            return encode_download(Download(self.replica.step, digest, (), _write_whole(self.replica)))
        if len(steps) < 2 or sum(len(step.encode()) for step in steps) < self.replica.vector.nbytes:
            return encode_download(Download(base, digest, steps))
        return encode_download(Download(self.replica.step, digest, (), _write_whole(self.replica)))

    def opened(self, step: Step, survivors: tuple[str, ...]) -> Vector:
        """Move the model by an opened sum and return by how much, float32[d]."""
        self.seen(survivors)
        move = self.replica.apply(step)
        self._steps.append(PackedStep.of(step))
        del self._steps[: max(0, len(self._steps) - (self.replica.step - min(self._has.values())))]
        return move

    def seen(self, survivors: tuple[str, ...]) -> None:
        """Note who has the present model."""
        self._has |= dict.fromkeys(survivors, self.replica.step)


def _write_whole(replica: Replica) -> bytes:
    state = replica.state
    ranges = np.asarray(state.ranges, dtype="<f8").tobytes()
    sides = [side for bases in state.bases if bases is not None for side in (bases.left, bases.right)]
    bases = b"".join(side.astype("<i2").tobytes() for side in sides)
    lifts = b"".join(lifted.astype("<i4").tobytes() for lifted in state.lifts if lifted is not None)
    packed = deflate(replica.vector.astype("<f4"))
    return ranges + bases + lifts + u32(len(packed)) + packed


def _read_whole(download: Download, state: CompressionState) -> Replica:
    assert download.whole is not None  # noqa: S101 (narrows the type)
    reader = Reader(download.whole)
    ranges = struct.unpack(f"<{len(state.ranges)}d", reader.take(8 * len(state.ranges)))
    if not all(np.isfinite(r) and r > 0 for r in ranges):
        raise DecodeError("a range is not positive and finite")
    bases = tuple(
        None if shapes is None else Bases(*(_read(reader, shape, "<i2").astype(np.int16) for shape in shapes))
        for shapes in state.basis_shapes
    )
    if not all(is_orthonormal(side) for sides in bases if sides is not None for side in (sides.left, sides.right)):
        raise DecodeError("a basis is not orthonormal")
    lifts = tuple(
        None if shapes is None else _read(reader, shapes[0], "<i4").astype(np.int32) for shapes in state.basis_shapes
    )
    dimension = sum(int(np.prod(shape)) for shape in state.shapes)
    vector = inflate(reader.take(reader.u32()), "<f4", dimension).astype(np.float32)
    reader.done()
    return Replica(vector, state.at(download.base, ranges, bases, lifts))


def _read(reader: Reader, shape: tuple[int, int], dtype: str) -> NDArray[Any]:
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    return np.frombuffer(reader.take(size), dtype=dtype).reshape(shape)
