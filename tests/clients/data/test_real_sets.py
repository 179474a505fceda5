"""The two real data sets named in docs/data.md."""

import pytest

from clients.data import fingerprint, inspect, load_dataset
from tests.assets import brain_tumor, ham10000

pytestmark = pytest.mark.shared_data


def test_ham10000_is_as_its_description_says():
    dataset, warnings = load_dataset(str(ham10000()))
    assert dataset.sites == ("rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias")
    assert [len(dataset.select(site)) for site in dataset.sites] == [1414, 1166, 626, 278]
    assert len(dataset.classes) == 7
    assert dataset.class_counts("vienna_dias")["actinic_keratosis"] == 0
    assert dataset.class_counts("rosendahl")["melanocytic_nevus"] == 400
    assert len({record.patient for record in dataset.records}) == 3484
    assert [warning.kind for warning in warnings] == ["class_missing_at_site"]
    assert fingerprint(dataset) == "d2c22cc03eac88e0fd9c31cce9e84e192bab4f6f002f02f3351fcb7e25280911"


def test_the_brain_set_is_as_its_description_says():
    dataset, warnings = load_dataset(str(brain_tumor()))
    assert dataset.sites == ("axial", "coronal", "sagittal")
    assert dataset.class_counts() == {"glioma": 720, "meningioma": 680, "pituitary_tumor": 720}
    assert warnings == ()
    assert fingerprint(dataset) == "e98ff16bb5c89707c8501c0a31b6d9b0659e35c8751a8c01801e4472cbc3e38f"
    report = inspect(dataset)
    assert report.image_sizes == {"224x224": 2120}
    assert all(site.patients is None for site in report.sites)
