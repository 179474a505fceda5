"""From TOML files and flags to a checked configuration, and back."""

import dataclasses
import difflib
import hashlib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import category

import rfc8785
import tomli_w

from audit.durable import write_whole
from clients.data.rows import is_utf8
from clients.method.settings import SettingsError, TrainingSettings
from securefed.config.schema import FederationConfig, RunConfig
from securefed.errors import ConfigError
from securefed.run_folder import unwritable

PROFILES = {
    "default": TrainingSettings.default,
    "paper": TrainingSettings.paper,
    "private": TrainingSettings.private,
    "private-one-way": TrainingSettings.private_one_way,
}
"""Named starting points of the [training] section; `training.profile` picks one."""

_TRAINING = {field.name for field in dataclasses.fields(TrainingSettings)}

_GROUPS = {"fam_clip_norm": 1.0, "mlp_clip_norm": 1.0, "fam_noise_share": 0.25}
"""Clip norms of their own for FAM and MLP, where there are both and nobody gives one for both together."""

_OF_EACH = ("fam_clip_norm", "mlp_clip_norm", "fam_noise_share")
"""Settings that mean nothing where FAM and MLP are clipped together."""

_CENTRING_STEPS = 2
"""Of the mode `local`, where the layers keep all rows (rule P17 of docs/privacy.md) and a run is long enough."""

_MOST = 2**53 - 1
"""The largest integer that canonical JSON (RFC 8785) can state, in which configurations are recorded."""

_LONGEST = 4000
"""Characters of a text in a record."""

_LONG_ENOUGH = 20
"""Steps of a run; in shorter ones measuring takes too much of the training."""


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a TOML file, put `overrides` on top, check everything and return the configuration.

    Args:
        path: TOML file with the sections of RunConfig; None for none.
        overrides: Dotted keys to values (`federation.rounds`: 10), stronger than the file. A profile among them
            replaces a [training] section that has all settings, as a resolved file has; the settings of others are on
            top of it. Clip norms replace those of the other kind (of both parts, or of each).

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; the key is named.
    """
    tree = read_toml(path) if path is not None else {}
    overlay(tree, overrides or {})
    return config_from_mapping(tree)


def _give_way(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Take out of a file what would keep overrides from counting: a resolved one has every key, and says all of it."""
    training = tree.get("training")
    if "training.profile" in overrides and isinstance(training, dict) and training.keys() >= _TRAINING:
        del tree["training"]
    privacy = tree.get("privacy")
    if not isinstance(privacy, dict):
        return
    gone: tuple[str, ...] = ()
    if "privacy.clip_norm" in overrides:
        gone = _OF_EACH
    elif any(overrides.get(f"privacy.{key}") for key in _OF_EACH[:2]) and not privacy.get("fam_clip_norm"):
        gone = ("clip_norm", *_OF_EACH) if "clip_norm" in privacy else ()
    for key in gone:
        privacy.pop(key, None)


