"""What is wrong at a hospital, in words for its ML engineer: before anything is approved, and whenever one looks."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from audit.bounds import at_least
from audit.errors import AuditError, EvidenceError, KeyFileError
from audit.heads import read_heads
from audit.log import Event, EventLog
from audit.roster import public_hex
from audit.signing_key import load_key, load_secret
from clients.data import DataError, inspect
from clients.encoders import EncoderError
from securefed.errors import ConfigError, SecureFedError
from securefed.privacy.at_site import SitePrivacy
from securefed.privacy.rules import require_patients
from securefed.site.data import own_dataset, own_features, unknown_classes
from securefed.site.folder import SiteFolder
from securefed.site.opening import CHANGED, approved_study, data_fingerprint, is_as_approved, last_round, site_privacy
from securefed.site.settings import SiteSettings, read_settings
from securefed.study.form import Study
from securefed.study.terms import terms_of

_SPARE_BYTES: Final = 512 * 2**20
"""Disk that a study may need beside the features: states, results, logs."""

_FIRST_DAY: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""No clock that is right can be before this software."""


_READINGS: Final = 5
"""How often ledger and private logs are compared at most while a node writes them."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    LOOK = "look"
    """Worth a look; a study can run."""

    WRONG = "wrong"
    """A study cannot run like this."""


@dataclass(frozen=True)
class SiteFinding:
    """One line of `site check`.

    Attributes:
        topic: What it is about.
        level: How bad it is.
        text: What is so and, where something is wrong, what to do.
    """

    topic: str
    level: Level
    text: str


def check_site(
    folder: SiteFolder,
    study: Study | None,
    now: datetime,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[SiteFinding]:
    """Return everything that can be said of a hospital's folder, for a study if there is one.

    Args:
        folder: The folder.
        study: The study that is to be run.
        now: The time of this machine.
        on_progress: Called with images looked at and their number.
    """
    found = list(_folder(folder))
    try:
        settings = read_settings(folder.settings)
    except ConfigError as error:
        return [*found, SiteFinding("settings", Level.WRONG, str(error))]
    found += [*_key(folder, settings, study), *_data_key(folder)]
    images: list[SiteFinding] = list(_data(settings, study, on_progress))
    found += images
    if study is None:
        found.append(SiteFinding("study", Level.LOOK, "none was given; run again with the lead's study file"))
    else:
        found += _study(settings, study)
        if all(finding.level is not Level.WRONG for finding in images):
            encoder = list(_encoder(folder, settings, study, on_progress))
            found += encoder
            if all(finding.level is not Level.WRONG for finding in encoder):
                found += _approval(folder, settings, study)
    usable = all(finding.level is not Level.WRONG for finding in images)
    found += [
        _budget(folder, settings, study if usable else None),
        *_charges(folder, settings.site.name),
        *_vectors(folder, settings, study if usable else None),
        _clock(folder, now),
        _disk(folder),
        _device(settings),
    ]
    return found


def _folder(folder: SiteFolder) -> Iterator[SiteFinding]:
    if not folder.path.is_dir():
        yield SiteFinding("folder", Level.WRONG, f"{folder.path} is not there; make it with `site init`")
        return
    exposed = folder.exposed()
    for path in exposed:
        text = f"{path} may be read by others on this machine; run chmod go-rwx on it"
        yield SiteFinding("folder", Level.WRONG, text)
    if not exposed:
        yield SiteFinding("folder", Level.OK, f"{folder.path} is closed to others")


def _key(folder: SiteFolder, settings: SiteSettings, study: Study | None) -> Iterator[SiteFinding]:
    try:
        own = public_hex(load_key(folder.key))
    except KeyFileError as error:
        yield SiteFinding("key", Level.WRONG, str(error))
        return
    name = settings.site.name
    if study is None:
        yield SiteFinding("key", Level.OK, f"{name}'s public key begins with {own[:16]}")
    elif study.roster.hospitals.get(name) != own:
        text = f"the study's roster has another key for {name}, or none; send the lead {folder.public} again"
        yield SiteFinding("key", Level.WRONG, text)
    else:
        yield SiteFinding("key", Level.OK, f"the study's roster has this site's key as {name}")


def _data_key(folder: SiteFolder) -> Iterator[SiteFinding]:
    """Find a key of the data's names with which no node starts; `site approve` makes one where there is none."""
    if not folder.data_key.exists():
        return
    try:
        load_secret(folder.data_key)
    except KeyFileError as error:
        yield SiteFinding("key", Level.WRONG, f"{error}: `site approve` does, if it is gone")


