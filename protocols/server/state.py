"""What all states of the server have in common: requests out, one reply at a time in, and a conclusion."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from protocols.errors import TooFewSurvivorsError
from protocols.messages import Message
from protocols.server.session import ServerSession
from protocols.stages import Stage


class ServerState(ABC):
    """One state of the server within a round.

    Args:
        session: The round.
    """

    stage: Stage

    def __init__(self, session: ServerSession) -> None:
        self.session = session

    @abstractmethod
    def requests(self) -> Mapping[int, Message]:
        """Return {position: request} for the clients that are still there."""

    @abstractmethod
    def absorb(self, position: int, data: bytes) -> Message:
        """Take in one client's reply; the machine lets each client reply once.

        Returns:
            The message, to be accounted for.

        Raises:
            ProtocolError: The reply is refused; its client is out of the round, nobody else is harmed.
        """

    @abstractmethod
    def conclude(self) -> "ServerState | None":
        """Return the next state, None after the last.

        Raises:
            TooFewSurvivorsError: The round is over.
        """

    def require(self, survivors: int, required: int) -> None:
        """End the round where too few clients are left.

        Raises:
            TooFewSurvivorsError: They are.
        """
        if survivors < required:
            raise TooFewSurvivorsError(self.stage.value, survivors, required)
