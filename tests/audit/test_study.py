"""A deployment keeps to the study that its hospitals approved."""

import hashlib

import pytest
import tomli_w

from audit import EventLog
from audit.canonical import encode_canonical
from audit.errors import EvidenceError
from audit.history import read_history
from audit.study import approval_message, check_study
from tests.audit.runs import SITES, D, Ticks, configuration, key_of, roster_of

ROSTER = roster_of()
CLASSES = ["a", "b"]
ENCODER = {"name": "demo", "digest": D, "embed_dim": 512}


def check(tmp_path, *, config=None, study=None, encoder=None, data=None, approvals=None, name="trial"):
    """Check a record whose log says something else than the study where an argument does."""
    sections = configuration(3)
    keys = {"server": ROSTER.server, "hospitals": dict(ROSTER.hospitals)}
    agreed = {"name": "trial", "classes": CLASSES, "encoder": ENCODER, "roster": keys, **sections, **(study or {})}
    digest = hashlib.sha256(encode_canonical(agreed)).hexdigest()
    (tmp_path / "study.toml").write_text(tomli_w.dumps(agreed))
    signed = {site: key_of(site).sign(approval_message(site, digest)).hex() for site in SITES}
    local = {"encoder": {"name": "demo", "workers": 3}, "simulation": {"dropout": 0.0}}
    logged = configuration(3) | local
    for section, values in (config or {}).items():
        logged[section] = {**logged[section], **values}
    described = {"name": "trial", "fingerprint": D, "sites": sorted(SITES), "classes": CLASSES, "keyed": True}
    with EventLog.create(tmp_path / "audit.jsonl", {"run_id": "run", "operation": "deployment"}, Ticks()) as log:
        if config is not False:
            log.append("config", {"digest": D, "values": logged})
        log.append("study", {"name": name, "digest": digest, "approvals": signed | (approvals or {})})
        log.append("data_described", described | (data or {}))
        log.append("encoder_described", ENCODER | (encoder or {}))
        return check_study(tmp_path, read_history(log.events), ROSTER)


def test_a_record_of_the_study_passes(tmp_path):
    assert "was approved by all 3 hospitals" in check(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config": {"federation": {"rounds": 77}}}, "federation.rounds = 77, the study that was approved 3"),
        ({"config": {"secure_aggregation": {"enabled": True}}}, "secure_aggregation.enabled = True"),
        ({"config": {"privacy": {"mode": "local"}}}, "privacy.mode = local, the study that was approved off"),
        ({"config": {"encoder": {"name": "other"}}}, "encoder.name = other"),
        ({"study": {"training": {"local_epochs": 1}}}, "training.local_epochs = None, the study that was approved 1"),
        ({"config": False}, "states no configuration"),
        ({"encoder": {"digest": "cd" * 32}}, "encoder_described has digest"),
        ({"data": {"classes": ["a", "c"]}}, "data_described has classes"),
        ({"data": {"sites": ["north", "south"]}}, "data_described has sites"),
        ({"name": "another"}, "the log names the study another, study.toml another one"),
        ({"approvals": {"mallory": "00" * 64}}, "approved by mallory, who is not of the roster"),
    ],
)
def test_a_record_that_departs_from_the_study_is_found(tmp_path, change, reason):
    with pytest.raises(EvidenceError, match=reason):
        check(tmp_path, **change)