def _data(
    settings: SiteSettings, study: Study | None, on_progress: Callable[[int, int], None] | None
) -> Iterator[SiteFinding]:
    try:
        dataset, warnings = own_dataset(settings)
        report = inspect(dataset, warnings, on_progress)
    except (DataError, SecureFedError) as error:
        yield SiteFinding("data", Level.WRONG, str(getattr(error, "in_full", error)))
        return
    counts = {split: sum(classes.values()) for split, classes in report.sites[0].counts.items()}
    shown = ", ".join(f"{count} {split}" for split, count in counts.items())
    yield SiteFinding("data", Level.OK, f"{report.images} images of {len(dataset.classes)} classes ({shown})")
    for warning in report.warnings:
        level = Level.LOOK if warning.severity == "warning" else Level.OK
        examples = f" ({', '.join(warning.examples[:3])})" if warning.examples and not warning.detail else ""
        yield SiteFinding("data", level, warning.in_full + examples)
    if study is None:
        return
    for label, meant in unknown_classes(dataset, study.classes).items():
        hint = f"rename it to {meant!r}?" if meant else f"the study has {', '.join(study.classes)}"
        yield SiteFinding("classes", Level.WRONG, f"the study has no class {label!r}; {hint}")
    absent = [label for label in study.classes if label not in dataset.classes]
    if absent:
        yield SiteFinding("classes", Level.LOOK, f"no image here of {', '.join(absent)}; others may have some")
    try:
        trained = (record.patient for record in dataset.records if record.split == "train")
        require_patients(study.config.privacy.unit, settings.site.name, trained)
    except ConfigError as error:
        yield SiteFinding("data", Level.WRONG, str(error))
    if not counts["train"]:
        yield SiteFinding("data", Level.WRONG, "there is no training image; mark some in the split column")
    if study.config.federation.select == "best-val" and not counts["val"]:
        yield SiteFinding(
            "data", Level.WRONG, "the study chooses the round by validation images and there is none here"
        )


def _study(settings: SiteSettings, study: Study) -> Iterator[SiteFinding]:
    objections = settings.policy.objections(study, terms_of(study))
    for text in objections:
        yield SiteFinding("policy", Level.WRONG, text)
    if not objections:
        yield SiteFinding("policy", Level.OK, f"the study {study.name!r} is within this hospital's policy")


def _approval(folder: SiteFolder, settings: SiteSettings, study: Study) -> Iterator[SiteFinding]:
    """Hold the data against those of the time of approval, if it is this study that was approved."""
    try:
        if approved_study(folder).digest != study.digest:
            return
    except ConfigError:
        return
    try:
        if not is_as_approved(folder, settings, study):
            yield SiteFinding("approval", Level.WRONG, CHANGED)
    except (SecureFedError, DataError, EncoderError) as error:
        yield SiteFinding("approval", Level.WRONG, str(error))


def _encoder(
    folder: SiteFolder, settings: SiteSettings, study: Study, on_progress: Callable[[int, int], None] | None
) -> Iterator[SiteFinding]:
    try:
        bundle = own_features(folder, settings, study, on_progress)
    except (EncoderError, DataError, SecureFedError) as error:
        yield SiteFinding("encoder", Level.WRONG, str(getattr(error, "in_full", error)))
        return
    made = f"{bundle.images_encoded} images were encoded now, {bundle.cache_hits} were in the cache"
    yield SiteFinding("encoder", Level.OK, f"{study.encoder_digest[:16]}... is the study's; {made}")
    for warning in bundle.warnings:
        yield SiteFinding("encoder", Level.LOOK, warning.in_full)


def _budget(folder: SiteFolder, settings: SiteSettings, study: Study | None) -> SiteFinding:
    from audit.ledger import Ledger, budget_lines
    from audit.ledger.errors import LedgerError

    is_borne = False
    if study is not None and study.config.privacy.enabled:
        if not folder.ledger.exists():
            made = f"securefed audit ledger policy {folder.ledger} policy.toml"
            text = f"{folder.ledger} does not exist: whether a budget bears this study is not known; make it: {made}"
            return SiteFinding("budget", Level.WRONG, text)
        privacy = site_privacy(folder, settings, study, terms_of(study), data_fingerprint(settings, study))
        try:
            objection = privacy.want_of_budget(*_last_head(folder, privacy, study), record=False)
        except AuditError as error:
            objection = str(error)
        if objection:
            return SiteFinding("budget", Level.WRONG, objection)
        if not os.access(folder.ledger, os.W_OK):
            text = f"{folder.ledger} cannot be written: nothing can be charged; let the node's user write it"
            return SiteFinding("budget", Level.WRONG, text)
        is_borne = True
    if not folder.ledger.exists():
        return SiteFinding("budget", Level.LOOK, "no budget is set (audit ledger policy); nothing limits epsilon here")
    try:
        with Ledger.reading(folder.ledger) as ledger:
            lines = budget_lines(ledger)
    except (LedgerError, EvidenceError) as error:
        return SiteFinding("budget", Level.WRONG, str(error))
    said = [f"{at_least(line['remaining'])} of {line['budget']:g} left for the unit {line['unit']}" for line in lines]
    empty = not is_borne and any(line["remaining"] <= 0 for line in lines)  # an ended study needs nothing more
    return SiteFinding("budget", Level.WRONG if empty else Level.OK, "; ".join(said) or "no budget line")


