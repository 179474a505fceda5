"""site.toml: where a hospital's data and encoder are, and what it insists on whatever a study or a server asks."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import tomli_w

from protocols.parameters import MIN_COHORT, MIN_THRESHOLD, default_corrupt
from protocols.policy import ClientPolicy
from protocols.stages import ThreatModel
from securefed.config import CHARGES, THREAT_MODELS, DataConfig, section_from_mapping
from securefed.errors import ConfigError
from securefed.privacy.bearing import too_few_rounds
from securefed.privacy.shared_noise import SHARED_MODES
from securefed.study.form import Study
from securefed.sum_terms import SumTerms

FORMAT: Final = "securefed-site/1"


def _check(condition: bool, key: str, reason: str) -> None:
    if not condition:
        raise ConfigError(key, reason)


@dataclass(frozen=True)
class PolicyConfig:
    """What a hospital insists on. A study below it cannot be approved; a round below it is refused by the node.

    Attributes:
        min_cohort: Fewest hospitals in a round.
        min_threshold: Fewest hospitals whose shares open a sum.
        min_corrupt: Fewest colluding hospitals that a round must tolerate; -1 for one in five of the roster, rounded
            down.
        threat_models: Threat models that are accepted.
        clear: Whether sums without secure aggregation are accepted: the server would see this hospital's updates.
        encoders: Digests of encoders that are accepted; empty for the one of the approved study.
        studies: Digests of studies that are accepted; empty for the approved one.
        max_rounds: Most rounds of a study; 0 for no limit.
        max_epsilon: Largest epsilon of a study, over all its rounds, and then a study without a claim or without a
            target is refused too; 0 for no limit.
        charge: What the ledger is charged where noise is added in shares: `sum` or `share` (docs/privacy.md).
    """

    min_cohort: int = MIN_COHORT
    min_threshold: int = MIN_THRESHOLD
    min_corrupt: int = -1
    threat_models: tuple[str, ...] = ("active",)
    clear: bool = False
    encoders: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    max_rounds: int = 0
    max_epsilon: float = 0.0
    charge: str = "sum"

    def __post_init__(self) -> None:
        _check(self.min_cohort >= MIN_COHORT, "policy.min_cohort", f"{self.min_cohort}: at least {MIN_COHORT}")
        _check(
            self.min_threshold >= MIN_THRESHOLD,
            "policy.min_threshold",
            f"{self.min_threshold}: at least {MIN_THRESHOLD}",
        )
        _check(self.min_corrupt >= -1, "policy.min_corrupt", f"{self.min_corrupt}: use -1 (one in five), 0 or more")
        _check(
            bool(self.threat_models) and set(self.threat_models) <= set(THREAT_MODELS),
            "policy.threat_models",
            f"use one or both of {', '.join(THREAT_MODELS)}",
        )
        _check(self.max_rounds >= 0, "policy.max_rounds", f"{self.max_rounds} is negative; 0 is no limit")
        _check(self.charge in CHARGES, "policy.charge", f"{self.charge!r}: use {' or '.join(CHARGES)}")
        _check(self.max_epsilon >= 0, "policy.max_epsilon", f"{self.max_epsilon} is negative; 0 is no limit")

    def objections(self, study: Study, terms: SumTerms) -> list[str]:
        """Return in words what this hospital does not accept in a study; empty where it accepts all."""
        secure, found = study.config.secure_aggregation, []
        parameters = terms.example
        if not secure.enabled:
            if not self.clear:
                found.append("updates would be sent in clear (secure_aggregation.enabled); set policy.clear to accept")
        else:
            if secure.threat_model not in self.threat_models:
                accepted = ", ".join(self.threat_models)
                found.append(f"the threat model is {secure.threat_model}; this hospital accepts {accepted}")
            if parameters.threshold < self.min_threshold:
                found.append(
                    f"the threshold is {parameters.threshold}; this hospital wants {self.min_threshold} or more"
                )
            if parameters.corrupt < (wanted := self._least_corrupt(terms)):
                why = f"policy.min_corrupt is {self.min_corrupt}{', one in five' if self.min_corrupt < 0 else ''}"
                found.append(f"{parameters.corrupt} colluding hospitals are tolerated; {wanted} are wanted ({why})")
        if parameters.clients < self.min_cohort:
            found.append(f"{parameters.clients} hospitals take part; this hospital wants {self.min_cohort} or more")
        if self.encoders and study.encoder_digest not in self.encoders:
            found.append(f"the encoder {study.encoder_digest[:16]}... is not among policy.encoders")
        if self.studies and study.digest not in self.studies:
            found.append(f"the study {study.digest[:16]}... is not among policy.studies")
        rounds = study.config.federation.rounds
        if self.max_rounds and rounds > self.max_rounds:
            found.append(f"{rounds} rounds are planned; this hospital accepts {self.max_rounds}")
        privacy = study.config.privacy
        if privacy.mode in SHARED_MODES and not secure.enabled and self.charge == "sum":
            found.append("each vector would be sent in clear with a share of the noise; set policy.charge to share")
        if self.max_epsilon and (privacy.mode == "off" or not 0 < privacy.epsilon <= self.max_epsilon):
            limited = f"epsilon is {privacy.epsilon:g}" if privacy.epsilon else "no privacy.epsilon limits the study"
            claimed = "no epsilon is claimed" if privacy.mode == "off" else limited
            found.append(f"{claimed}; this hospital wants at most {self.max_epsilon:g}")
        elif self.max_epsilon and (reason := too_few_rounds(study.config, terms.noise)):
            found.append(f"{reason}; this hospital wants at most {self.max_epsilon:g}")
        return found

    def _least_corrupt(self, terms: SumTerms) -> int:
        return default_corrupt(len(terms.sites)) if self.min_corrupt < 0 else self.min_corrupt

    def client_policy(self, terms: SumTerms) -> ClientPolicy:
        """Return what the protocol's client insists on in every round: these floors, and the terms of the study."""
        agreed = terms.policy()
        return dataclasses.replace(
            agreed,
            min_cohort=self.min_cohort,
            min_threshold=max(agreed.min_threshold, self.min_threshold),
            min_corrupt=max(terms.example.corrupt, self._least_corrupt(terms)),
            threat_models=agreed.threat_models & {ThreatModel(name) for name in self.threat_models},
        )


