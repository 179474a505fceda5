"""The bytes of a site node's state: one safetensors file in memory. It stays at the site (SECURITY.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from protocols.errors import DecodeError
from securefed.nodes.memory import RoundMemory
from securefed.run_folder import Arrays

_FORMAT: Final = b"securefed-site-state/2"


@dataclass(frozen=True)
class SiteState:
    """A site node between two messages.

    Attributes:
        study: 32 bytes that every round is bound to.
        run_id: The run in progress, "" before the first.
        client: Dump of the client machine; empty without secure aggregation.
        channel: State of the site's half of the channel.
        hospital: The hospital's private state.
        memory: States after earlier rounds.
    """

    study: bytes
    run_id: str
    client: bytes
    channel: Arrays
    hospital: Arrays
    memory: RoundMemory

    def encode(self) -> bytes:
        """Return the bytes."""
        arrays: dict[str, NDArray[Any]] = {
            "format": _bytes(_FORMAT),
            "study": _bytes(self.study),
            "run": _bytes(self.run_id.encode()),
            "client": _bytes(self.client),
        }
        for part, values in (("channel", self.channel), ("hospital", self.hospital), ("memory", self.memory.encode())):
            arrays |= {f"{part}/{name}": np.asarray(array, order="C") for name, array in values.items()}
        return save(arrays)

    @staticmethod
    def study_of(data: bytes) -> str:
        """Return the digest (hex) of the study that a state belongs to; "" where the bytes are none."""
        try:
            return load(data)["study"].tobytes().hex()
        except (SafetensorError, KeyError, ValueError):
            return ""

    @classmethod
    def decode(cls, data: bytes, study: bytes) -> Self:
        """Read a state.

        Raises:
            DecodeError: The bytes are none, or of another study.
        """
        try:
            arrays = load(data)
            if arrays["format"].tobytes() != _FORMAT:
                raise DecodeError("a site's state of another version; end the study with that one")
            if arrays["study"].tobytes() != study:
                raise DecodeError("a site's state of another study")
            return cls(
                study,
                arrays["run"].tobytes().decode(),
                arrays["client"].tobytes(),
                _part(arrays, "channel"),
                _part(arrays, "hospital"),
                RoundMemory.decode(_part(arrays, "memory")),
            )
        except (SafetensorError, KeyError, ValueError, IndexError) as error:
            raise DecodeError("not a site's state") from error


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _part(arrays: Mapping[str, NDArray[Any]], part: str) -> Arrays:
    return {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{part}/")}
