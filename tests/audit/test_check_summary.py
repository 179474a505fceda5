"""What summary.json says is what the log says; and no simulation ends without metrics, no deployment with any."""

import json
from dataclasses import replace

import pytest

from audit.check_summary import check_summary
from audit.errors import EvidenceError
from audit.history import read_history
from audit.log import read_events
from tests.audit.runs import SITES, Run
from tests.audit.tampering import edited, failure
from tests.audit.test_check_sites import without

TERMS = {"secure_aggregation": True, "clients": 5, "dimension": 1000, "threat_model": "active", "threshold": 4}
AUDIT = "audit.jsonl"
FIVE = ("east", *SITES, "far")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Summary and history of a run whose hospitals differ, one of them held out."""
    run = Run(tmp_path_factory.mktemp("ended") / "run", rounds=0, masked=True, sites=FIVE)
    run.log.append("protocol_described", {**TERMS, "corrupt": 1, "ring_bits": 20, "values": {"compression": "none"}})
    data = {"name": "scans", "fingerprint": "ab" * 32, "sites": [*FIVE, "out"], "held_out_site": "out"}
    run.log.append("data_described", {**data, "classes": ["a", "b"]})
    run.log.append("encoder_described", {"name": "ViT", "digest": "cd" * 32, "embed_dim": 512})
    for number in (1, 2, 3):
        run.round(number)
    values = {
        site: {"fam": {"num_images": 4, "accuracy": place / 8, "ece": place / 16, "auroc": 0.5 if place > 2 else None}}
        for place, site in enumerate((*FIVE, "out"))
    }
    values["east"]["mlp"] = {"accuracy": 0.25, "auroc": None}
    run.log.append("evaluation", {"round": 3, "split": "test", "leaves_hospital": False, "values": values})
    means = {"fam": {"num_images": 20, "accuracy": 0.25, "ece": 0.125, "auroc": 0.5}, "mlp": values["east"]["mlp"]}
    worst = {**means, "fam": {"num_images": 20, "accuracy": 0.0, "ece": 0.25, "auroc": 0.5}}
    folder = run.complete(mean=means, worst=worst)
    return (folder / "summary.json").read_text(), read_history(read_events(folder / "audit.jsonl"))


def set_in(tree, name, value):
    *path, last = name.split(".")
    for key in path:
        tree = tree[key]
    tree[last] = value


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("rounds_completed", 500, "states rounds_completed 500, the log has 3"),
        ("chosen_round", 2, "states chosen_round 2, the log has 3"),
        ("fam_sha256", "0" * 64, "states fam_sha256"),
        ("method", "zero-shot", "states method"),
        ("config.privacy.mode", "local", "states config"),
        ("config_digest", "1" * 64, "states config_digest"),
        ("secure_aggregation.enabled", False, "states secure_aggregation.enabled False, the log has True"),
        ("secure_aggregation.threat_model", "semi-honest", "states secure_aggregation.threat_model"),
        ("secure_aggregation.threshold", 99, "states secure_aggregation.threshold 99, the log has 4"),
        ("secure_aggregation.corrupt", 3, "states secure_aggregation.corrupt 3, the log has 1"),
        ("secure_aggregation.clients", 50, "states secure_aggregation.clients 50, the log has 5"),
        ("secure_aggregation.ring_bits", 64, "states secure_aggregation.ring_bits 64, the log has 20"),
        ("secure_aggregation", None, "states secure_aggregation.dropouts None"),
        (
            "secure_aggregation.compression",
            "ring:4",
            "states secure_aggregation.compression 'ring:4'",
        ),
        ("secure_aggregation.dropouts", {"Unmasking": 1}, "states secure_aggregation.dropouts .*, the log has {}"),
        ("privacy.mode", "local", "states privacy.mode 'local', the log has 'off'"),
        ("privacy.unit", "patient", "states privacy.unit 'patient', the log has None"),
        ("privacy.claim", "CLAIMED: nothing can be learned", "states privacy.claim 'CLAIMED"),
        ("provenance.data_fingerprint", "0" * 64, "states provenance.data_fingerprint"),
        ("provenance.data_keyed", True, "states provenance.data_keyed True, the log has False"),
        ("provenance.encoder", "ResNet", "states provenance.encoder 'ResNet', the log has 'ViT'"),
        ("provenance.encoder_digest", "0" * 64, "states provenance.encoder_digest"),
        ("communication.upload_bytes_per_client_round", 1.0, "states communication.upload_bytes_per_client_round"),
        ("communication.download_bytes_per_client_round", 1.0, "states communication.download_bytes_per_client_round"),
        ("communication.by_stage.Unmasking.upload", 1, "states communication.by_stage"),
        ("communication.by_kind", None, "states communication.by_kind"),
        ("communication.ratio_to_fedavg_clip", 1e6, "states communication.ratio_to_fedavg_clip"),
        ("communication.ratio_to_paper_fam", 1e6, "states communication.ratio_to_paper_fam"),
        ("mean.fam.accuracy", 0.999, "another mean than that of its sites"),
        ("mean.fam.num_images", 24, "another mean than that of its sites"),
        ("mean.fam.auroc", None, "another mean than that of its sites"),
        ("mean.mlp", {}, "another mean than that of its sites"),
        ("mean", None, "another mean than that of its sites"),
        ("worst.fam.accuracy", 0.25, "another worst than that of its sites"),
        ("worst.fam.ece", 0.0, "another worst than that of its sites"),
        ("sites.far.test.fam.accuracy", 0.999, "other metrics of far on test images"),
        ("global_site.fam.accuracy", 0.999, "other metrics of out on test images"),
        ("global_site", None, "other metrics of out on test images"),
        ("sites", None, "no metrics of the sites"),
    ],
)
def test_a_summary_that_says_something_else_than_the_log_is_found(ended, name, value, reason):
    text, history = ended
    check_summary(json.loads(text), history)
    summary = json.loads(text)
    set_in(summary, name, value)
    with pytest.raises(EvidenceError, match=reason):
        check_summary(summary, history)


def test_the_last_digits_of_a_mean_may_differ(ended):
    text, history = ended
    summary = json.loads(text)
    set_in(summary, "mean.fam.accuracy", 0.25 + 1e-15)
    check_summary(summary, history)


def test_a_count_of_0_is_none(ended):
    """Logs and summaries may state it or leave it out."""
    text, history = ended
    summary = json.loads(text)
    assert "download" not in summary["communication"]["by_stage"]["Unmasking"]
    set_in(summary, "communication.by_stage.Unmasking.download", 0)
    check_summary(summary, history)
    set_in(summary, "communication.by_stage.Unmasking.download", 1)
    with pytest.raises(EvidenceError, match=r"states communication\.by_stage"):
        check_summary(summary, history)


def test_the_end_of_a_simulation_has_metrics(complete_run):
    without(complete_run, "evaluation")
    summary = json.loads((complete_run / "summary.json").read_text())
    assert summary["sites"]
    assert "the run has ended, and the log has no metrics on test images" in failure(complete_run)[1]


def test_a_server_of_hospitals_has_no_metrics(ended):
    text, history = ended
    started = replace(history.started, fields={**history.started.fields, "operation": "deployment"})
    with pytest.raises(EvidenceError, match="metrics stand in the record of a deployment"):
        check_summary(json.loads(text), replace(history, started=started))


def test_the_summary_of_a_server_of_hospitals_names_no_data(ended):
    """Its log may describe them; the server itself has none."""
    text, history = ended
    started = replace(history.started, fields={**history.started.fields, "operation": "deployment"})
    events = [event for event in history.events if event.kind != "evaluation"]
    summary = json.loads(text) | {"sites": {}, "mean": {}, "worst": {}, "global_site": None}
    for name in ("data_fingerprint", "data_keyed"):
        summary["provenance"].pop(name)
    check_summary(summary, replace(history, started=started, events=events))
    summary["provenance"].pop("encoder")
    with pytest.raises(EvidenceError, match=r"states provenance\.encoder None"):
        check_summary(summary, replace(history, started=started, events=events))


@pytest.mark.parametrize(("field", "value"), [("adjacency", "replace-one"), ("noise", "seeded")])
def test_what_a_summary_says_of_a_claim_is_the_claim(tmp_path, field, value):
    folder = Run(tmp_path / "private", private=True).complete()
    history = read_history(read_events(folder / "audit.jsonl"))
    summary = json.loads((folder / "summary.json").read_text())
    check_summary(summary, history)
    summary["privacy"][field] = value
    with pytest.raises(EvidenceError, match=rf"summary.json states privacy.{field} .*{value}"):
        check_summary(summary, history)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_epsilon", 0.1),
        ("coupling", "one-way"),
        ("mechanism", {}),
        ("mechanism.noise", "seeded"),
        ("unprotected", []),
    ],
)
def test_what_a_summary_says_of_noise_is_what_the_claim_says(tmp_path, name, value):
    folder = Run(tmp_path / "run", private=True).complete()
    summary, history = json.loads((folder / "summary.json").read_text()), read_history(read_events(folder / AUDIT))
    check_summary(summary, history)
    set_in(summary, f"privacy.{name}", value)
    with pytest.raises(EvidenceError, match=f"states privacy.{name.split('.')[0]} "):
        check_summary(summary, history)


@pytest.mark.parametrize("change", [{"round": 9}, {"round": 2}, {"leaves_hospital": True}])
def test_metrics_are_of_the_kept_model_and_leave_no_hospital(tmp_path, change):
    folder = Run(tmp_path / "run").complete()
    edited(folder, "evaluation", lambda fields: fields.update(change))
    assert "are of the model of round 3, which was kept, and leave no hospital" in failure(folder)[1]
