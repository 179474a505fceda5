"""The registry entry validates against the registry's own schema, and says nothing that the run does not."""

from pathlib import Path

import pytest
import yaml

from audit.report import build_report, render
from audit.report.registry import NoClaimError, registry_entry

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = Path(__file__).parent / "registry" / "deployments-schema.yaml"


@pytest.fixture
def report(private_run):
    return build_report(private_run)


def test_the_entry_validates_against_the_registrys_schema(report):
    text = render(report, "registry").decode()
    entry = yaml.safe_load(text)
    schema = yaml.safe_load(SCHEMA.read_text())
    checker = jsonschema.Draft7Validator.FORMAT_CHECKER
    assert list(jsonschema.Draft7Validator(schema, format_checker=checker).iter_errors(entry)) == []
    assert entry == registry_entry(report)
    styles = {token.style for token in yaml.scan(text) if hasattr(token, "style")}
    assert styles <= {None, "|", '"', "'"}


def test_the_entry_states_the_claim_of_the_run(report):
    deployment = registry_entry(report)["deployment"]
    parameters = deployment["privacy_loss"]["privacy_parameters"]
    assert parameters == {"epsilon": report["claim"]["epsilon"], "delta": 1e-5}
    assert deployment["privacy_loss"]["privacy_unit"] == "record-level"
    assert deployment["basic"]["intended_use"] == "Not stated."
    assert "Open: purpose" in deployment["administrative"]["notes"]
    assert "noise_multiplier 1.2" in deployment["implementation"]["mechanisms"]


def test_a_simulation_is_called_one_and_names_no_site_as_curator(report):
    basic = registry_entry(report)["deployment"]["basic"]
    assert basic["description"].endswith(
        "A simulation: one machine ran all hospitals, which are sites of a data set there, and the server."
    )
    assert basic["data_curators"] == ["Not stated."]
    report["identity"]["operation"] = "deployment"
    basic = registry_entry(report)["deployment"]["basic"]
    assert "simulation" not in basic["description"]
    assert basic["data_curators"] == report["data"]["hospitals"]


def test_the_entry_states_the_scope_of_the_claim_and_calls_no_other_prediction_private(report):
    report["claim"]["reason"] = "training images, in the FAM; the private MLP is not covered"
    deployment = registry_entry(report)["deployment"]
    assert f"The claim covers {report['claim']['reason']}." in deployment["privacy_loss"]["privacy_unit_details"]
    told = deployment["accounting"]["post_processing"]
    assert "predictions of the shared model" in told
    assert "a network without noise has a part is none" in told


def test_what_nobody_can_account_states_no_epsilon(report):
    report["claim"]["epsilon"] = None
    assert registry_entry(report)["deployment"]["privacy_loss"]["privacy_parameters"] == {"delta": 1e-5}


def test_hostile_text_stays_text(report):
    report["purpose"]["fields"][0]["value"] = "no: {a: [1, &x *x]} # 'quoted' \"twice\" 1e-5"
    entry = yaml.safe_load(render(report, "registry"))
    assert entry["deployment"]["basic"]["intended_use"] == report["purpose"]["fields"][0]["value"]


def test_a_run_without_a_claim_is_no_deployment(complete_run):
    with pytest.raises(NoClaimError, match="claims no differential privacy"):
        render(build_report(complete_run), "registry")