def overlay(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Put values at dotted keys (`federation.rounds`) of a tree of sections, in the place of what would outweigh them.

    Raises:
        ConfigError: A section is none.
    """
    _give_way(tree, overrides)
    for key, value in overrides.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ConfigError(key, "is not a section")
        node[name] = value


def config_from_mapping(tree: Mapping[str, Any]) -> RunConfig:
    """Build the configuration from nested mappings; raises ConfigError that names the first wrong key.

    What is not given has the defaults of the dataclasses; with differential privacy some have others (`PRIVATE`).
    """
    if not isinstance(tree, Mapping):
        raise ConfigError("", f"a configuration is a mapping of sections, not of type {type(tree).__name__}")
    tree = _with_private_defaults(tree)
    given = tree.get("training", {})
    if not isinstance(given, Mapping):
        raise ConfigError("training", "is a section, not a value")
    training = dict(given)
    profile = training.pop("profile", "default")
    if not isinstance(profile, str) or profile not in PROFILES:
        raise ConfigError("training.profile", f"{profile!r} is unknown; use {' or '.join(PROFILES)}")
    base = dataclasses.asdict(PROFILES[profile]())
    _refuse_unknown(training, base, "training")
    config = _build(RunConfig, {**tree, "training": {**base, **training}}, "")
    assert isinstance(config, RunConfig)  # noqa: S101 (narrows the type)
    return config


def section_from_mapping(kind: type, tree: Mapping[str, Any], key: str) -> Any:
    """Build a frozen dataclass of settings from a mapping, as strictly as the configuration.

    Args:
        kind: The dataclass; its fields are values or further dataclasses.
        tree: Names and values.
        key: Dotted name of the section, for errors.

    Raises:
        ConfigError: A key is unknown, missing or out of range; names it.
    """
    return _build(kind, tree, key)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split `SECTION.KEY=VALUE`; the value is read as TOML and, where it is none, as a plain string."""
    key, separator, value = text.partition("=")
    if not separator or "." not in key:
        raise ConfigError("--set", f"{text!r}: write SECTION.KEY=VALUE, for example training.batch_size=64")
    try:
        return key.strip(), tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def config_to_mapping(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as nested dictionaries of plain values; `load` of it gives the same again."""
    plain = _plain(dataclasses.asdict(config))
    assert isinstance(plain, dict)  # noqa: S101 (narrows the type)
    return plain


def write_config(config: RunConfig, path: Path) -> None:
    """Write the resolved configuration as TOML, whole or not at all.

    Raises:
        RunFolderError: It cannot be written.
    """
    try:
        write_whole(path, [tomli_w.dumps(config_to_mapping(config)).encode()])
    except OSError as error:
        raise unwritable(path, error) from error


def config_digest(config: RunConfig) -> str:
    """Return the SHA-256 (hex) of the canonical JSON (RFC 8785) of the configuration."""
    return hashlib.sha256(rfc8785.dumps(config_to_mapping(config))).hexdigest()


def profile_name(training: TrainingSettings) -> str:
    """Return the profile whose settings these are, "" for none."""
    return next((name for name, make in PROFILES.items() if make() == training), "")


def _with_private_defaults(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in what has another default with differential privacy (docs/privacy.md says what, and why)."""
    given = tree.get("privacy", {})
    if not isinstance(given, Mapping) or given.get("mode", "off") == "off":
        return tree
    mode = given["mode"]
    privacy = {
        "unit": "hospital" if mode == "hospital" else "image",
        "coupling": "one-way" if mode == "distributed" else "joint",
        **given,
    }
    both = privacy["coupling"] == "joint" and _method(tree) != "fedclip"
    if mode == "local" and both and "clip_norm" not in given and given.get("fam_clip_norm") != 0:
        privacy = {**_GROUPS, **privacy}
    profile = "private-one-way" if privacy["coupling"] == "one-way" else "private"
    if mode == "hospital":
        profile = "default"  # hospitals train as without noise; what they send is clipped as a whole
    if mode == "local" and _steps(tree, privacy) >= _LONG_ENOUGH and not _learns_thresholds(tree, profile):
        privacy = {"centring_steps": _CENTRING_STEPS, **privacy}
    filled = {**tree, "privacy": privacy}
    for section, key, value in (("federation", "select", "last"), ("training", "profile", profile)):
        node = tree.get(section, {})
        if isinstance(node, Mapping):
            filled[section] = {key: value, **node}
    return filled


def _method(tree: Mapping[str, Any]) -> object:
    federation = tree.get("federation", {})
    return federation.get("method", FederationConfig.method) if isinstance(federation, Mapping) else ""


def _steps(tree: Mapping[str, Any], privacy: Mapping[str, Any]) -> int:
    """Return the steps of the run; 0 where what is given is no number, which is refused later."""
    federation = tree.get("federation", {})
    rounds = federation.get("rounds", FederationConfig.rounds) if isinstance(federation, Mapping) else 0
    steps = privacy.get("steps", 1)
    return rounds * steps if isinstance(rounds, int) and isinstance(steps, int) else 0


def _learns_thresholds(tree: Mapping[str, Any], profile: str) -> bool:
    given = tree.get("training", {})
    named = given.get("profile", profile) if isinstance(given, Mapping) else profile
    settings = PROFILES.get(str(named), TrainingSettings.default)()
    return bool(given.get("learn_thresholds", settings.learn_thresholds)) if isinstance(given, Mapping) else True


def read_toml(path: Path, named: str = "--config") -> dict[str, Any]:
    """Read a TOML file; raises ConfigError under the name of the argument that asked for it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(named, f"{path} cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(named, f"{path} is not valid TOML: {error}") from error


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], section: str) -> None:
    for name in given:
        if not isinstance(name, str):
            raise ConfigError(section, f"{name!r} is no key; keys are texts, known here: {', '.join(known)}")
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            raise ConfigError(f"{section}.{name}".strip("."), f"unknown key; {hint}")


def _build(kind: type, value: object, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(key, "is a section, not a value")
    hints = typing.get_type_hints(kind)
    _refuse_unknown(value, hints, key)
    arguments = {name: _convert(hints[name], item, f"{key}.{name}".strip(".")) for name, item in value.items()}
    for field in dataclasses.fields(kind):
        defaults = (field.default, field.default_factory)
        if field.name not in arguments and all(default is dataclasses.MISSING for default in defaults):
            raise ConfigError(f"{key}.{field.name}".strip("."), "is missing")
    try:
        return kind(**arguments)
    except SettingsError as error:
        raise ConfigError(f"{key}.{error.field}", str(error)) from error


def _convert(kind: Any, value: object, key: str) -> Any:
    _refuse_unrecordable(value, key)
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)  # noqa: S101 (narrows the type)
        return _build(kind, value, key)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        kinds = [option for option in typing.get_args(kind) if option is not types.NoneType]
        return None if value is None else _convert(kinds[0], value, key)
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise ConfigError(key, f"{value!r} is unknown; use {', '.join(map(str, typing.get_args(kind)))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(key, "must be a list")
        return tuple(_convert(typing.get_args(kind)[0], item, key) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(key, f"{value!r} must be of type {kind.__name__}")
    return value


def _refuse_unrecordable(value: object, key: str) -> None:
    """Refuse numbers and texts that neither config.toml nor a record can hold, before a folder is made."""
    if isinstance(value, int) and abs(value) > _MOST:
        raise ConfigError(key, "is beyond 2**53 - 1, up to which a record can state integers; use a smaller one")
    if not isinstance(value, str):
        return
    if not is_utf8(value):
        raise ConfigError(key, "is not UTF-8 text; write it in UTF-8, or rename what it names")
    if len(value) > _LONGEST:
        raise ConfigError(key, f"has {len(value)} characters, at most {_LONGEST} are kept")
    if any(category(sign) == "Cc" for sign in value):
        raise ConfigError(key, "holds line ends or control characters; write it on one line")


def _plain(value: object) -> object:
    """Tuples become lists and None vanishes: what TOML and JSON both can say."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
