"""A client's machine brought to a stage, and what a server that breaks the rules sends it there."""

import dataclasses

import pytest

from protocols import (
    RoundParameters,
    SpentError,
)
from protocols.messages import (
    AdvertiseKeysRequest,
    encode_message,
)
from protocols.messages.consistency import SurvivorSet
from protocols.secret_values import Secret
from protocols.session import payload_digest, session_id
from protocols.simulator import DEFAULT_PAYLOAD, SimulatedFederation
from protocols.stages import Stage

RING = {"neighbours": 8, "threshold": 5, "corrupt": 0}


def at(federation: SimulatedFederation, stage: Stage, name: str | None = None, **choices):
    """Bring a federation to a stage; return one client's machine and its request there, unsent."""
    name = name or federation.names[0]
    requests = federation.run_until(stage, server=federation.server(**choices))
    return federation.machines[name], requests[name]


def refuses(machine, stage, frame, error):
    """The request is refused with this error, the round's secrets are gone, the round cannot go on."""
    state, secrets = machine._state, secrets_of(machine)
    assert secrets
    with pytest.raises(error) as caught:
        machine.handle(stage.value, frame)
    assert machine.expects is Stage.ADVERTISE_KEYS
    assert all(secret.is_erased for secret in secrets)
    if state is not None:
        with pytest.raises(SpentError):
            state.dump()
    return caught.value


def secrets_of(machine) -> list[Secret]:
    return [] if machine._state is None else list(machine._state._secrets())


def made_from_now_on(monkeypatch) -> list[Secret]:
    """The secrets that are made from here on, in the order in which they are."""
    made: list[Secret] = []
    initialise = Secret.__init__

    def counted(secret, data):
        initialise(secret, data)
        made.append(secret)

    monkeypatch.setattr(Secret, "__init__", counted)
    return made


def advertise_frame(federation, parameters: bytes, number=1, payload=DEFAULT_PAYLOAD, session=None) -> bytes:
    if session is None:
        session = session_id(RoundParameters.decode(parameters), payload_digest(payload))
    return encode_message(AdvertiseKeysRequest(parameters, payload), number, session)


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


# Survivor sets and shares returned


def survivor_frames(federation, positions, clients=5):
    def change(message):
        return dataclasses.replace(message, survivors=SurvivorSet.of(clients, positions))

    return change
