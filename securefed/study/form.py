"""The study file: TOML, every key present, no other key known; its digest binds keys, log and report (docs/study.md).

Nothing in a study depends on a default of the software: `study init` writes every value out, and a file that leaves one
out is refused. What each hospital decides for itself (where its data lie, its device, its ledger) is not in it.
"""

import dataclasses
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import tomli_w

from audit.canonical import CanonicalError, encode_canonical
from audit.errors import EvidenceError
from audit.roster import Roster
from audit.rules import DIGEST, KEY, NAME, FieldError, Integer, ListOf, MapOf, Record, Rule
from clients.data.rows import reordering
from protocols.roster import Roster as ProtocolRoster
from securefed.config import RunConfig, config_from_mapping, config_to_mapping
from securefed.errors import ConfigError, RunFolderError
from securefed.identity import check_hospital, check_name

FORMAT: Final = "securefed-study/1"
EACH_ITS_OWN: Final = "each hospital's own"
"""Stands in a run's configuration for the data, which every hospital points to for itself."""

SECTIONS: Final = ("federation", "training", "secure_aggregation", "privacy", "purpose")
"""Sections of the run's configuration that are agreed."""

LOCAL: Final = {"federation": ("device",), "privacy": ("ledger", "charge")}
"""Keys of these sections that each party sets for itself."""

_TEXTS = ListOf(NAME, unique=True)
_HEAD: Final[Mapping[str, Rule]] = {
    "format": NAME,
    "name": NAME,
    "classes": _TEXTS,
    "prompts": ListOf(ListOf(NAME)),
}
_ENCODER = Record({"name": NAME, "digest": DIGEST, "embed_dim": Integer(1, 1 << 16)})
_ROSTER = Record({"server": KEY, "hospitals": MapOf(KEY, NAME)})


