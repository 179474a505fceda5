"""Configuration: what can be set, its ranges, and how files and flags become one checked value."""

from securefed.config.load import (
    PROFILES,
    config_digest,
    config_from_mapping,
    config_to_mapping,
    load_config,
    overlay,
    parse_assignment,
    profile_name,
    read_toml,
    section_from_mapping,
    write_config,
)
from securefed.config.privacy import CHARGES, PrivacyConfig
from securefed.config.purpose import PurposeConfig
from securefed.config.schema import (
    PLAIN_STAGE,
    RING_STAGE,
    STAGES,
    THREAT_MODELS,
    DataConfig,
    EncoderConfig,
    FederationConfig,
    RunConfig,
    SecureAggregationConfig,
    SimulationConfig,
)

__all__ = [
    "CHARGES",
    "PLAIN_STAGE",
    "PROFILES",
    "RING_STAGE",
    "STAGES",
    "THREAT_MODELS",
    "DataConfig",
    "EncoderConfig",
    "FederationConfig",
    "PrivacyConfig",
    "PurposeConfig",
    "RunConfig",
    "SecureAggregationConfig",
    "SimulationConfig",
    "config_digest",
    "config_from_mapping",
    "config_to_mapping",
    "load_config",
    "overlay",
    "parse_assignment",
    "profile_name",
    "read_toml",
    "section_from_mapping",
    "write_config",
]
