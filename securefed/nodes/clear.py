"""The site's client of rounds without secure aggregation."""

from collections.abc import Callable

from protocols.client.session import RoundContext
from protocols.compression.half import HalfClient
from protocols.errors import ProtocolError
from protocols.messages import PlainInputRequest, decode_message
from protocols.messages.limits import FIRST_REQUEST_LIMIT
from protocols.parameters import RoundParameters
from protocols.plain import PlainClient
from protocols.vectors import EncodedVector
from securefed.channels import HalfSite
from securefed.compression import SiteChannel


class ClientInClear:
    """The client of rounds without secure aggregation: the parameters say which of the two kinds a round is.

    Args:
        name: The site.
        contribute: Trains and encodes as integers.
        compress: Trains and encodes as float16.
        channel: The site's half of the channel.
    """

    def __init__(
        self,
        name: str,
        contribute: Callable[[RoundContext], EncodedVector],
        compress: Callable[[RoundContext], bytes],
        channel: SiteChannel | HalfSite,
    ) -> None:
        self._plain = PlainClient(name, contribute)
        self._half = HalfClient(name, channel.codec, compress) if isinstance(channel, HalfSite) else None

    def answer(self, stage: str, data: bytes) -> bytes:
        """Return the contribution, or a refusal."""
        if self._half is not None and _is_of(data, self._half.codec.digest):
            return self._half.answer(stage, data)
        return self._plain.answer(stage, data)


def _is_of(data: bytes, encoding: bytes) -> bool:
    """Return whether a request names an encoding."""
    try:
        _, request = decode_message(PlainInputRequest, data, FIRST_REQUEST_LIMIT)
        return RoundParameters.decode(request.parameters).encoding_digest == encoding
    except ProtocolError:
        return False  # the plain client says what is wrong with it
