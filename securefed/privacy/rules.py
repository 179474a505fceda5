"""What a configuration may not combine with differential privacy; refused before anything is trained.

Each refusal names its rule in docs/privacy.md, where the rule's reason is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from clients.data.options import column_setting
from securefed.config import RunConfig
from securefed.errors import ConfigError

WIRED = ("off", "local", "distributed", "hospital")
"""Modes that this version can run."""

_METHODS = ("fedmedclip", "fedclip")


@dataclass(frozen=True)
class Broken:
    """A rule that a configuration breaks.

    Attributes:
        rule: Its number in docs/privacy.md.
        key: The dotted key that breaks it.
        reason: Why, and what to set instead.
    """

    rule: str
    key: str
    reason: str


def check_privacy(config: RunConfig) -> None:
    """Refuse a configuration that breaks a rule other than P10: noise from a seed may run, and says NOT PRIVATE.

    Raises:
        ConfigError: The first such rule, with the key.
    """
    mode = config.privacy.mode
    if mode not in WIRED:
        raise ConfigError("privacy.mode", f"{mode} is not available in this version; use {', '.join(WIRED)}")
    for broken in broken_rules(config):
        if broken.rule == "P10":
            continue
        raise ConfigError(broken.key, f"{broken.reason} (rule {broken.rule} of docs/privacy.md)")


def require_patients(unit: str, site: str, patients: Iterable[str | None]) -> None:
    """Refuse patients as the unit of privacy where a training image of a site has none.

    Raises:
        ConfigError: That is so; with the site.
    """
    if unit == "patient" and any(name is None for name in patients):
        raise ConfigError(
            "privacy.unit",
            f"patient: {site} has training images without a patient; name the column by {column_setting('patient')}, "
            "or use --privacy-unit image (rule P13 of docs/privacy.md)",
        )


def broken_rules(config: RunConfig) -> list[Broken]:
    """Return every rule that the configuration breaks; none without differential privacy."""
    if not config.privacy.enabled:
        return []
    found = [*_about_the_run(config), *_about_the_step(config), *_about_shares(config)]
    if config.privacy.mode == "hospital":
        return found  # a clipped update bounds all that a hospital does; its records may be coupled
    found += _about_the_loss(config)
    return found + (list(_about_the_mlp(config)) if config.privacy.coupling == "joint" else list(_one_way(config)))


def _about_the_run(config: RunConfig) -> Iterator[Broken]:
    if config.privacy.noise == "seeded":
        yield Broken(
            "P10",
            "privacy.noise",
            "seeded: noise and samples follow from the seed of the run, protect nobody who knows it, and nothing is "
            "claimed; use system, and no --seed",
        )
    if config.federation.method not in _METHODS:
        yield Broken(
            "P12",
            "federation.method",
            f"{config.federation.method} has no private training: use {' or '.join(_METHODS)}",
        )
    if config.federation.select == "best-val":
        yield Broken(
            "P8",
            "federation.select",
            "best-val: choosing a round by private validation images is a release that nobody accounts; use last",
        )


def _about_the_step(config: RunConfig) -> Iterator[Broken]:
    privacy = config.privacy
    if privacy.mode in ("distributed", "hospital") and privacy.steps > 1:
        yield Broken(
            "P11",
            "privacy.steps",
            f"{privacy.steps} steps with a share of the noise each: later steps follow from too little noise and no "
            "accounting is known; use 1, or --dp local",
        )
    if privacy.mode == "distributed" and privacy.coupling == "joint":
        yield Broken(
            "P4",
            "privacy.coupling",
            "joint: the MLP never enters the ring, so that its noise shares would protect nothing; use one-way",
        )
    if privacy.clips_by_group and config.federation.method == "fedclip":
        yield Broken(
            "P18",
            "privacy.fam_clip_norm",
            "a norm beside that of the private MLP, which fedclip has not: part of the noise would be for nothing; use "
            "privacy.clip_norm",
        )
    if privacy.centring_steps and config.training.learn_thresholds:
        yield Broken(
            "P17",
            "privacy.centring_steps",
            f"{privacy.centring_steps}: a layer that switches rows off is not the same model in centred coordinates; "
            "use 0, or training.learn_thresholds=false",
        )
    if privacy.centring_steps and privacy.centring_steps >= privacy.steps * config.federation.rounds:
        yield Broken(
            "P17",
            "privacy.centring_steps",
            f"{privacy.centring_steps} of {privacy.steps * config.federation.rounds} steps would measure and none "
            "train; use fewer, or more rounds",
        )


def _about_shares(config: RunConfig) -> Iterator[Broken]:
    """What noise inside the ring rules out."""
    if config.privacy.mode not in ("distributed", "hospital"):
        return
    if config.secure_aggregation.compression != "none":
        yield Broken(
            "P15",
            "secure_aggregation.compression",
            f"{config.secure_aggregation.compression}: noise is added to whole vectors, on their own grid; use none",
        )
    if config.privacy.ledger and config.privacy.charge == "sum" and not config.secure_aggregation.enabled:
        yield Broken(
            "P16",
            "privacy.charge",
            "sum: in clear the server sees every vector with one share of the noise, and a ledger that is charged the "
            "sum has too little in it; use share",
        )

    if config.privacy.dropout_noise == "xnoise" and (hindered := hindrances_of_xnoise(config)):
        yield Broken("P19", "privacy.dropout_noise", f"xnoise: {hindered[0]}; use conservative, or auto")


def hindrances_of_xnoise(config: RunConfig) -> list[str]:
    """Return what stands against removing excess noise exactly, whatever the number of hospitals."""
    secure, privacy = config.secure_aggregation.enabled, config.privacy
    reasons = (
        (not secure, "secure aggregation is off: seeds cannot be shared"),
        (privacy.mechanism != "skellam", "only Skellam noise is closed under sums"),
        (privacy.noise != "system", "what is removed comes from the protocol's entropy and is not reproducible"),
    )
    return [reason for hinders, reason in reasons if hinders]


def _about_the_loss(config: RunConfig) -> Iterator[Broken]:
    training = config.training
    if training.fam_loss == "contrastive":
        yield Broken(
            "P1",
            "training.fam_loss",
            "contrastive: the loss of an image depends on the whole batch, one image moves the clipped sum by several "
            "clip norms; use class-prompt",
        )
    for name in ("prior_adjustment", "class_balance"):
        if getattr(training, name):
            yield Broken("P5", f"training.{name}", "uses the exact number of private images of each class; use 0")
    alone = config.privacy.coupling == "one-way" and config.federation.method != "fedclip"  # an MLP without noise
    if training.local_epochs != 1 and not alone:
        yield Broken(
            "P6",
            "training.local_epochs",
            "passes over shuffled images are no Poisson samples; privacy.steps and privacy.sampling_rate say how long "
            "a round is; leave it at 1",
        )
    if training.feature_dropout:
        yield Broken("P9", "training.feature_dropout", "draws for a whole batch at once; use 0")


def _about_the_mlp(config: RunConfig) -> Iterator[Broken]:
    training = config.training
    if config.federation.method == "fedclip":
        return
    if training.distillation == "class-wise":
        yield Broken(
            "P2",
            "training.distillation",
            "class-wise: the softmax over the batch lets one image move the clipped sum by many clip norms; use "
            "per-example or off",
        )
    if training.mlp_norm == "batch":
        yield Broken(
            "P3",
            "training.mlp_norm",
            "batch: the norm couples the images of a batch, and its statistics are a release; use layer, group or none",
        )
    if training.mlp_dropout and training.mlp_layers:
        yield Broken("P9", "training.mlp_dropout", "draws for a whole batch at once; use 0")


def _one_way(config: RunConfig) -> Iterator[Broken]:
    training = config.training
    if config.federation.method == "fedclip":
        return
    for key, taught in (("mlp_to_fam", training.mlp_to_fam), ("distillation", training.distillation != "off")):
        if taught:
            yield Broken(
                "P4",
                f"training.{key}",
                "lets the FAM learn from an MLP that is a function of all records and has no noise: then noise on the "
                f"FAM alone guarantees nothing; use {'false' if key == 'mlp_to_fam' else 'off'}, or "
                "privacy.coupling=joint",
            )
