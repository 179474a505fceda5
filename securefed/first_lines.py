"""What a simulation says before anything else: what follows from the seed, what runs, whether updates are masked."""

from collections.abc import Iterator
from dataclasses import asdict

from securefed.config import RunConfig, SecureAggregationConfig, SimulationConfig


def first_lines(config: RunConfig) -> list[str]:
    """Return the lines; the first one says of noise from a seed that it protects nobody."""
    first = "SIMULATION: partitions, start, batches and rounding come from the seed; keys and pads never do."
    if config.privacy.enabled and config.privacy.noise == "seeded":
        first = (
            "SIMULATION WITH REPRODUCIBLE NOISE, NOT PRIVATE: the noise follows from the seed, nothing is claimed; "
            "leave --seed out for noise that protects."
        )
    elif config.privacy.enabled:
        first = "SIMULATION: partitions, start and rounding come from the seed; keys, pads, samples and noise never do."
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
    elif secure.upload_budget != SecureAggregationConfig().upload_budget and secure.compression != "auto":
        yield f"secure_aggregation.upload_budget (compression is {secure.compression}, not auto)"