@dataclass(frozen=True)
class Study:
    """What all parties agree to.

    Attributes:
        name: What people call it, in characters that a folder's name may have.
        classes: Names of the C classes, in the order of the outputs.
        prompts: For every class the prompts whose features are averaged.
        encoder: Specification of the encoder as the lead wrote it; a hospital may have it elsewhere.
        encoder_digest: SHA-256 (hex) of its weights, configuration and preprocessing.
        embed_dim: Width D of its features.
        config: The agreed configuration of the run; local keys have their defaults.
        roster: Keys of the server and of the hospitals.
    """

    name: str
    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    encoder: str
    encoder_digest: str
    embed_dim: int
    config: RunConfig
    roster: Roster

    def values(self) -> dict[str, Any]:
        """Return the file's content as nested mappings."""
        run = config_to_mapping(self.config)
        agreed = {
            name: {key: value for key, value in run[name].items() if key not in LOCAL.get(name, ())}
            for name in SECTIONS
        }
        return {
            "format": FORMAT,
            "name": self.name,
            "classes": list(self.classes),
            "prompts": [list(texts) for texts in self.prompts],
            "encoder": {"name": self.encoder, "digest": self.encoder_digest, "embed_dim": self.embed_dim},
            "roster": {"server": self.roster.server, "hospitals": dict(self.roster.hospitals)},
            **agreed,
        }

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the content as canonical JSON (RFC 8785): layout and comments of the file do not count."""
        return hashlib.sha256(encode_canonical(self.values())).hexdigest()

    @property
    def protocol_roster(self) -> ProtocolRoster:
        """The hospitals as the protocol knows them."""
        return ProtocolRoster({name: bytes.fromhex(key) for name, key in self.roster.hospitals.items()})

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return tomli_w.dumps(self.values()).encode()

    @classmethod
    def decode(cls, data: bytes, where: str = "study") -> Self:
        """Read a file.

        Raises:
            ConfigError: It is no TOML, a key is missing, unknown or out of range; names the key.
        """
        try:
            tree = tomllib.loads(data.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(where, f"is not valid TOML: {error}") from error
        study = cls._of(tree)
        _refuse_difference(tree, study.values(), "")
        return study

    @classmethod
    def _of(cls, tree: Mapping[str, Any]) -> Self:
        if tree.get("format") != FORMAT:
            raise ConfigError("format", f"is {tree.get('format')!r}; this version reads {FORMAT}")
        for key in (*_HEAD, "encoder", "roster", *SECTIONS):
            if key not in tree:
                raise ConfigError(key, "is missing: a study writes everything out; make it with `study init`")
        rules: dict[str, Rule] = {**_HEAD, "encoder": _ENCODER, "roster": _ROSTER}
        for key, rule in rules.items():
            try:
                rule.check(tree[key], key)
            except FieldError as error:
                raise ConfigError(error.where, error.reason) from error
        for name, keys in LOCAL.items():
            for key in keys:
                if key in tree[name]:
                    raise ConfigError(f"{name}.{key}", "is for each party to set, not for a study")
        encoder, roster = tree["encoder"], tree["roster"]
        config = config_from_mapping({name: tree[name] for name in SECTIONS} | _of_each(encoder["name"]))
        study = cls(
            name=tree["name"],
            classes=tuple(tree["classes"]),
            prompts=tuple(tuple(texts) for texts in tree["prompts"]),
            encoder=encoder["name"],
            encoder_digest=encoder["digest"],
            embed_dim=encoder["embed_dim"],
            config=config,
            roster=_roster(roster),
        )
        _check(study)
        return study


def new_study(
    name: str,
    classes: Sequence[str],
    prompts: Sequence[Sequence[str]],
    encoder: tuple[str, str, int],
    config: RunConfig,
    roster: Roster,
) -> Study:
    """Return a study of these choices.

    Args:
        name: What people call it.
        classes: Names of the classes.
        prompts: Prompts of each class.
        encoder: Specification, SHA-256 (hex) and width of the encoder.
        config: The configuration; its data, encoder and simulation sections and local keys do not count.
        roster: Keys of all parties.

    Raises:
        ConfigError: The choices contradict one another, or protect nobody.
    """
    specification, digest, width = encoder
    tree = config_to_mapping(config)
    sections = {
        section: {key: value for key, value in tree[section].items() if key not in LOCAL.get(section, ())}
        for section in SECTIONS
    }
    agreed = config_from_mapping(sections | _of_each(specification))
    texts = tuple(tuple(of_class) for of_class in prompts)
    study = Study(name, tuple(classes), texts, specification, digest, width, agreed, roster)
    return Study.decode(study.encode())


def read_study(path: Path) -> Study:
    """Read a study file; raises ConfigError where it cannot be read or is none."""
    try:
        return Study.decode(path.read_bytes(), str(path))
    except OSError as error:
        raise RunFolderError(path, f"cannot be read ({error.strerror}); name the study file of the lead") from error


def _of_each(encoder: str) -> dict[str, Any]:
    return {"data": {"source": EACH_ITS_OWN}, "encoder": {"name": encoder}}


def _roster(value: Mapping[str, Any]) -> Roster:
    try:
        return Roster.decode(Roster(value["server"], value["hospitals"]).encode())
    except EvidenceError as error:
        raise ConfigError("roster", str(error)) from error


def _check(study: Study) -> None:
    from securefed.cohort import check_cohort
    from securefed.privacy.rules import check_privacy

    if not study.config.aggregates:
        raise ConfigError("federation.method", f"{study.config.federation.method} shares nothing: no study is needed")
    check_privacy(study.config)
    if study.config.privacy.enabled and study.config.privacy.noise != "system":
        raise ConfigError("privacy.noise", "seeded: the seed stands in the study, noise from it protects nobody")
    check_name(study.name, "name")  # it names the run and its folders, here and at the hospitals
    for hospital in study.roster.hospitals:
        check_hospital(hospital, "roster.hospitals")
    if len(study.classes) < 2:
        raise ConfigError("classes", "a study tells at least two classes apart")
    if len(study.prompts) != len(study.classes) or not all(study.prompts):
        raise ConfigError("prompts", f"{len(study.classes)} classes need a list of prompts each")
    for key, texts in (("classes", study.classes), ("prompts", sum(study.prompts, ())), ("encoder", (study.encoder,))):
        for text in texts:  # admins read them in a terminal before they approve
            if fault := reordering(text):
                raise ConfigError(key, f"{text!r} {fault}")
    check_cohort(study.config, tuple(study.roster.hospitals), of_study=True)


def _refuse_difference(given: Mapping[str, Any], meant: Mapping[str, Any], where: str) -> None:
    """Refuse what the file says beyond, or short of, the study that was understood."""
    for key in {**given, **meant}:
        place = f"{where}.{key}".strip(".")
        if key not in meant:
            raise ConfigError(place, "unknown key; a study has no others than `study show` prints")
        if key not in given:
            raise ConfigError(place, "is missing: a study writes everything out; make it with `study init`")
        if isinstance(meant[key], Mapping) and isinstance(given[key], Mapping):
            _refuse_difference(given[key], meant[key], place)
    try:
        same = encode_canonical(given) == encode_canonical(meant)
    except CanonicalError as error:
        raise ConfigError(where or "study", f"holds a value without a canonical form ({error})") from error
    if not same:
        raise ConfigError(where or "study", "a value is not written as it is understood; compare with `study show`")


def with_local(config: RunConfig, *, device: str, charge: str = "sum") -> RunConfig:
    """Return an agreed configuration with one party's own choices."""
    return dataclasses.replace(
        config,
        federation=dataclasses.replace(config.federation, device=device),
        privacy=dataclasses.replace(config.privacy, charge=charge),
    )
