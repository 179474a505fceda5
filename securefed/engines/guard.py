"""What leaves a site's handler when something unexpected breaks: a refusal, never the exception.

Engines send an exception's text, and FLARE its traceback, to the server. Neither may leave a hospital.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from protocols.errors import DecodeError, ProtocolError
from protocols.messages import Refusal, encode_message
from protocols.transport import Handler
from protocols.wire import decode_frame
from securefed.nodes.control import ControlStage, encode_refusal
from securefed.nodes.numbering import training_round

_NO_SESSION: Final = bytes(32)
_CONTROL: Final = frozenset(stage.value for stage in ControlStage)

_log = logging.getLogger("securefed.site")


class Guarded:
    """A node behind a door: opened at the first request, one request at a time, and no exception gets out.

    Whatever goes wrong becomes a refusal without a word of its cause. The site's own log names the class of the error;
    the trace goes there at debug level only, since exceptions of numerical code may quote values. Every answer is a
    line of that log: stage, round, bytes of request and reply, seconds.

    Args:
        open_node: Opens the node; tried again at the next request if it fails.
    """

    def __init__(self, open_node: Callable[[], Handler]) -> None:
        self._open = open_node
        self._node: Handler | None = None
        self._one_at_a_time = threading.Lock()

    def answer(self, stage: object, data: object) -> bytes:
        """Return the node's reply to what an engine delivered, or a refusal."""
        with self._one_at_a_time:
            try:
                if not isinstance(stage, str) or not isinstance(data, bytes):
                    raise DecodeError("an engine delivers a stage's name and bytes")
                if self._node is None:
                    self._node = self._open()
                return _noted(self._node, stage, data)
            except Exception as error:  # noqa: BLE001 (engines would send its text to the server)
                return refusal(error, stage)


def _noted(node: Handler, stage: str, request: bytes) -> bytes:
    """Return the node's reply and write a line on it, in which no free text from a transport is quoted."""
    start = time.perf_counter()
    reply = node.answer(stage, request)
    seconds = round(time.perf_counter() - start, 4)
    numbers: dict[str, object] = {"received_bytes": len(request), "sent_bytes": len(reply), "seconds": seconds}
    with contextlib.suppress(DecodeError):  # messages beside the rounds are no frames
        numbers["round"] = training_round(decode_frame(request, len(request))[0].round)
    _log.info("answered %s", stage if stage.isalpha() else "an unknown stage", extra={"numbers": numbers})
    return reply


def refusal(error: Exception, stage: object = "") -> bytes:
    """Log an error's class here and return the frame that stands for it at a stage: a code and nothing of its cause."""
    _log.error("request refused: %s", type(error).__name__)
    _log.debug("the cause", exc_info=error)
    if isinstance(stage, str) and stage in _CONTROL:
        return encode_refusal("fault", "something broke at the site; its own log says what")
    code = error.code if isinstance(error, ProtocolError) else ProtocolError.code
    return encode_message(Refusal(code), 0, _NO_SESSION)
