"""Secrets as classes with a role: they never print, pickle, copy or hash, compare in constant time and can be erased.

Erasing overwrites the bytes that this object holds. Python cannot promise more: copies that libraries, the interpreter
or the operating system made of them stay until their memory is reused (SPEC.md, "Security notes").
"""

import hmac
from typing import ClassVar, NoReturn, Self

from protocols.errors import SpentError


class Secret:
    """Bytes of one role. Two roles never compare equal and are never accepted for each other."""

    __slots__ = ("_bytes", "_erased")
    __hash__: ClassVar[None]  # type: ignore[assignment]
    length: ClassVar[int] = 32

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) != self.length:
            raise ValueError(f"{type(self).__name__} takes {self.length} bytes")
        self._bytes = bytearray(data)
        self._erased = False

    def expose(self) -> bytes:
        """Return the bytes, for the one computation that needs them.

        Raises:
            SpentError: The secret was erased.
        """
        if self._erased:
            raise SpentError(type(self).__name__)
        return bytes(self._bytes)

    def erase(self) -> None:
        """Overwrite the bytes; later uses raise."""
        self._bytes[:] = bytes(len(self._bytes))  # in place: the length does not change
        self._erased = True

    @property
    def is_erased(self) -> bool:
        """Whether the bytes are gone."""
        return self._erased

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not isinstance(other, Secret):
            return False
        return hmac.compare_digest(self.expose(), other.expose())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is never pickled or copied")

    def __copy__(self) -> Self:
        raise TypeError(f"{type(self).__name__} is never pickled or copied")

    def __deepcopy__(self, memo: object) -> Self:
        raise TypeError(f"{type(self).__name__} is never pickled or copied")


Secret.__hash__ = None


class SelfMaskSeed(Secret):
    """Expands to the self mask of one client in one session; shared t-of-n."""

    __slots__ = ()


class MaskKey(Secret):
    """X25519 private key from which a client's pairwise masks come; shared t-of-n."""

    __slots__ = ()


class ChannelKey(Secret):
    """X25519 private key that protects shares on their way to their holders; never leaves the client."""

    __slots__ = ()


class PairwiseSeed(Secret):
    """AES-256 key of the pad between two clients."""

    __slots__ = ()


class SelfMaskPadKey(Secret):
    """AES-256 key of a client's self mask."""

    __slots__ = ()


class SealingKey(Secret):
    """AES-256-GCM key for the shares from one client to one other."""

    __slots__ = ()


class GraphNonce(Secret):
    """A client's contribution to the order of the ring; secret until it is revealed."""

    __slots__ = ()


class SelfMaskShare(Secret):
    """One holder's share of a self-mask seed: nine field elements of four bytes."""

    __slots__ = ()
    length = 36


class MaskKeyShare(Secret):
    """One holder's share of a mask key: nine field elements of four bytes."""

    __slots__ = ()
    length = 36


class NoiseSeed(Secret):
    """Expands to noise in the sense of differential privacy; whoever knows it can take that noise out of a sum."""

    __slots__ = ()


class NoiseShare(Secret):
    """One holder's share of a noise seed: nine field elements of four bytes."""

    __slots__ = ()
    length = 36
