"""What a simulation says before anything else."""

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
