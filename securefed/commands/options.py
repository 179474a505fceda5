"""Flags shared by commands, each bound to one dotted key of the configuration; a flag is stronger than the file."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from audit.errors import AuditError
from audit.regular_file import read_regular
from securefed.commands.paths import PATH
from securefed.config import RunConfig, load_config, parse_assignment
from securefed.errors import ConfigError, NoRunFolderError

Command = TypeVar("Command", bound=Callable[..., Any])

DATA_FLAGS = {
    "data": "data.source",
    "encoder": "encoder.name",
    "clients": "data.clients",
    "alpha": "data.alpha",
    "global_site": "data.global_site",
    "path_column": "data.path_column",
    "label_column": "data.label_column",
    "site_column": "data.site_column",
    "patient_column": "data.patient_column",
    "split_column": "data.split_column",
    "strict": "data.strict",
}

PRIVACY_FLAGS = {
    "dp": "privacy.mode",
    "epsilon": "privacy.epsilon",
    "noise_multiplier": "privacy.noise_multiplier",
    "delta": "privacy.delta",
    "privacy_unit": "privacy.unit",
    "clip_norm": "privacy.clip_norm",
    "sampling_rate": "privacy.sampling_rate",
    "max_colluders": "privacy.max_colluders",
}

RUN_FLAGS = {
    **DATA_FLAGS,
    "method": "federation.method",
    "profile": "training.profile",
    "rounds": "federation.rounds",
    "seed": "federation.seed",
    "device": "federation.device",
    "secure_agg": "secure_aggregation.enabled",
    "threat_model": "secure_aggregation.threat_model",
    "threshold": "secure_aggregation.threshold",
    "value_bits": "secure_aggregation.value_bits",
    "compression": "secure_aggregation.compression",
    "dropout": "simulation.dropout",
    "drop": "simulation.drop",
    **PRIVACY_FLAGS,
}


def require_run(*runs: Path) -> None:
    """Refuse what is no run, which says nothing about a record; raises NoRunFolderError (exit code 2).

    A run whose log is gone has its configuration still: that is a finding. What a hospital keeps of a run has no log.
    """
    for run in runs:
        if not run.is_dir():
            raise NoRunFolderError(run)
        record = ("audit.jsonl", "heads.jsonl", "roster.json")
        if (run / "hospital.toml").exists() and not any((run / name).exists() for name in record):
            raise NoRunFolderError(run, "it has the results of one hospital; the record is in the server's run folder")
        if not any((run / name).exists() for name in ("audit.jsonl", "config.toml")):
            raise NoRunFolderError(run, "audit.jsonl and config.toml are missing")


def require_files(*, roster: Path | None = None, heads: Sequence[Path] = (), ledger: Path | None = None) -> None:
    """Refuse files of options that cannot be read or are of another kind, which say nothing about a record.

    Raises:
        ConfigError: naming option and file. What a file says may contradict the record: that is a finding.
    """
    from audit.heads import read_given_heads
    from audit.ledger.database import read_database
    from audit.roster import Roster

    if roster is not None:
        _require("--roster", roster, "roster; name the file that was agreed on before the run", Roster.read)
    for path in heads:
        _require("--heads", path, "file of tree heads; name one that a hospital kept", read_given_heads)
    if ledger is not None:
        _require("--ledger", ledger, "ledger; name a file that runs charge", lambda path: read_database(path).close())


def _require(option: str, path: Path, kind: str, read: Callable[[Path], object]) -> None:
    try:
        read_regular(path)
        read(path)
    except OSError as error:
        raise ConfigError(option, f"{path} cannot be read ({error.strerror}); name a file that is there") from error
    except AuditError as error:
        raise ConfigError(option, f"{path} is no {kind} ({error})") from error


def assign_option(command: Command) -> Command:
    """Add --set."""
    return click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any key, e.g. training.batch_size=64."
    )(command)


def config_option(command: Command) -> Command:
    """Add --config and --set."""
    command = assign_option(command)
    return click.option("--config", "config_file", type=PATH, metavar="TOML", help="Configuration; flags win.")(command)


def data_options(command: Command) -> Command:
    """Add the flags that say what the data and the encoder are."""
    return _add(_SOURCE_OPTIONS, _add(_COLUMN_OPTIONS, command))


def data_options_without_columns(command: Command) -> Command:
    """Add the same flags, those for columns of a manifest without lines in the help."""
    hidden = [partial(option, hidden=True) for option in _COLUMN_OPTIONS]
    return _add(_SOURCE_OPTIONS, _add(hidden, command))


_SOURCE_OPTIONS = [
    partial(click.option, "--data", metavar="SOURCE", help="demo, a folder, a manifest, a MedMNIST .npz."),
    partial(click.option, "--encoder", metavar="NAME", help="ViT-B-32/openai, hf-hub:..., local-dir:..."),
    partial(click.option, "--clients", type=int, metavar="N", help="Deal a single-site set to N hospitals ..."),
    partial(click.option, "--alpha", type=float, metavar="A", help="... by Dirichlet(A) instead of IID."),
    partial(click.option, "--global-site", metavar="SITE", help="Hold a site out and test on it."),
]
_COLUMN_OPTIONS = [
    partial(click.option, "--path-column", metavar="NAME", help="Column with the image path."),
    partial(click.option, "--label-column", metavar="NAME", help="Column with the class."),
    partial(click.option, "--site-column", metavar="NAME", help="Column with the hospital."),
    partial(click.option, "--patient-column", metavar="NAME", help="Column with the patient."),
    partial(click.option, "--split-column", metavar="NAME", help="Column with train, val or test."),
    partial(click.option, "--strict", is_flag=True, default=None, help="Refuse bad images, do not skip them."),
]


def _add(options: Sequence[Callable[..., Any]], command: Command) -> Command:
    for option in reversed(options):
        command = option()(command)
    return command


def privacy_options(command: Command) -> Command:
    """Add the flags that say what is promised and how much noise keeps it."""
    mode = partial(click.option, "--dp", metavar="MODE", help="off, local, distributed or hospital. [off]")
    return _add([mode, *_PRIVACY_OPTIONS], command)


def private_options(command: Command) -> Command:
    """Add the same flags to a command that is about privacy, which has none of its own where no mode is named."""
    mode = partial(click.option, "--dp", metavar="MODE", help="local, distributed or hospital. [local]")
    return _add([mode, *_PRIVACY_OPTIONS], command)


_PRIVACY_OPTIONS = [
    partial(click.option, "--epsilon", type=float, metavar="E", help="Limit; noise is calibrated to it ..."),
    partial(click.option, "--noise-multiplier", type=float, metavar="Z", help="... unless it is given."),
    partial(click.option, "--delta", type=float, metavar="D", help="Chance that it fails. [1e-5]"),
    partial(click.option, "--privacy-unit", metavar="UNIT", help="image, patient or hospital. [image]"),
    partial(click.option, "--clip-norm", type=float, metavar="C", help="Norm of one unit's part. [1]"),
    partial(click.option, "--sampling-rate", type=float, metavar="Q", help="Poisson rate of a step. [1]"),
    partial(click.option, "--max-colluders", type=int, metavar="N", help="Hospitals that pool noise. [0]"),
]


def cache_option(command: Command) -> Command:
    """Add --cache-dir."""
    return click.option(
        "--cache-dir",
        type=PATH,
        metavar="DIR",
        help="Feature cache. [~/.cache/securefed]",
    )(command)


def json_option(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)


def resolve_config(
    flags: Mapping[str, Any], names: Mapping[str, str], config_file: Path | None, assignments: tuple[str, ...]
) -> RunConfig:
    """Return the configuration of file, --set and flags, in rising strength."""
    overrides = dict(parse_assignment(text) for text in assignments)
    for flag, key in names.items():
        value = flags.get(flag)
        if value is None or value == ():
            continue
        overrides[key] = list(value) if isinstance(value, tuple) else value
    encoder = flags.get("encoder") or ""
    if encoder.startswith("features:") and "data.source" not in overrides and config_file is None:
        overrides["data.source"] = encoder  # a file of features is a data set and an encoder at once
    config = load_config(config_file, overrides)
    if config.privacy.enabled and flags.get("seed") is not None and "privacy.noise" not in overrides:
        # Who asks for a seed wants the same numbers again, those of the noise among them.
        return load_config(config_file, {**overrides, "privacy.noise": "seeded"})
    return config
