"""The terms of the sums: what both ends know before the first round, since it follows from configuration and roster.

Each end derives them for itself. A round whose parameters differ from a site's own terms is refused there.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.method.layout import initial_vector, vector_layout
from protocols.codec import Codec
from protocols.compression.scheme import SchemeKind, parse_scheme
from protocols.noise import NoisyCodec
from protocols.parameters import COMPLETE_UP_TO, MIN_HONEST_SURVIVORS, RoundParameters, default_corrupt
from protocols.plan import plan
from protocols.policy import ClientPolicy
from protocols.roster import Roster
from protocols.stages import ThreatModel
from securefed.channels import ChannelMaker, fixed_point_codec, seeded_rounding
from securefed.compression_choice import Choice, choose, upload_bytes
from securefed.config import STAGES, RunConfig, config_digest
from securefed.errors import ConfigError
from securefed.fixed_point import FixedPointServer, FixedPointSite
from securefed.noisy import NoisyChannel
from securefed.privacy.shared_noise import noise_facts, shared_noise

Vector = NDArray[np.float32]


class SumTerms:
    """What is fixed about the sums of one federation.

    Args:
        config: The run's configuration.
        roster: The sites and their identity keys.
        embed_dim: Width D of the features.
        num_classes: Number C of classes.
        digest: 32 bytes that every round is bound to; those of the configuration unless given.

    Attributes:
        config, roster, digest: As given.
        initial_vector: float32[d], the shared parameters before the first round.
        noise: Grid, ring and shares of the noise, where hospitals add it in shares; None elsewhere.
        compression: The scheme in use and, where `auto` chose it, why.
        channels: Makes the halves of the channel of the updates.
    """

    def __init__(
        self, config: RunConfig, roster: Roster, embed_dim: int, num_classes: int, digest: bytes | None = None
    ) -> None:
        self.config = config
        self.roster = roster
        self.digest = bytes.fromhex(config_digest(config)) if digest is None else digest
        settings, method, self._seed = config.training, config.federation.method, config.federation.seed
        self.initial_vector: Vector = initial_vector(embed_dim, settings, self._seed, method, num_classes)
        self._shapes = [shape for _, shape in vector_layout(embed_dim, settings, method, num_classes)]
        self._choices = self._plan()
        self.noise = shared_noise(config, self._fewest(), self.initial_vector.size)
        self.compression = self._choose_compression()
        self.channels = self._channels(self.compression.scheme)
        self._scores = fixed_point_codec([1], 1.0, config.secure_aggregation.value_bits)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of the roster."""
        return tuple(self.roster.names)

    @property
    def scoring_codec(self) -> Codec:
        """The encoding of a round that scores a model without training: one zero, and the score as a counter."""
        return self._scores

    def scoring_server(self) -> FixedPointServer:
        """Return the server's half of a round that only scores."""
        return FixedPointServer(self._scores)

    def scoring_site(self, site: str) -> FixedPointSite:
        """Return a site's half of a round that only scores."""
        return FixedPointSite(site, self._scores, seeded_rounding(self._seed))

    def parameters(self, codec: Codec, number: int) -> RoundParameters:
        """Return the parameters of a round with an encoding."""
        choices = dict(self._choices)
        if isinstance(codec, NoisyCodec):
            choices |= {"noise_tail": codec.plan.noise_tail, "excess": codec.plan.excess}
        return RoundParameters.choose(
            round=number, roster=self.roster, codec=codec, config_digest=self.digest, **choices
        )

    def policy(self) -> ClientPolicy:
        """Return what these terms make a client insist on; a site's own floors may be higher.

        With noise in shares no sum may be over fewer survivors than the shares are sized for.
        """
        beyond_colluders = self.example.min_survivors - self.example.corrupt
        return ClientPolicy(
            min_honest_survivors=MIN_HONEST_SURVIVORS if self.noise is None else beyond_colluders,
            config_digest=self.digest,
            min_threshold=self.example.threshold,
            min_corrupt=self.example.corrupt,
            threat_models=frozenset({self.example.threat_model}),
        )

    def bearable_losses(self) -> int:
        """Return how many sites a round can lose before their vectors are in and still open."""
        parameters = self.example
        if parameters.is_complete:
            return parameters.clients - max(parameters.threshold, parameters.min_survivors)
        return parameters.clients - parameters.min_survivors

    def describe(self) -> dict[str, Any]:
        """Return the public parameters of the sums, for the event log."""
        parameters, secure = self.example, self.config.secure_aggregation
        described: dict[str, Any] = {
            "secure_aggregation": secure.enabled,
            "clients": parameters.clients,
            "dimension": self.initial_vector.size,
            **({} if self._is_float16 else {"ring_bits": parameters.ring_bits}),
            **({} if self._value_bits is None else {"value_bits": self._value_bits}),
            "values": {"compression": self.compression.scheme, "vector_length": parameters.vector_length},
        }
        if self.noise is not None:
            described["values"] |= noise_facts(self.noise)
        if secure.enabled:
            described |= {
                "threat_model": secure.threat_model,
                "threshold": parameters.threshold,
                "corrupt": parameters.corrupt,
            }
        return described

    def summary(self, dropouts: Mapping[str, int]) -> dict[str, Any]:
        """Return the block `secure_aggregation` of summary.json; `dropouts` counts lost sites by stage."""
        parameters, secure = self.example, self.config.secure_aggregation
        return {
            "enabled": secure.enabled,
            "threat_model": secure.threat_model if secure.enabled else None,
            "threshold": parameters.threshold if secure.enabled else None,
            "corrupt": parameters.corrupt if secure.enabled else None,
            "clients": parameters.clients,
            "ring_bits": None if self._is_float16 else parameters.ring_bits,
            "value_bits": self._value_bits,
            "compression": self.compression.scheme,
            "dropouts": {**dict.fromkeys(STAGES, 0), **dropouts},
        }

    @cached_property
    def example(self) -> RoundParameters:
        """The parameters of the first round; those that are stated are the same in every round."""
        return self.parameters(self.channels.server().codec, 1)

    @property
    def _is_float16(self) -> bool:
        """Whether updates are sent as floats, in clear: no ring has a part in that."""
        return parse_scheme(self.compression.scheme).kind is SchemeKind.FLOAT16_ZLIB

    @property
    def _value_bits(self) -> int | None:
        """Bits of a coordinate as it is encoded; None of floats, and where the grid of the noise is that of values."""
        if self._is_float16 or self.noise is not None:
            return None
        return parse_scheme(self.compression.scheme).value_bits or self.config.secure_aggregation.value_bits

    def _choose_compression(self) -> Choice:
        secure = self.config.secure_aggregation
        if parse_scheme(secure.compression).kind is not SchemeKind.AUTO:
            return Choice(secure.compression)
        if secure.accuracy_loss:
            reason = "is tried out by `simulate` alone; name the compression that it printed"
            raise ConfigError("secure_aggregation.accuracy_loss", reason)
        return choose(secure.upload_budget, self._upload_bytes)

    def _upload_bytes(self, scheme: str) -> int:
        codec = self._channels(scheme).server().codec
        return upload_bytes(self.parameters(codec, 1), in_clear=not self.config.secure_aggregation.enabled)

    def _channels(self, scheme: str) -> ChannelMaker:
        secure = self.config.secure_aggregation
        noisy = None if self.noise is None else NoisyChannel(self.config, self.noise)
        return ChannelMaker(scheme, secure, self._shapes, self.sites, self.initial_vector, self._seed, noisy)

    def _fewest(self) -> RoundParameters:
        """Parameters of some round without noise: they say how many survivors there are at least."""
        return self.parameters(fixed_point_codec([1], 1.0, self.config.secure_aggregation.value_bits), 1)

    def _plan(self) -> dict[str, Any]:
        """The graph and the threshold: complete up to 100 hospitals, above that the least safe ring."""
        secure, n = self.config.secure_aggregation, len(self.sites)
        corrupt = default_corrupt(n) if secure.corrupt < 0 else secure.corrupt
        model = ThreatModel(secure.threat_model)
        if n <= COMPLETE_UP_TO:
            return {"threat_model": model, "corrupt": corrupt, "threshold": secure.threshold or None}
        return plan(n, Fraction(corrupt, n), secure.losses, threat_model=model).choices
