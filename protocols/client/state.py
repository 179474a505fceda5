"""What all states of a client have in common: one expected stage, one use, a dump, and secrets that can be erased."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Self

from protocols.client.session import ClientSession, Environment
from protocols.errors import DecodeError, SpentError
from protocols.messages import Message
from protocols.parameters import RoundParameters
from protocols.secret_values import Secret
from protocols.stages import Stage
from protocols.wire import Reader, u8, u16, u32


class State(ABC):
    """One state of a client within a round.

    `handle` consumes the state: it returns the next one, and a second call is refused. Whatever it does not pass on is
    erased by the machine.
    """

    TAG: ClassVar[int]
    """Names the state in a dump."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self._spent = False

    @property
    @abstractmethod
    def expects(self) -> Stage:
        """The stage whose request this state answers."""

    @abstractmethod
    def _handle(self, data: bytes, environment: Environment) -> "tuple[State | None, Message]": ...

    @abstractmethod
    def _secrets(self) -> Iterable[Secret]: ...

    @abstractmethod
    def _fields(self) -> Iterable[bytes | memoryview]: ...

    @classmethod
    @abstractmethod
    def read(cls, session: ClientSession, reader: Reader) -> Self:
        """Rebuild the state from what `fields` wrote.

        Raises:
            DecodeError: The bytes are not such a state.
        """

    def handle(self, data: bytes, environment: Environment) -> "tuple[State | None, Message]":
        """Answer the expected request.

        Args:
            data: The request's frame.
            environment: The client's own.

        Returns:
            The next state, None after the last, and the reply.

        Raises:
            SpentError: This state has answered before.
            ProtocolError: The request is refused.
        """
        if self._spent:
            raise SpentError(type(self).__name__)
        self._spent = True
        return self._handle(data, environment)

    def erase(self) -> None:
        """Overwrite every secret of this state that the next one did not take over."""
        self._spent = True
        for secret in self._secrets():
            secret.erase()

    def dump(self) -> bytes:
        """Return the state's bytes. They hold the round's secrets in clear.

        Raises:
            SpentError: The state was left.
        """
        if self._spent:
            raise SpentError(type(self).__name__)
        parameters = self.session.parameters.encode()
        session = self.session.session_id + self.session.model_digest + u16(self.session.position)
        return b"".join((u8(self.TAG), u32(len(parameters)), parameters, session, *self._fields()))


def read_session(reader: Reader) -> ClientSession:
    """Read the session that every dump begins with.

    Raises:
        DecodeError, ParameterError: The bytes are not one.
    """
    parameters = RoundParameters.decode(reader.view(reader.u32()))
    session_id, model_digest = reader.take(32), reader.take(32)
    session = ClientSession(parameters, session_id, reader.u16(), model_digest)
    if session.position >= parameters.clients:
        raise DecodeError("the position is outside the cohort")
    return session
