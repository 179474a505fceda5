"""What can be configured: one frozen dataclass a section of the TOML file, checked once when it is made."""

import re
from dataclasses import dataclass, field

from clients.data.rows import LONGEST_NAME, composed
from clients.method.settings import AGGREGATED_METHODS, METHODS, TrainingSettings
from protocols.compression.scheme import SchemeKind, parse_scheme
from protocols.errors import ParameterError
from securefed.config.privacy import PrivacyConfig
from securefed.config.purpose import PurposeConfig
from securefed.errors import ConfigError

THREAT_MODELS = ("active", "semi-honest")
STAGES = ("AdvertiseKeys", "ShareKeys", "MaskedInputCollection", "ConsistencyCheck", "Unmasking")
"""Stages of a round at which a site can be dropped (protocols/SPEC.md); semi-honest ones lack ConsistencyCheck."""

RING_STAGE, PLAIN_STAGE = "RevealNonces", "PlainInputCollection"
"""Stages of some rounds only, at which `drop` can lose a site too: of those on a ring, and of those in clear."""

_DROP = re.compile(r"(?P<site>.+)@(?P<round>[1-9][0-9]*):(?P<stage>[A-Za-z]+)")


def _check(condition: bool, key: str, reason: str) -> None:
    if not condition:
        raise ConfigError(key, reason)


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they are divided.

    Attributes:
        source: `demo`, a folder `<site>/<class>/<image>`, a CSV or Parquet manifest, or a MedMNIST .npz file.
        path_column: Column of the manifest with the image path; "" recognises the standard names. Likewise:
        label_column: Column with the class.
        site_column: Column with the hospital.
        patient_column: Column with the patient (the unit by which splits are made).
        split_column: Column with train, val or test.
        global_site: Site that is held out of training and only tested on; "" for none.
        clients: Number of hospitals over which a single-site set is partitioned; 0 keeps the sites.
        class_names: Names of the classes 0, 1, ... of a MedMNIST file; empty takes the known or numbered names.
        alpha: Concentration of the Dirichlet partition; 0 for an IID partition.
        strict: Refuse a data set with unreadable images instead of leaving them out.
    """

    source: str = "demo"
    path_column: str = ""
    label_column: str = ""
    site_column: str = ""
    patient_column: str = ""
    split_column: str = ""
    global_site: str = ""
    clients: int = 0
    alpha: float = 0.0
    class_names: tuple[str, ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        _check(bool(self.source), "data.source", "name a folder, a manifest, an .npz file, or demo")
        _check(self.clients >= 0, "data.clients", f"{self.clients} is negative; 0 keeps the sites of the data set")
        _check(self.alpha >= 0, "data.alpha", f"{self.alpha} is not 0 or more; 0 partitions IID")
        _check(self.alpha == 0 or self.clients > 0, "data.alpha", "needs data.clients: the hospitals to partition over")


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen encoder and how features are computed.

    Attributes:
        name: `demo`, `MODEL/PRETRAINED` of open_clip, `hf-hub:ORG/NAME`, `local-dir:PATH` or `features:PATH`.
        prompt: Prompt of a class; must contain `{class}`.
        batch_size: Images a batch; 0 lets the device decide.
        workers: Processes that decode images; -1 lets the number of cores decide.
    """

    name: str = "demo"
    prompt: str = "a picture of a {class}"
    batch_size: int = 0
    workers: int = -1

    def __post_init__(self) -> None:
        _check(bool(self.name), "encoder.name", "name an encoder, for example ViT-B-32/openai")
        reason = f"has {len(self.name)} characters, at most {LONGEST_NAME} can be recorded; use a shorter path"
        _check(len(self.name) <= LONGEST_NAME, "encoder.name", reason)
        _check("{class}" in self.prompt, "encoder.prompt", "must contain {class}")
        _check(self.batch_size >= 0, "encoder.batch_size", f"{self.batch_size} is negative; 0 lets the device decide")
        _check(self.workers >= -1, "encoder.workers", f"{self.workers}: use -1 (automatic), 0 or a number of processes")


@dataclass(frozen=True)
class FederationConfig:
    """Rounds and choices of the federation.

    Attributes:
        method: One of `clients.method.settings.METHODS`.
        rounds: Rounds of training, at least 1.
        select: `best-val` keeps the model of the round with the best mean validation accuracy over the sites (only
            the sum over sites leaves the masks), `last` keeps the last.
        seed: Seed of partitions, initialisation, batches and rounding. Keys and pads never come from it.
        device: `auto`, `cpu` or `cuda`.
    """

    method: str = "fedmedclip"
    rounds: int = 50
    select: str = "best-val"
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        _check(self.method in METHODS, "federation.method", f"{self.method!r} is unknown; use {', '.join(METHODS)}")
        _check(self.rounds >= 1, "federation.rounds", f"{self.rounds} is not possible; use 1 or more")
        _check(self.rounds <= 100_000, "federation.rounds", f"{self.rounds} is above 100000")
        _check(self.select in ("best-val", "last"), "federation.select", f"{self.select!r}: use best-val or last")
        _check(0 <= self.seed < 2**53, "federation.seed", f"{self.seed}: use 0 to 2**53 - 1")
        _check(self.device in ("auto", "cpu", "cuda"), "federation.device", f"{self.device!r}: use auto, cpu or cuda")


