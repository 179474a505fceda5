"""A whole deployment in memory: the model of the simulation, evidence that verifies, nothing of a site elsewhere."""

import json

import pytest
from deployed import BUNDLE, SITES, KilledError

from audit.verify import verify_run
from clients.encoders import export_features
from securefed.config import STAGES, config_from_mapping
from securefed.model_file import load_model
from securefed.nodes.owed import owed_model
from securefed.run_folder import RunFolder
from securefed.simulation import simulate


def simulated(tmp_path, **sections):
    path = tmp_path / "five.safetensors"
    export_features(BUNDLE, path)
    tree = {
        "data": {"source": f"features:{path}"},
        "encoder": {"name": f"features:{path}"},
        "federation": {"rounds": 3, "device": "cpu"},
    }
    for section, values in sections.items():
        tree.setdefault(section, {}).update(values)
    return simulate(config_from_mapping(tree), output=tmp_path / "simulated", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    "secure", [{}, {"compression": "ring:4,subspace:0.25"}, {"enabled": False, "compression": "float16-zlib"}]
)
def test_a_deployment_gives_the_model_of_the_simulation_and_evidence_that_verifies(deployment, tmp_path, secure):
    deployed = deployment(secure_aggregation=secure)
    summary = deployed.serve()
    same = simulated(tmp_path, secure_aggregation=secure)
    assert summary["fam_sha256"] == same.summary["fam_sha256"]
    assert summary["chosen_round"] == same.summary["chosen_round"]
    assert summary["communication"]["upload_bytes"] == same.summary["communication"]["upload_bytes"]
    assert summary["sites"] == {}
    roster = tmp_path / "roster.json"
    roster.write_bytes(deployed.study.roster.encode())
    heads = [deployed.folder / site / "heads-server.jsonl" for site in SITES]
    verification = verify_run(deployed.run, roster=roster, heads=heads)
    assert verification.is_verified, verification.failed
    assert "study" in {check.name for check in verification.checks}
    for site in SITES:
        kept = RunFolder.open(deployed.folder / site / "server")
        own = json.loads(kept.summary.read_text())
        assert own["fam_sha256"] == summary["fam_sha256"]
        assert own["sites"] == {site: same.summary["sites"][site]}
        assert load_model(kept).classes == BUNDLE.classes
        assert (kept.site(site) / "mlp.safetensors").stat().st_mode & 0o077 == 0


def test_a_hospital_that_was_in_no_round_still_gets_the_shared_model(deployment):
    deployed = deployment(federation={"rounds": 2})

    def away(way, stage, site, round_id, frame):
        if site == "site2" and (stage in STAGES or (stage == "Hello" and round_id < 2)):
            raise KilledError
        return [frame]

    deployed.wire.change.append(away)
    summary = deployed.serve()
    assert deployed.nodes["site2"].state_after(summary["chosen_round"]) == {}
    kept = json.loads((deployed.folder / "site2" / "server" / "summary.json").read_text())
    assert kept["fam_sha256"] == summary["fam_sha256"]
    assert owed_model(deployed.run) == ()
