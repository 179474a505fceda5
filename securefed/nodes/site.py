"""A site node: all that runs at one hospital. Bytes in, bytes out; it calls nobody.

A request of a stage of the protocol goes to the site's client machine, which calls back for the contribution: the
site's half of the channel follows the model, the hospital scores it and trains on it, the update is encoded. What else
the server asks (control.py) is answered here and in site_run.py.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from audit.canonical import JSON
from audit.errors import AuditError
from audit.ledger.errors import BudgetExceededError, NoBudgetError
from clients.data import DataError
from clients.encoders import EncoderError
from protocols.client.machine import ClientMachine
from protocols.client.session import RoundContext
from protocols.compression.half import HalfClient
from protocols.entropy import Entropy, system_entropy
from protocols.errors import PolicyError, ProtocolError
from protocols.messages import Refusal, encode_message
from protocols.plain import NO_SESSION, PlainClient
from protocols.policy import ClientPolicy
from protocols.roster import IdentityKey, SignatureVerifier
from protocols.session import PayloadDigest
from protocols.vectors import EncodedVector
from securefed.channels import HalfSite
from securefed.compression import Contribution, Fate, Followed, SiteChannel
from securefed.errors import ConfigError, ReleaseRefusedError, TargetEpsilonError
from securefed.nodes.control import ControlStage, decode_request, encode_refusal, encode_reply
from securefed.nodes.faults import in_one_line
from securefed.nodes.memory import RoundMemory
from securefed.nodes.numbering import training_round
from securefed.nodes.site_run import BOOKS, UNUSABLE, ControlRefusedError, SiteRun
from securefed.nodes.site_state import SiteState
from securefed.run_folder import Arrays
from securefed.sum_terms import SumTerms

Vector = NDArray[np.float32]
E = TypeVar("E")
"""An encoded contribution: integers, or the bytes of the published compression."""

_LOG = logging.getLogger("securefed.site")
_CONTROL: Final = {stage.value: stage for stage in ControlStage}


class Trainer(Protocol):
    """What a site node asks of its hospital during the rounds."""

    def train(self, received: Vector, number: int) -> Vector:
        """Train round `number` from the global vector float32[d] and return the update float32[d]."""
        ...

    def score(self, received: Vector) -> float:
        """Return the accuracy in [0, 1] of the site's ensemble with the global vector on its validation images."""
        ...


class PrivateTrainer(Trainer, Protocol):
    """What a deployed node asks beside: to go back, and to go on after a restart."""

    def private_state(self) -> Arrays:
        """Return what the hospital keeps to itself."""
        ...

    def load_private_state(self, state: Arrays) -> None:
        """Put back what `private_state` returned."""
        ...


