"""What a simulation says before anything else."""

import pytest

from securefed.config import config_from_mapping
from securefed.first_lines import first_lines


def _said(**sections):
    return first_lines(config_from_mapping(sections))


def test_settings_that_a_method_without_sums_never_reads_are_named():
    said = _said(
        federation={"method": "local"},
        secure_aggregation={"threshold": 3},
        simulation={"dropout": 0.3, "drop": ["clinic@1:ShareKeys"]},
    )

    assert said[-1] == (
        "without effect here: secure_aggregation.threshold (local sums nothing), "
        "simulation.dropout (local sums nothing), simulation.drop (local sums nothing)"
    )


def test_a_budget_of_bytes_that_nothing_chooses_by_is_named():
    said = _said(secure_aggregation={"upload_budget": 9000})

    assert said[-1] == "without effect here: secure_aggregation.upload_budget (compression is none, not auto)"


def test_class_names_count_for_numbered_classes_only():
    names = ["benign", "malignant"]

    assert "data.class_names" in _said(data={"source": "photos", "class_names": names})[-1]
    for source in ("photos.npz", "PHOTOS.NPZ"):
        assert "without effect" not in _said(data={"source": source, "class_names": names})[-1]


def test_settings_that_are_read_are_not_named():
    said = _said(
        secure_aggregation={"threshold": 3, "compression": "auto", "upload_budget": 9000}, simulation={"dropout": 0.3}
    )

    assert said[-1] == "secure aggregation: active"


def test_settings_that_nothing_reads_beside_noise_in_shares_or_without_a_ledger_are_named():
    shares = {"mode": "hospital", "noise_multiplier": 2.0, "spare_rounds": 1, "charge": "share"}
    said = _said(privacy=shares, secure_aggregation={"value_bits": 12, "update_range": 1.0})[-1]

    assert said == (
        "without effect here: secure_aggregation.value_bits (noise in shares has a grid of its own), "
        "secure_aggregation.update_range (noise in shares has a grid of its own), "
        "privacy.spare_rounds (the noise is given, not calibrated), "
        "privacy.charge (no ledger is charged for noise in shares)"
    )
    local = {"mode": "local", "epsilon": 8.0, "ledger": "l.sqlite", "charge": "share"}
    assert "privacy.charge" in _said(privacy=local)[-1]
    paid = {"mode": "distributed", "epsilon": 8.0, "ledger": "l.sqlite", "charge": "share", "spare_rounds": 1}
    assert "without effect" not in _said(privacy=paid)[-1]


@pytest.mark.parametrize(
    ("privacy", "seeded", "never"),
    [
        ({"mode": "local"}, "partitions, rounding and start", "keys, pads, samples and noise"),
        (
            {"mode": "local", "coupling": "one-way"},
            "partitions, rounding, start and the batches of the MLP",
            "keys, pads, samples and noise",
        ),
        (
            {"mode": "distributed"},
            "partitions, start and the batches of the MLP",
            "keys, pads, samples, rounding and noise",
        ),
        ({"mode": "hospital"}, "partitions, start and batches", "keys, pads, rounding and noise"),
    ],
)
def test_what_comes_from_the_seed_of_a_private_run_is_said_by_its_mode(privacy, seeded, never):
    first = _said(privacy={"epsilon": 8.0, **privacy})[0]

    assert first == f"SIMULATION: {seeded} come from the seed; {never} never do."
