"""From a hospital's folder to its node, and the node with a state that survives its process."""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from audit.data_name import named_data
from audit.heads import Witness, read_heads
from audit.signing_key import load_key
from clients.data import DataError, ImageDataset, fingerprint, patient_grouping
from clients.encoders import EncoderError, FeatureBundle
from protocols.errors import ProtocolError
from protocols.messages import Refusal, encode_message
from protocols.plain import NO_SESSION
from protocols.roster import IdentityKey, IdentitySeed
from securefed.errors import ConfigError, RunFolderError
from securefed.nodes.control import ControlStage, encode_refusal
from securefed.nodes.hospital import SiteHospital
from securefed.nodes.site import SiteNode
from securefed.nodes.site_run import UNUSABLE, Agreement, SiteRun
from securefed.privacy.at_site import SitePrivacy
from securefed.site.data import own_features, study_dataset
from securefed.site.folder import SiteFolder
from securefed.site.settings import SiteSettings, read_settings
from securefed.study.approval import read_approval
from securefed.study.form import Study, read_study, with_local
from securefed.study.terms import terms_of
from securefed.sum_terms import SumTerms

_LOG = logging.getLogger("securefed.site")
_CONTROL = {stage.value for stage in ControlStage}
CHANGED: Final = "the data have changed since the study was approved; run `site approve` again"


class StoredNode:
    """A site node that writes what it must not forget to its folder before an answer leaves.

    Args:
        node: The node.
        folder: Its folder.
        hold: Keeps every other process out of the folder.
    """

    def __init__(self, node: SiteNode, folder: SiteFolder, hold: ExitStack) -> None:
        self.node = node
        self._folder = folder
        self._hold = hold
        self._written = b""

    def close(self) -> None:
        """Let other processes into the folder; the end of this process does the same."""
        self._hold.close()

    def dump(self) -> bytes:
        """Return the state with the secrets of a round in progress, for the next process of this hospital."""
        return self.node.dump()

    def handle(self, stage: str, request: bytes) -> bytes:
        """Answer one request; where the disk refuses, the answer is a refusal and the round is given up here."""
        reply = self.node.handle(stage, request)
        state = self.node.dump(secrets=False)
        digest = hashlib.sha256(state).digest()
        if digest == self._written:
            return reply
        try:
            self._folder.write(self._folder.state, state)
        except RunFolderError as error:
            _LOG.error("%s: refused %s: %s", self.node.name, stage, error)
            self.node.abandon()
            if stage in _CONTROL:
                cause = getattr(error.__cause__, "strerror", None) or type(error.__cause__).__name__
                return encode_refusal("disk", f"the site cannot write its state ({cause})")
            return encode_message(Refusal(ProtocolError.code), 0, NO_SESSION)
        self._written = digest
        return reply

    answer = handle


def open_site(path: Path, state: bytes | None = None) -> StoredNode:
    """Open the node of a hospital's folder for the study that it has approved.

    Args:
        path: The folder.
        state: A dump of the node in another process, with the secrets of a round in progress; None takes the state of
            the folder, which has none: the node then takes part from the next round on.

    Raises:
        RunFolderError: The folder is missing, open to others or cannot be read.
        ConfigError: Nothing was approved, something changed since, or the policy forbids the study.
        KeyFileError: The key cannot be used.
        DeploymentError: Another process of this hospital holds the folder.
    """
    folder = SiteFolder.open(path)
    with ExitStack() as hold:
        hold.enter_context(folder.alone())
        return StoredNode(_node(folder, state), folder, hold.pop_all())


def _node(folder: SiteFolder, state: bytes | None) -> SiteNode:
    settings, study = read_settings(folder.settings), approved_study(folder)
    key = load_key(folder.key)
    terms = terms_of(study)
    refuse_objections(settings, study, terms)
    approved = approved_data(folder)
    if not folder.data_key.exists():
        raise ConfigError("data", f"{folder.data_key} is not there; run `site approve` again")
    _require_patients(folder, study)
    seen = approved + (_approved(folder)["features"] or "") + (_approved(folder)["patients"] or "")
    agreement = Agreement(study.digest, study.roster.digest, named_data(folder.data_key, seen, study.digest))
    config = with_local(study.config, device=_device(settings), charge=settings.policy.charge)

    def witness(run_id: str) -> Witness:
        return Witness(settings.site.name, key, study.roster.server, folder.heads_of(run_id), run_id)

    def keep(run_id: str, vector: NDArray[np.float32], chosen: int) -> None:
        hospital.keep(run_id, vector, chosen, node.state_after(chosen))

    run = SiteRun(agreement, witness, keep, unusable=lambda: _unusable(folder, settings, study))
    privacy = None
    if study.config.privacy.enabled:
        privacy = site_privacy(folder, settings, study, terms, approved, lambda: run.run_id)
        run.objection = _objection(folder, privacy)
    hospital = SiteHospital(
        settings.site.name,
        lambda: _features(folder, settings, study),
        config,
        folder.runs,
        privacy,
        study=study.digest,
        settings=settings.encode().decode(),
    )
    node = SiteNode(
        IdentityKey(IdentitySeed(key.private_bytes_raw())),
        terms,
        hospital,
        settings.policy.client_policy(terms),
        run=run,
        private=hospital,
    )
    if state is not None:
        node.load(state)
    elif folder.state.exists():
        node.load(folder.state.read_bytes())
    return node


def _objection(folder: SiteFolder, privacy: SitePrivacy) -> Callable[[str], str]:
    def objection(run_id: str) -> str:
        return privacy.objection(run_id, last_round(folder.heads_of(run_id)))

    return objection


