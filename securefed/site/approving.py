"""Approving a study at a hospital: look at everything, then sign."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from audit.data_name import create_data_key
from audit.signing_key import load_key
from clients.data import fingerprint
from securefed.deploy.errors import DeploymentError
from securefed.errors import ConfigError, RunFolderError
from securefed.nodes.site_state import SiteState
from securefed.site.checks import Level, check_site
from securefed.site.data import study_dataset
from securefed.site.folder import SiteFolder
from securefed.site.opening import file_features, grouping
from securefed.site.settings import read_settings
from securefed.study.approval import Approval, approve, read_approval
from securefed.study.form import Study

_OF_ROUNDS: Final = ("vectors",)
"""What stands in the way of more rounds only: a run that has ended may still want a signature, which costs nothing."""

_MENDED: Final = ("approval",)
"""What a new approval mends."""


def approve_study(
    folder: SiteFolder, study: Study, now: datetime, on_progress: Callable[[int, int], None] | None = None
) -> Approval:
    """Check the hospital for a study, keep the study and the data's fingerprint, sign.

    A hospital that approves another study than before takes part in the former no more: its node state is put aside,
    and taken back when the former is approved again. It must never forget which sums it has opened.

    Args:
        folder: The hospital's folder.
        study: The study.
        now: The time of this machine.
        on_progress: As for `check_site`.

    Raises:
        DeploymentError: Something is wrong here; nothing was approved.
        ConfigError: The roster has another key for this hospital.
    """
    found = check_site(folder, study, now, on_progress)
    wrong = [finding for finding in found if finding.level is Level.WRONG and finding.topic not in _OF_ROUNDS + _MENDED]
    if wrong:
        reasons = "; ".join(f"{finding.topic}: {finding.text}" for finding in wrong)
        raise DeploymentError(f"not approved. {reasons}")
    settings = read_settings(folder.settings)
    approval = approve(study, settings.site.name, load_key(folder.key))
    with folder.alone():
        _change_state(folder, study.digest)
        dataset, _ = study_dataset(settings, study)
        seen = {
            "fingerprint": fingerprint(dataset),
            "features": file_features(folder, settings, study),
            "patients": grouping(study, dataset),
        }
        if not folder.data_key.exists():
            create_data_key(folder.data_key)
        folder.write(folder.data, json.dumps(seen).encode() + b"\n")
        folder.write(folder.study, study.encode())
        folder.write(folder.approval, approval.encode())
    return approval


def hand_out(folder: SiteFolder, output: Path) -> None:
    """Copy the approval to where the lead gets it from; raises RunFolderError where it cannot be written."""
    try:
        shutil.copyfile(folder.approval, output)
    except OSError as error:
        raise RunFolderError(
            output, f"cannot be written ({error.strerror}). The study is approved: hand {folder.approval} to the lead"
        ) from error


def _change_state(folder: SiteFolder, study: str) -> None:
    """Put aside the node's state in another study, and take back that of this one.

    Until the new approval is written nothing is approved: a process that is killed on the way leaves no folder whose
    node would begin a study anew that it has a state of.
    """
    held = folder.state.read_bytes() if folder.state.exists() else b""
    of = (SiteState.study_of(held) or _approved(folder) or study) if held else ""
    if of == study:
        return
    if of or folder.state_of(study).exists():
        folder.approval.unlink(missing_ok=True)
    if of:
        folder.state.rename(folder.state_of(of))
    if folder.state_of(study).exists():
        folder.state_of(study).rename(folder.state)


def _approved(folder: SiteFolder) -> str:
    try:
        return read_approval(folder.approval).study
    except ConfigError:
        return ""