@dataclass(frozen=True)
class SecureAggregationConfig:
    """How updates are summed.

    Attributes:
        enabled: Sum under pairwise masks. Off, the same integers are summed in clear.
        threat_model: `active` (the server may lie) or `semi-honest` (the server follows the protocol).
        threshold: Hospitals whose shares open a sum; 0 takes the smallest safe one.
        corrupt: Hospitals that may collude with the server; -1 takes one in five, rounded down.
        losses: Share of the hospitals that may be lost in a round; sizes the graph of more than 100 hospitals.
        value_bits: Bits of one encoded coordinate, 8 to 22.
        update_range: Public bound on the absolute value of a coordinate of an update, 1e-30 to 1e6; what lies beyond is
            clamped at the hospital and only the number of clamped coordinates is summed, under the masks.
        compression: `none` (the two above), `ring:BITS[,subspace:FRACTION]` (protocols/compression/SPEC.md),
            `float16-zlib` (as published, without secure aggregation only), or `auto`, which picks one by
            `upload_budget`, or by `accuracy_loss` where that is above 0.
        upload_budget: Bytes that a hospital may send in a round, for `auto`.
        accuracy_loss: Points of validation accuracy, of the ensemble and of the FAM alone, that compression may cost,
            for `auto` in a simulation, which then tries before the run; 0 goes by `upload_budget`.
    """

    enabled: bool = True
    threat_model: str = "active"
    threshold: int = 0
    corrupt: int = -1
    losses: float = 0.1
    value_bits: int = 16
    update_range: float = 0.25
    compression: str = "none"
    upload_budget: int = 60_000
    accuracy_loss: float = 0.0

    def __post_init__(self) -> None:
        key = "secure_aggregation"
        _check(self.threat_model in THREAT_MODELS, f"{key}.threat_model", f"use {' or '.join(THREAT_MODELS)}")
        _check(self.threshold >= 0, f"{key}.threshold", f"{self.threshold} is negative; 0 chooses it")
        _check(self.corrupt >= -1, f"{key}.corrupt", f"{self.corrupt}: use -1 (automatic), 0 or more")
        _check(0 <= self.losses < 1, f"{key}.losses", f"{self.losses}: use a share from 0 to below 1")
        _check(8 <= self.value_bits <= 22, f"{key}.value_bits", f"{self.value_bits}: use 8 to 22")
        _check(1e-30 <= self.update_range <= 1e6, f"{key}.update_range", f"{self.update_range}: use 1e-30 to 1e6")
        _check(self.upload_budget >= 1, f"{key}.upload_budget", f"{self.upload_budget}: use a number of bytes")
        _check(0 <= self.accuracy_loss <= 100, f"{key}.accuracy_loss", f"{self.accuracy_loss}: use 0 to 100 points")
        _check(
            not self.accuracy_loss or self.compression == "auto",
            f"{key}.accuracy_loss",
            f"{self.compression} is what was asked for; only auto chooses by accuracy",
        )
        try:
            scheme = parse_scheme(self.compression)
        except ParameterError as error:
            raise ConfigError(f"{key}.compression", str(error)) from error
        _check(
            scheme.kind is not SchemeKind.FLOAT16_ZLIB or not self.enabled,
            f"{key}.compression",
            "float16-zlib cannot be summed under masks: masked vectors are uniform, zlib finds nothing in them; "
            "use ring:BITS,subspace:FRACTION or auto, or --no-secure-agg",
        )


@dataclass(frozen=True)
class SimulationConfig:
    """Losses that the simulation brings about.

    Attributes:
        dropout: Probability that a site is lost in a round, at a stage drawn uniformly; at random no more are lost than
            the round survives (docs/run-folder.md).
        drop: Sites to lose, each `SITE@ROUND:STAGE`.
    """

    dropout: float = 0.0
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(0 <= self.dropout < 1, "simulation.dropout", f"{self.dropout}: use a probability from 0 to below 1")
        self.schedule()

    def schedule(self) -> dict[tuple[str, int], str]:
        """Return `drop` as {(site, round): stage}; raises ConfigError where an entry cannot be read."""
        plan: dict[tuple[str, int], str] = {}
        for entry in self.drop:
            match = _DROP.fullmatch(entry)
            if match is None or match["stage"] not in (*STAGES, RING_STAGE, PLAIN_STAGE):
                stages = f"{', '.join(STAGES)}; {RING_STAGE} on a ring, {PLAIN_STAGE} in clear"
                raise ConfigError("simulation.drop", f"{entry!r}: write SITE@ROUND:STAGE with a stage of {stages}")
            lost = composed(match["site"]), int(match["round"])
            _check(lost not in plan, "simulation.drop", f"{entry!r}: {lost[0]} is lost in round {lost[1]} already")
            plan[lost] = match["stage"]
        return plan


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result; its digest goes into session ids and the log."""

    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    training: TrainingSettings = field(default_factory=TrainingSettings.default)
    secure_aggregation: SecureAggregationConfig = field(default_factory=SecureAggregationConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    purpose: PurposeConfig = field(default_factory=PurposeConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    @property
    def aggregates(self) -> bool:
        """Whether hospitals send updates with this method."""
        return self.federation.method in AGGREGATED_METHODS
