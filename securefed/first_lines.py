"""What a simulation says before anything else: what follows from the seed, what runs, whether updates are masked."""

from securefed.config import RunConfig


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
    return lines
