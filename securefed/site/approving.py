"""Approving a study at a hospital: look at everything, then sign."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from audit.data_name import create_data_key
from audit.signing_key import load_key
from securefed.deploy.errors import DeploymentError
from securefed.errors import ConfigError, RunFolderError
from securefed.site.checks import Level, check_site
from securefed.site.folder import SiteFolder
from securefed.site.opening import data_fingerprint
from securefed.site.settings import read_settings
from securefed.study.approval import Approval, approve, read_approval
from securefed.study.form import Study


def approve_study(
    folder: SiteFolder, study: Study, now: datetime, on_progress: Callable[[int, int], None] | None = None
) -> Approval:
    """Check the hospital for a study, keep the study and the data's fingerprint, sign.

    A hospital that approves another study than before takes part in the former no more: its node state is put aside.

    Args:
        folder: The hospital's folder.
        study: The study.
        now: The time of this machine.
        on_progress: As for `check_site`.

    Raises:
        DeploymentError: Something is wrong here; nothing was approved.
        ConfigError: The roster has another key for this hospital.
    """
    wrong = [finding for finding in check_site(folder, study, now, on_progress) if finding.level is Level.WRONG]
    if wrong:
        reasons = "; ".join(f"{finding.topic}: {finding.text}" for finding in wrong)
        raise DeploymentError(f"not approved. {reasons}")
    settings = read_settings(folder.settings)
    approval = approve(study, settings.site.name, load_key(folder.key))
    with folder.alone():
        if folder.state.exists() and _approved(folder) != study.digest:
            folder.state.rename(folder.path / f"state-{now:%Y%m%dT%H%M%SZ}.safetensors")
        fingerprint = data_fingerprint(settings, study)
        if not folder.data_key.exists():
            create_data_key(folder.data_key)
        folder.write(folder.data, json.dumps({"fingerprint": fingerprint}).encode() + b"\n")
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


def _approved(folder: SiteFolder) -> str:
    try:
        return read_approval(folder.approval).study
    except ConfigError:
        return ""