@dataclass(frozen=True)
class PlaceConfig:
    """Who and where this hospital is.

    Attributes:
        name: Its name in the roster.
        part: Which site of the data set it is; "" where the data set has one site only.
        encoder: Where it has the encoder; "" takes the study's own words for it.
        device: `auto`, `cpu` or `cuda`.
    """

    name: str
    part: str = ""
    encoder: str = ""
    device: str = "auto"

    def __post_init__(self) -> None:
        _check(bool(self.name), "site.name", "is empty; it is the name under which the roster has this hospital")
        _check(self.device in ("auto", "cpu", "cuda"), "site.device", f"{self.device!r}: use auto, cpu or cuda")


@dataclass(frozen=True)
class SiteSettings:
    """Content of site.toml."""

    site: PlaceConfig
    data: DataConfig
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def encode(self) -> bytes:
        """Return the bytes of the file, every key written out."""
        import dataclasses

        tree: dict[str, Any] = {"format": FORMAT}
        for name in ("site", "data", "policy"):
            values = dataclasses.asdict(getattr(self, name))
            tree[name] = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return tomli_w.dumps(tree).encode()


def read_settings(path: Path) -> SiteSettings:
    """Read site.toml.

    Raises:
        ConfigError: It is missing, no TOML, or a key is unknown or out of range; names the key.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("site.toml", f"{path} cannot be read ({error.strerror}); make it with `site init`") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("site.toml", f"{path} is not valid TOML: {error}") from error
    if tree.pop("format", None) != FORMAT:
        raise ConfigError("format", f"of {path} is another than {FORMAT}")
    settings = section_from_mapping(SiteSettings, tree, "")
    assert isinstance(settings, SiteSettings)  # noqa: S101 (narrows the type)
    return settings
