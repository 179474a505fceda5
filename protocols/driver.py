"""One secure round over any transport.

Example, three hospitals in one process::

    identities = {name: IdentityKey.generate(system_entropy) for name in ("bergen", "lund", "turku")}
    roster = Roster.of(identities)
    codec = FixedPointCodec(lengths=[1000], ranges=[0.5], value_bits=16)
    policy = ClientPolicy(config_digest=digest, encoding_digest=codec.digest)

    def contribute(context: RoundContext) -> EncodedVector:      # trains on context.payload as context.client
        update = train(context.client, context.payload)          # float32 [1000]
        return codec.encode(update, rounding[context.client])

    clients = {name: ClientMachine(key, roster, policy, contribute) for name, key in identities.items()}
    transport = InProcessTransport(clients, drops={("lund", 7): "MaskedInputCollection"})
    parameters = RoundParameters.choose(round=1, roster=roster, codec=codec, config_digest=digest)
    result = run_round(ServerMachine(parameters, roster, payload), transport)
    mean = codec.decode_mean(result.total, len(result.survivors))

The client machines live as long as the run; each round takes new parameters and a new server machine. In a simulation
give all machines one `RememberingVerifier` and one `RememberingDigest`, so that a signature is checked once, and a
download hashed once, and not by every client of the process.
"""

from collections.abc import Callable

from protocols.errors import ProtocolError
from protocols.result import RoundResult
from protocols.server.machine import ServerMachine
from protocols.stages import Stage
from protocols.transport import DEFAULT_PATIENCE, Patience, Transport


def run_round(
    server: ServerMachine,
    transport: Transport,
    patience: Patience = DEFAULT_PATIENCE,
    before_unmasking: Callable[[tuple[str, ...]], None] | None = None,
    before_inputs: Callable[[], None] | None = None,
) -> RoundResult:
    """Take a server through all stages of its round.

    Args:
        server: A fresh machine.
        transport: Reaches the clients.
        patience: How long each stage waits.
        before_unmasking: Called with the survivors before any client is asked for what opens their sum; what it raises
            ends the round with nothing revealed.
        before_inputs: Called before any client is asked for its vector; what it raises ends the round.

    Returns:
        The opened sum, with its evidence.

    Raises:
        TooFewSurvivorsError: The round ended without a sum; nothing was revealed. `server` still holds dropouts,
            rejections and frames.
        ReconstructionError, AggregateError: The sum cannot be opened.
    """
    for stage in server.stages:
        if stage is Stage.MASKED_INPUT_COLLECTION and before_inputs is not None:
            before_inputs()
        if stage is Stage.UNMASKING and before_unmasking is not None:
            before_unmasking(server.survivors)
        requests = server.requests(stage.value)
        replies, _ = transport.exchange(stage.value, requests, round_id=server.parameters.round, patience=patience)
        for client, reply in replies:
            server.absorb(stage.value, {client: reply})
        server.conclude(stage.value)
    if server.result is None:
        raise ProtocolError("the round ended without a result")
    return server.result