def _charges(folder: SiteFolder, hospital: str) -> Iterator[SiteFinding]:
    """Hold the ledger against the private logs: neither may have been put back from before."""
    from audit.ledger import LedgerError

    try:
        if said := _agreement(folder, hospital):
            yield SiteFinding("charges", Level.OK, said)
    except (LedgerError, EvidenceError) as error:
        text = f"ledger and private log differ: {error}; was one of them put back from a backup?"
        yield SiteFinding("charges", Level.WRONG, text)


def _agreement(folder: SiteFolder, hospital: str) -> str:
    """Return what `check_ledger` says, "" where nothing was charged.

    A node that charges a release between the two readings makes them differ: what differs counts once no log has grown.

    Raises:
        LedgerError, EvidenceError: As `check_ledger`.
    """
    from audit.ledger import check_ledger

    runs = _charged_runs(folder)
    for left in reversed(range(_READINGS)):
        try:
            return check_ledger(folder.ledger, runs, hospital) if runs else ""
        except EvidenceError:
            before, runs = runs, _charged_runs(folder)
            if runs == before or not left:
                raise
    return ""


def _charged_runs(folder: SiteFolder) -> dict[str, list[Event]]:
    runs: dict[str, list[Event]] = {}
    for path in sorted(folder.privacy.glob("*/audit.jsonl")):
        for event in EventLog.reading(path).events:
            if event.kind == "charge":
                runs.setdefault(str(event.fields["release_id"]).partition("/")[0], []).append(event)
    return runs


def _last_head(folder: SiteFolder, privacy: SitePrivacy, study: Study) -> tuple[str, int]:
    """Return the run of the study in which the hospital has come furthest, and the round of its last head there.

    Raises:
        EvidenceError: A file of heads, or the private log, cannot be read.
    """
    from audit.ledger import run_in_ledgers

    runs = privacy.runs()
    named = {path.stem for path in folder.heads.glob("*.jsonl")} | {run.rpartition(".")[0] for run in runs}
    own = [run_id for run_id in sorted(named) if run_in_ledgers(run_id, study.digest) in runs]
    return max(
        ((run_id, last_round(folder.heads_of(run_id))) for run_id in own), key=lambda run: run[1], default=("check", 0)
    )


def _vectors(folder: SiteFolder, settings: SiteSettings, study: Study | None) -> Iterator[SiteFinding]:
    """Say how many vectors with a share of noise are paid, and whether the others bear the rounds that are left."""
    from audit.ledger import LedgerError

    if study is None or not study.config.privacy.enabled:
        return
    privacy = site_privacy(folder, settings, study, terms_of(study), data_fingerprint(settings, study))
    try:
        vectors = privacy.vectors(*_last_head(folder, privacy, study))
    except (LedgerError, EvidenceError):
        return  # the findings on budget, charges and clock name it
    if vectors is not None:
        yield SiteFinding("vectors", Level.OK if vectors.suffice else Level.WRONG, vectors.text)


def _clock(folder: SiteFolder, now: datetime) -> SiteFinding:
    latest = _FIRST_DAY
    for path in folder.heads.glob("*.jsonl"):
        try:
            last = read_heads(path)[-1:]
        except EvidenceError as error:
            return SiteFinding("clock", Level.WRONG, f"{path} holds no heads ({error}); put a backup of it back")
        for signed in last:
            latest = max(latest, datetime.strptime(signed.head.time, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC))
    if now < latest:
        text = f"this machine says {now:%Y-%m-%d %H:%M} UTC, a server signed a run at {latest:%Y-%m-%d %H:%M}"
        return SiteFinding("clock", Level.LOOK, f"{text}; set the clock, or tell the lead if this one is right")
    return SiteFinding("clock", Level.OK, f"{now:%Y-%m-%d %H:%M} UTC")


def _disk(folder: SiteFolder) -> SiteFinding:
    free = shutil.disk_usage(folder.path).free
    said = f"{free / 2**30:.1f} GiB free"
    if free < _SPARE_BYTES:
        return SiteFinding("disk", Level.WRONG, f"{said}; a study needs {_SPARE_BYTES / 2**30:.1f}")
    return SiteFinding("disk", Level.OK, said)


def _device(settings: SiteSettings) -> SiteFinding:
    import torch

    if torch.cuda.is_available():
        return SiteFinding("device", Level.OK, f"GPU {torch.cuda.get_device_name(0)}")
    if settings.site.device == "cuda":
        return SiteFinding(
            "device", Level.WRONG, "site.device asks for cuda and this machine has none; use auto or cpu"
        )
    return SiteFinding("device", Level.OK, "no GPU: training runs on the processor, which is enough for this model")
