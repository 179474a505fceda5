"""The record of a private run tells nothing that follows from every image: no fingerprint, no count."""

import json
from types import SimpleNamespace

import pytest

from audit.accounting import Adjacency
from audit.data_name import create_data_key, named_data
from audit.ledger import Budget, BudgetLine, Ledger, Policy
from audit.log import read_events
from audit.report import build_report, render
from audit.report.compare import compare_reports
from audit.verify import Outcome, verify_run
from clients.data import DataWarning, fingerprint
from clients.encoders import load_features
from securefed.errors import ConfigError
from securefed.evidence import RunEvidence
from securefed.prediction import evaluate_run
from securefed.preparation import load_sites
from securefed.simulation import simulate
from tests.audit.ledger.money import SIGNER

SITES = tuple(f"site{number}" for number in range(5))


@pytest.fixture(scope="module", params=["local", "distributed"])
def private(request, features_file, tmp_path_factory):
    """A private run that pays from a ledger, and the fingerprints that its record must not have."""
    from securefed.config import config_from_mapping

    folder = tmp_path_factory.mktemp(request.param)
    ledger = folder / "ledger.sqlite"
    signer = SIGNER.public_key().public_bytes_raw().hex()
    budget = Budget(20.0, 1e-5, Adjacency.ADD_OR_REMOVE_ONE, signer)
    with Ledger(ledger) as opened:
        opened.install(Policy({BudgetLine(site, "image"): budget for site in SITES}))
    config = config_from_mapping(
        {
            "data": {"source": f"features:{features_file}"},
            "encoder": {"name": f"features:{features_file}"},
            "federation": {"rounds": 1, "device": "cpu"},
            "training": {"fam_width": 4},
            "privacy": {"mode": request.param, "epsilon": 8.0, "ledger": str(ledger)},
        }
    )
    result = simulate(config, output=folder / "run")
    dataset, _ = load_sites(config.data, config.federation.seed)
    secrets = {fingerprint(dataset), *(fingerprint(dataset, site) for site in SITES)}
    secrets.add(load_features(features_file).features_digest)
    return SimpleNamespace(folder=result.folder, ledger=ledger, secrets=secrets, config=config)


def test_no_file_but_the_hospitals_own_has_a_fingerprint_or_a_count_of_images(private):
    report = build_report(private.folder.path)
    pages = {name: render(report, name) for name in ("html", "md", "json", "registry")}
    written = {path: path.read_bytes() for path in private.folder.path.rglob("*") if path.is_file()}
    assert private.folder.path / "audit.jsonl" in written
    assert private.folder.path / "report.html" in written
    for name, content in {**written, **pages}.items():
        assert not [secret for secret in private.secrets if secret.encode() in content], name
        assert b"images_encoded" not in content, name
        assert b"cache_hits" not in content, name
    events = {event.kind: event.fields for event in read_events(private.folder.log)}
    assert events["data_described"]["keyed"]
    assert set(events["encoder_described"]) == {"name", "digest", "embed_dim", "features"}
    assert "keyed digest of the data" in pages["md"].decode()
    assert "Keyed digest of the data set" in pages["registry"].decode()


def test_whoever_has_key_and_data_can_check_the_name(private):
    described = next(event.fields for event in read_events(private.folder.log) if event.kind == "data_described")
    assert described["fingerprint"] in {named_data(private.folder.data_key, secret) for secret in private.secrets}
    assert evaluate_run(private.folder.path, "test")["sites"]


def test_the_ledger_is_compared_with_the_log_under_the_key(private, tmp_path):
    def ledger_check():
        checks = verify_run(private.folder.path, ledger=private.ledger).checks
        return next(check for check in checks if check.name == "ledger")

    assert ledger_check().outcome is Outcome.PASS
    assert "not compared" not in ledger_check().detail
    key = private.folder.data_key.rename(tmp_path / "data.key")
    try:
        assert ledger_check().outcome is Outcome.PASS
        assert "not compared: data.key" in ledger_check().detail
        create_data_key(private.folder.data_key)
        assert ledger_check().outcome is Outcome.FAIL
        assert "is another one in the ledger" in ledger_check().detail
    finally:
        key.replace(private.folder.data_key)


def test_a_run_whose_data_have_another_name_is_not_taken_up_again(private):
    log = read_events(private.folder.log)
    evidence = RunEvidence(SimpleNamespace(events=log), SITES, parties=None)
    bundle = SimpleNamespace(
        data_fingerprint="",
        encoder_digest=next(e.fields["digest"] for e in log if e.kind == "encoder_described"),
        features_digest=next(e.fields["features"] for e in log if e.kind == "encoder_described"),
    )
    right = {named_data(private.folder.data_key, secret) for secret in private.secrets}
    (name,) = [name for name in right if name == log_name(log)]
    evidence.check_same_data(bundle, name)
    with pytest.raises(ConfigError, match="fingerprint of data differs"):
        evidence.check_same_data(bundle, "0" * 64)
    bundle.features_digest = "0" * 64
    with pytest.raises(ConfigError, match="features of encoder differs"):
        evidence.check_same_data(bundle, name)


def log_name(log):
    return next(event.fields["fingerprint"] for event in log if event.kind == "data_described")


def test_of_findings_a_private_record_has_the_kinds(private):
    logged = []
    evidence = RunEvidence(SimpleNamespace(append=lambda kind, fields: logged.append((kind, fields))), SITES, None)
    bundle = SimpleNamespace(
        data_fingerprint="ab" * 32, sites=[], classes=[], global_site=None, encoder_name="x", encoder_digest="y",
        embed_dim=4, images_encoded=7, cache_hits=0, encode_seconds=1.0, features_digest="",
    )  # fmt: skip
    warning = DataWarning("broken_image", 7, (), "7 images cannot be read")
    evidence.data(bundle, "data", [warning], "cd" * 32)
    evidence.data(bundle, "data", [warning])
    private_data, _, plain_data, plain_encoder = (fields for _, fields in logged)
    assert private_data["warnings"] == ["broken_image"]
    assert plain_data["warnings"] == ["broken_image: 7"]
    assert plain_encoder["images_encoded"] == 7
    unprotected = json.loads(private.folder.summary.read_text())["privacy"]["unprotected"]
    assert any(text.startswith("which kinds of problems") for text in unprotected)


def test_private_runs_are_not_said_to_be_on_other_data(private, small_run, tmp_path):
    plain = simulate(small_run(federation={"rounds": 1, "device": "cpu"}), output=tmp_path / "plain")
    reports = [build_report(path) for path in (private.folder.path, plain.folder.path)]
    (warning,) = [text for text in compare_reports(reports)["warnings"] if "data" in text]
    assert "under keys of their own" in warning
