"""An entry for the OpenDP Deployments Registry: what a run claims, in the words of that registry's schema.

The schema is `schemas/deployments-schema.yaml` of github.com/opendp/deployments-registry-data (2026-07-15); a test
holds a copy against which entries are validated.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from audit.bounds import at_most
from audit.errors import AuditError
from audit.report.reading_order import in_order

_DETAILS = {"image": "record-level", "patient": "patient-level", "hospital": "hospital-level"}
_OPEN = "Not stated."
_SIMULATED = " A simulation: one machine ran all hospitals, which are sites of a data set there, and the server."


class NoClaimError(AuditError):
    """A run that claims no differential privacy is no deployment of it."""


def registry_entry(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a run as nested plain values.

    Fields that nobody declared read `Not stated.` and are listed in the notes; the status is always Draft, as the
    registry's board decides on the rest.

    Raises:
        NoClaimError: The run claims no differential privacy.
    """
    claim, data, identity = report["claim"], report["data"], report["identity"]
    if claim["claim"] != "CLAIMED":
        raise NoClaimError(
            f"{identity['run_id']} claims no differential privacy ({claim['reason']}): the registry lists deployments "
            "of differential privacy only; use another format"
        )
    declared = {field["name"]: field["value"] for field in report["purpose"]["fields"]}
    tool = "SecureFed " + identity["software"].get("securefed", "of unknown version")
    simulated = identity["operation"] == "simulation"
    hospitals = [] if simulated else list(data["hospitals"])  # those of a simulation are names in a data set
    curators = [declared["controller"]] if declared["controller"] else hospitals
    return {
        "url_slug": _slug(identity["run_id"]),
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": {
                "name": f"Feature adaptation module on {data['name'] or 'unnamed data'}",
                "data_curators": curators or [_OPEN],
                "intended_use": declared["purpose"] or _OPEN,
                "data_product_type": "Machine learning model",
                "data_product_region": declared["region"] or _OPEN,
                "description": (
                    f"A feature adaptation module on the frozen encoder {data['encoder'] or 'of unknown name'}, "
                    f"trained by {len(data['hospitals'])} hospitals in {identity['rounds']} rounds (FedMedCLIP)."
                    f"{_SIMULATED if simulated else ''}"
                ),
                "publication_date": (identity["ended"] or identity["started"])[:10],
                "data_product_sector": "Healthcare",
            },
            "dp_variant": {
                "variant_name": "Approximate DP",
                "data_domain": declared["data_categories"] or f"Images of the classes {', '.join(data['classes'])}.",
                "unprotected_quantities": "; ".join(claim["unprotected"]) or "The run lists none.",
            },
            "privacy_loss": {
                "privacy_unit": _DETAILS[claim["unit"]],
                "privacy_unit_details": (
                    f"Data sets are neighbours by {claim['adjacency']}, one {claim['unit']}. The claim covers "
                    f"{claim['reason']}."
                ),
                "privacy_parameters": _parameters(claim),
                "privacy_parameters_details": _mechanisms(claim),
            },
            "deployment_model": {
                "model_name": "Federated",
                "model_name_details": f"Noise is added in the mode `{claim['mode']}`.",
                "actors": "\n".join(_actor(row) for row in report["trust"]),
                "release_type": "One release",
                "release_type_details": _budget(report),
                "data_source_type": "Static",
                "data_source_type_details": _data_set(data),
                "access_type": "Non-interactive",
                "access_type_details": "A model is published; nobody queries the data.",
            },
            "accounting": {
                "post_processing": (
                    "All that is computed from noisy updates alone: averages, optimiser steps, predictions of the "
                    "shared model. A prediction in which a network without noise has a part is none."
                ),
                "composition": f"All recorded mechanisms, composed by the accountant {claim['accountant']}.",
            },
            "implementation": {
                "preprocessing_and_hyperparameter_tuning": _tuning(claim),
                "mechanisms": f"{tool}, source {identity['commit'] or 'not recorded'}. {_mechanisms(claim)}",
                "justification": declared["necessity"] or _OPEN,
            },
            "administrative": {
                "sources": f"Audit record with {identity['events']} events, Merkle root {identity['root']}.",
                "notes": _notes(report),
                "registry_authors": [declared["approved_by"] or tool],
            },
        },
    }


def render_registry(report: Mapping[str, Any]) -> str:
    """Return the entry as YAML: scalars plain, quoted or, where they span lines, literal; as the registry asks.

    Raises:
        NoClaimError: The run claims no differential privacy.
    """
    entry = yaml.dump(registry_entry(report), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)
    return in_order(str(entry))


def _data_set(data: Mapping[str, Any]) -> str:
    kind = "Keyed digest" if data["keyed"] else "SHA-256"
    return f"{kind} of the data set: {data['fingerprint'] or 'not recorded'}."


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"


def _parameters(claim: Mapping[str, Any]) -> dict[str, float]:
    known = {} if claim["epsilon"] is None else {"epsilon": claim["epsilon"]}
    return {**known, "delta": claim["delta"]}


def _mechanisms(claim: Mapping[str, Any]) -> str:
    events = {
        (
            event["mechanism"]["type"],
            ", ".join(f"{name} {value}" for name, value in event["mechanism"].items() if name != "type"),
            event["repetitions"],
        )
        for event in claim["events"]
    }
    return "; ".join(f"{kind} ({values}), {times} times" for kind, values, times in sorted(events)) or "None recorded."


def _actor(row: Mapping[str, Any]) -> str:
    cost = "no bound by noise" if row["epsilon"] is None else f"epsilon {at_most(row['epsilon'])}"
    return f"{row['adversary']} sees {row['sees']}. {row['protection']} ({cost})"


def _budget(report: Mapping[str, Any]) -> str:
    budgets = [entry["budget"] for entry in report["hospitals"] if entry["budget"] is not None]
    if not budgets and report["identity"]["operation"] == "deployment":
        return "Charged to a ledger at each hospital, which holds its loss over all runs and is no part of this record."
    if not budgets:
        return "The run was charged to no ledger: other releases from the same data add to its privacy loss."
    return f"Charged to ledgers that hold the privacy loss over all runs at epsilon {min(budgets):g} or below."


def _tuning(claim: Mapping[str, Any]) -> str:
    tuned = [line for line in claim["unprotected"] if "hyper" in line.lower()]
    return "; ".join(tuned) or "Not recorded in the run."


def _notes(report: Mapping[str, Any]) -> str:
    missing = report["purpose"]["open_items"]
    verified = "verifies" if report["identity"]["is_verified"] else "DOES NOT VERIFY"
    lines = [f"The record of the run {verified}."]
    lines += [f"Found by attack: {a['name']} ({a['setting']}): {a['outcome']}." for a in report["empirical"]]
    return "\n".join([*lines, *(f"Open: {item}." for item in missing)])


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines literally."""


def _literal(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _literal)
