"""The stages of a round, by name (Bonawitz et al. 2017, figure 4, and RevealNonces for k-regular graphs)."""

from enum import StrEnum


class Stage(StrEnum):
    """One exchange between the server and the clients."""

    ADVERTISE_KEYS = "AdvertiseKeys"
    REVEAL_NONCES = "RevealNonces"
    SHARE_KEYS = "ShareKeys"
    MASKED_INPUT_COLLECTION = "MaskedInputCollection"
    CONSISTENCY_CHECK = "ConsistencyCheck"
    UNMASKING = "Unmasking"
    PLAIN_INPUT_COLLECTION = "PlainInputCollection"

    @property
    def rank(self) -> int:
        """Place in a round; PlainInputCollection stands where MaskedInputCollection does."""
        return _RANKS[self]


_RANKS = {
    Stage.ADVERTISE_KEYS: 0,
    Stage.REVEAL_NONCES: 1,
    Stage.SHARE_KEYS: 2,
    Stage.MASKED_INPUT_COLLECTION: 3,
    Stage.PLAIN_INPUT_COLLECTION: 3,
    Stage.CONSISTENCY_CHECK: 4,
    Stage.UNMASKING: 5,
}


class ThreatModel(StrEnum):
    """Against whom a round protects (SPEC.md, "Threat models")."""

    ACTIVE = "active"
    SEMI_HONEST = "semi-honest"


def stages_of(threat_model: ThreatModel, *, complete_graph: bool) -> tuple[Stage, ...]:
    """Return the stages that a round runs through, in order."""
    stages = [Stage.ADVERTISE_KEYS]
    if not complete_graph:
        stages.append(Stage.REVEAL_NONCES)
    stages += [Stage.SHARE_KEYS, Stage.MASKED_INPUT_COLLECTION]
    if threat_model is ThreatModel.ACTIVE:
        stages.append(Stage.CONSISTENCY_CHECK)
    return (*stages, Stage.UNMASKING)
