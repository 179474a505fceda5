"""What a simulation says before anything else: what follows from the seed, what runs, whether updates are masked."""

from collections.abc import Iterator
from dataclasses import asdict

from securefed.config import PrivacyConfig, RunConfig, SecureAggregationConfig, SimulationConfig


def first_lines(config: RunConfig) -> list[str]:
    """Return the lines; the first one says of noise from a seed that it protects nobody."""
    first = "SIMULATION: partitions, start, batches and rounding come from the seed; keys and pads never do."
    if config.privacy.enabled and config.privacy.noise == "seeded":
        first = (
            "SIMULATION WITH REPRODUCIBLE NOISE, NOT PRIVATE: the noise follows from the seed, nothing is claimed; "
            "leave --seed out for noise that protects."
        )
    elif config.privacy.enabled:
        first = f"SIMULATION: partitions{_seeded(config)} never do."
    lines = [first, f"{config.federation.method} on {config.data.source} with encoder {config.encoder.name}"]
    if config.aggregates:
        secure = config.secure_aggregation
        lines.append(
            f"secure aggregation: {secure.threat_model}"
            if secure.enabled
            else "secure aggregation: OFF, updates in clear"
        )
    if idle := list(_without_effect(config)):
        lines.append(f"without effect here: {', '.join(idle)}")
    return lines


def _seeded(config: RunConfig) -> str:
    """Return what else comes from the seed of a run with noise of the system, and what does not."""
    if config.privacy.mode == "hospital":
        return ", start and batches come from the seed; keys, pads, rounding and noise"
    alone = config.privacy.coupling == "one-way" and config.federation.method != "fedclip"
    batches = ", start and the batches of the MLP" if alone else " and start"
    if config.privacy.mode == "distributed":
        return f"{batches} come from the seed; keys, pads, samples, rounding and noise"
    return f", rounding{batches} come from the seed; keys, pads, samples and noise"


def _without_effect(config: RunConfig) -> Iterator[str]:
    """Yield settings that differ from their defaults and that nothing reads with this method and compression."""
    secure = config.secure_aggregation
    if config.data.class_names and not config.data.source.lower().endswith(".npz"):
        yield "data.class_names (only a MedMNIST file has numbers for classes)"
    if not config.aggregates:
        for key, own, usual in (
            ("secure_aggregation", secure, SecureAggregationConfig()),
            ("simulation", config.simulation, SimulationConfig()),
        ):
            default = asdict(usual)
            for name, value in asdict(own).items():
                if value != default[name]:
                    yield f"{key}.{name} ({config.federation.method} sums nothing)"
        return
    if secure.upload_budget != SecureAggregationConfig.upload_budget and secure.compression != "auto":
        yield f"secure_aggregation.upload_budget (compression is {secure.compression}, not auto)"
    privacy = config.privacy
    if privacy.mode in ("distributed", "hospital"):
        for key in ("value_bits", "update_range"):
            if getattr(secure, key) != getattr(SecureAggregationConfig, key):
                yield f"secure_aggregation.{key} (noise in shares has a grid of its own)"
    if privacy.spare_rounds and privacy.noise_multiplier:
        yield "privacy.spare_rounds (the noise is given, not calibrated)"
    if privacy.charge != PrivacyConfig.charge and not (privacy.ledger and privacy.mode in ("distributed", "hospital")):
        yield "privacy.charge (no ledger is charged for noise in shares)"