class SiteNode:
    """One hospital's end of a federation.

    Args:
        identity: The site's signing key; its name is the one that the roster gives this key.
        terms: The terms of the sums, as this site derives them.
        trainer: The hospital.
        policy: What the client insists on; that of the terms unless given.
        run: The site's dealings beside the rounds; a simulated site has none.
        private: The hospital again, where the node has to remember its states (a deployment).
        entropy: Cryptographic source.
        verifier: Checks signatures; sites of one process may share one that remembers.
        digest: Hashes downloads; likewise.
        followed: Downloads that sites of one process have followed.
    """

    def __init__(
        self,
        identity: IdentityKey,
        terms: SumTerms,
        trainer: Trainer,
        policy: ClientPolicy | None = None,
        *,
        run: SiteRun | None = None,
        private: PrivateTrainer | None = None,
        entropy: Entropy = system_entropy,
        verifier: SignatureVerifier | None = None,
        digest: PayloadDigest | None = None,
        followed: Followed | None = None,
    ) -> None:
        self.name = terms.roster.name_of(identity.public)
        self._identity = identity
        self._terms = terms
        self._trainer = trainer
        self._policy = policy or terms.policy()
        self._run = run
        self._private = private
        self._entropy = entropy
        self._memory = RoundMemory()
        self._left_out: tuple[str, str] | None = None
        self._scores_models = terms.config.federation.select == "best-val"
        self._measuring_rounds = terms.config.privacy.measuring_rounds
        self.channel: SiteChannel | HalfSite = terms.channels.site(self.name, followed or Followed())
        self._scoring = terms.scoring_site(self.name)
        self._client: ClientMachine | PlainClient
        if terms.config.secure_aggregation.enabled:
            self._client = ClientMachine(
                identity, terms.roster, self._policy, self._contribute, entropy, verifier=verifier, digest=digest
            )
        elif isinstance(self.channel, HalfSite):
            self._client = HalfClient(self.name, self._contribute, self.channel.codec, self._contribute_half)
        else:
            self._client = PlainClient(self.name, self._contribute)

    def handle(self, stage: str, request: bytes) -> bytes:
        """Answer one request, whatever happens: a fault of this site is logged here and leaves as a bare refusal."""
        try:
            return self.answer(stage, request)
        except Exception as error:  # noqa: BLE001 (a traceback would leave the site otherwise)
            what = stage if stage in _CONTROL else "a stage"
            _LOG.error("%s at %s failed: %s", what, self.name, in_one_line(error))
            _LOG.debug("the trace", exc_info=error)
            if stage in _CONTROL:
                return encode_refusal("fault", f"{type(error).__name__} at the site; its own log says more")
            return encode_message(Refusal(ProtocolError.code), 0, NO_SESSION)

    def answer(self, stage: str, data: bytes) -> bytes:
        """Answer one request; what the protocol or this site refuses is answered with a refusal frame.

        Raises:
            Exception: What a fault of the hospital's own (training, disk) raises; `handle` catches that too.
        """
        control = _CONTROL.get(stage)
        if control is None:
            return self._client.answer(stage, data)
        try:
            return encode_reply(control, self._control(control, data))
        except ControlRefusedError as error:
            _LOG.warning("%s: refused %s: %s", self.name, control.value, error)
            return encode_refusal(error.code, error.reason)
        except ProtocolError as error:
            return encode_refusal("protocol", str(error))

    def dump(self, *, secrets: bool = True) -> bytes:
        """Return the node's state, for a process that serves one message only.

        Args:
            secrets: Those of a round in progress. A node that is loaded without them takes part from the next round.

        Secrecy: the bytes hold the site's private state and the round's secrets in clear: they stay in the site's
        memory or its own protected storage. An older dump must never be loaded after a newer one.
        """
        client = self._client.dump(secrets=secrets) if isinstance(self._client, ClientMachine) else b""
        run_id = self._run.run_id if self._run else ""
        hospital = self._private.private_state() if self._private else {}
        return SiteState(self._terms.digest, run_id, client, self.channel.state(), hospital, self._memory).encode()

    def load(self, data: bytes) -> None:
        """Go on from a node's newest dump.

        Raises:
            DecodeError: The bytes are none, or of another study.
        """
        state = SiteState.decode(data, self._terms.digest)
        if isinstance(self._client, ClientMachine):
            self._client = ClientMachine.load(
                state.client, self._identity, self._terms.roster, self._policy, self._contribute, self._entropy
            )
        if self._run is not None:
            self._run.run_id = state.run_id
        self._memory = state.memory
        if state.channel:
            self.channel.restore(state.channel)
        if self._private is not None:
            self._private.load_private_state(state.hospital)

    def abandon(self) -> None:
        """Leave the round in progress and erase its secrets."""
        if isinstance(self._client, ClientMachine):
            self._client.abandon()

    def state_after(self, number: int) -> Arrays:
        """Return the hospital's private state after a round, to keep the model of that round.

        Raises:
            StageOrderError: It is not kept any more.
        """
        return _split(self._memory.after(number))[0]

    def _control(self, stage: ControlStage, data: bytes) -> dict[str, JSON]:
        fields, model = decode_request(stage, data)
        if stage is ControlStage.CLOSE_ROUND:
            self._close(opened=fields["opened"], survivors=fields["survivors"], best=fields["best"])
            return {}
        if self._run is None:
            raise ControlRefusedError("simulation", "a simulated site is asked for its contributions only")
        if stage is ControlStage.HELLO:
            last = self._client.last_round if isinstance(self._client, ClientMachine) else -1
            return dict(self._run.hello(fields, last))
        if stage is ControlStage.COUNTERSIGN:
            return dict(self._run.countersign(fields))
        return dict(self._run.close_run(fields, model))

    def _close(self, *, opened: bool, survivors: list[str], best: int) -> None:
        if opened:
            self.channel.close(Fate.DELIVERED if self.name in survivors else Fate.LOST)
            self._memory.chosen(best)
        else:
            self.channel.close(Fate.WITHDRAWN)
        if self._left_out:
            (code, reason), self._left_out = self._left_out, None
            raise ControlRefusedError(code, reason)

    def _contribute(self, context: RoundContext) -> EncodedVector:
        """What the client machine calls: follow the model, score, train, encode for the round that is being run."""
        number, digest = training_round(context.round), context.parameters.encoding_digest
        received = self.channel.receive(context.payload)
        if digest == self._terms.scoring_codec.digest:
            if not self._scores_models:
                raise PolicyError("the round", "one that scores a model", "rounds of training: federation.select")
            contribution = Contribution(np.zeros(1, np.float32), self._score(received, number))
            return self._scoring.encode(number, digest, contribution)
        assert not isinstance(self.channel, HalfSite)  # noqa: S101 (rounds of that kind come to _contribute_half)
        channel = self.channel
        return self._train(received, number, lambda given: channel.encode(number, digest, given, context.excess))

    def _contribute_half(self, context: RoundContext) -> bytes:
        """The same for the published compression, in clear."""
        assert isinstance(self.channel, HalfSite)  # noqa: S101 (the caller has looked)
        received = self.channel.receive(context.payload)
        return self._train(received, training_round(context.round), self.channel.compress)

    def _train(self, received: Vector, number: int, encode: Callable[[Contribution], E]) -> E:
        self._begin(number)
        score = self._score(received, number) if self._scores_models else 0.0
        update = self._update(received, number)
        constant = number <= self._measuring_rounds and not self._scores_models and not update.any()
        encoded = encode(Contribution(update, score, constant))
        if self._private is not None:
            self._memory.trained(number, self._present(self._private))
        return encoded

    def _score(self, received: Vector, number: int) -> float:
        with self._leaving_out(number):
            return self._trainer.score(received)

    def _update(self, received: Vector, number: int) -> Vector:
        with self._leaving_out(number):
            return self._trainer.train(received, number)

    @contextmanager
    def _leaving_out(self, number: int) -> Iterator[None]:
        """Have a deployed site that does not pay or cannot use its data refuse the round, and say why after it."""
        try:
            yield
        except (BudgetExceededError, TargetEpsilonError) as error:
            self._leave_out(error, number, "budget", str(error))
            raise PolicyError("the release", "one more", "what its ledger and the study pay for") from error
        except NoBudgetError as error:
            self._leave_out(error, number, "budget", error.reason)
            raise PolicyError("the release", "one more", "none without a budget") from error
        except ReleaseRefusedError as error:
            self._leave_out(error, number, "release", str(error))
            raise PolicyError("the release", "one more", "one that can be made") from error
        except AuditError as error:
            self._leave_out(error, number, "ledger", BOOKS)
            raise PolicyError("the release", "one more", "none without its ledger") from error
        except (ConfigError, DataError, EncoderError) as error:
            self._leave_out(error, number, "data", UNUSABLE)
            raise PolicyError("the round", "one of training", "none without its data") from error

    def _leave_out(self, error: Exception, number: int, code: str, reason: str) -> None:
        if self._run is None:
            raise error
        _LOG.warning("%s: round %d: %s", self.name, number, error)
        self._left_out = code, reason

    def _begin(self, number: int) -> None:
        """Go back to where a round began, if it is one that the server repeats."""
        if self._private is None:
            return
        earlier = self._memory.begin(number, self._present(self._private))
        if earlier is not None:
            hospital, channel = _split(earlier)
            self._private.load_private_state(hospital)
            self.channel.recall(channel)

    def _present(self, private: PrivateTrainer) -> Arrays:
        hospital = {f"hospital/{name}": array for name, array in private.private_state().items()}
        return {**hospital, **{f"channel/{name}": array for name, array in self.channel.memory().items()}}


def _split(state: Arrays) -> tuple[Arrays, Arrays]:
    """Return the hospital's part and the channel's."""
    parts: dict[str, Arrays] = {"hospital": {}, "channel": {}}
    for name, array in state.items():
        part, _, inner = name.partition("/")
        parts[part][inner] = array
    return parts["hospital"], parts["channel"]