def last_round(path: Path) -> int:
    """Return the round of the last head in a hospital's heads file, 0 where there is none.

    Raises:
        EvidenceError: The file is damaged.
    """
    heads = read_heads(path) if path.exists() else []
    return heads[-1].head.round if heads else 0


def site_privacy(
    folder: SiteFolder,
    settings: SiteSettings,
    study: Study,
    terms: SumTerms,
    fingerprint: str,
    run_id: Callable[[], str] = str,
) -> SitePrivacy:
    """Return what a hospital does about the privacy of a study: its books lie in its own folder.

    Args:
        folder: The hospital's folder.
        settings: Its site.toml.
        study: The study.
        terms: The terms of its sums.
        fingerprint: SHA-256 (hex) of the hospital's data.
        run_id: Returns the run that the hospital is in; "" for none.
    """
    config = with_local(study.config, device=_device(settings), charge=settings.policy.charge)
    return SitePrivacy(
        settings.site.name,
        study.digest,
        config,
        fingerprint,
        folder.privacy / study.digest[:16],
        folder.ledger,
        run_id,
        terms.noise,
        lambda: _patients(folder, settings, study),
    )


def approved_study(folder: SiteFolder) -> Study:
    """Return the study that this hospital has approved.

    Raises:
        ConfigError: There is none, or the file was changed since.
    """
    if not folder.study.exists() or not folder.approval.exists():
        raise ConfigError("study", f"nothing is approved in {folder.path}; run `site approve` with the lead's study")
    study, approval = read_study(folder.study), read_approval(folder.approval)
    approval.check(study)
    return study


def approved_data(folder: SiteFolder) -> str:
    """Return the fingerprint of the data at the time of approval."""
    return str(_approved(folder)["fingerprint"])


def _approved(folder: SiteFolder) -> Any:
    """Return {"fingerprint", "features", "patients"} of the time of approval; an earlier version kept fewer of them."""
    try:
        approved = json.loads(folder.data.read_bytes())
        return {"features": None, "patients": None, "fingerprint": approved["fingerprint"], **approved}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError("data", f"{folder.data} cannot be read; run `site approve` again") from error


def refuse_objections(settings: SiteSettings, study: Study, terms: SumTerms) -> None:
    """Refuse a study that this hospital's policy forbids; raises ConfigError with all reasons."""
    objections = settings.policy.objections(study, terms)
    if objections:
        raise ConfigError("policy", "; ".join(objections))


def data_fingerprint(settings: SiteSettings, study: Study) -> str:
    """Return the fingerprint of the hospital's data as the study sees them."""
    return fingerprint(study_dataset(settings, study)[0])


def file_features(folder: SiteFolder, settings: SiteSettings, study: Study) -> str:
    """Return the digest of what a file of features gives of the hospital's images; "" where an encoder computes it."""
    if not (settings.site.encoder or study.encoder).startswith("features:"):
        return ""
    return own_features(folder, settings, study).features_digest


def grouping(study: Study, dataset: ImageDataset) -> str:
    """Return the digest of which training images show the same patient; "" where patients are not the study's unit."""
    return patient_grouping(dataset) if study.config.privacy.unit == "patient" else ""


def is_as_approved(folder: SiteFolder, settings: SiteSettings, study: Study) -> bool:
    """Return whether the hospital's data are those of the time of approval.

    Raises:
        ConfigError, DataError, EncoderError: They cannot be used, or nothing was approved.
    """
    _require_patients(folder, study)
    if not _are_approved(folder, study, study_dataset(settings, study)[0]):
        return False
    return _approved(folder)["features"] in (None, file_features(folder, settings, study))


def _require_patients(folder: SiteFolder, study: Study) -> None:
    if study.config.privacy.unit == "patient" and _approved(folder)["patients"] is None:
        raise ConfigError("data", f"{folder.data} does not bind who the patients are; run `site approve` again")


def _are_approved(folder: SiteFolder, study: Study, dataset: ImageDataset) -> bool:
    """Return whether images, and who is whose where patients are the unit, are those of the time of approval."""
    approved = _approved(folder)
    now = fingerprint(dataset), grouping(study, dataset)
    return now == (approved["fingerprint"], approved["patients"] or "")


def _patients(folder: SiteFolder, settings: SiteSettings, study: Study) -> dict[str, str | None]:
    dataset, _ = study_dataset(settings, study)
    if not _are_approved(folder, study, dataset):  # they are read again, after the features
        raise ConfigError("data", CHANGED)
    return {record.path: record.patient for record in dataset.records}


def _features(folder: SiteFolder, settings: SiteSettings, study: Study) -> FeatureBundle:
    dataset, findings = study_dataset(settings, study)
    if not _are_approved(folder, study, dataset):
        raise ConfigError("data", CHANGED)
    bundle = own_features(folder, settings, study)
    if _approved(folder)["features"] not in (None, bundle.features_digest):
        raise ConfigError("data", CHANGED)
    kinds = {finding.kind for finding in (*findings, *bundle.warnings) if finding.severity == "warning"}
    if kinds:  # kinds alone: a node's log may be read where images may not be counted
        said = ", ".join(sorted(kinds))
        _LOG.warning("%s: there are findings about the data (%s); `site check` says them", settings.site.name, said)
    return bundle


def _unusable(folder: SiteFolder, settings: SiteSettings, study: Study) -> str:
    """Return what the server may know of why the data cannot be used, "" where they are as approved."""
    try:
        return "" if is_as_approved(folder, settings, study) else CHANGED
    except (ConfigError, DataError, EncoderError) as error:
        _LOG.warning("%s: the data cannot be used: %s", settings.site.name, error)
        return UNUSABLE


def _device(settings: SiteSettings) -> str:
    from securefed.preparation import resolve_device

    return resolve_device(settings.site.device)
