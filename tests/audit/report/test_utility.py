"""What a report says of metrics: on how many images they stand, and over how many hospitals means go."""

from audit.report import build_report, render_markdown
from tests.audit.runs import Run


def test_hospitals_without_test_images_and_metrics_over_few_are_told(tmp_path):
    run = Run(tmp_path / "r", rounds=1, sites=("elm", "north", "south", "west"))
    known = {"accuracy": 0.5, "balanced_accuracy": 0.5, "macro_f1": 0.5, "auroc": 0.5, "ece": 0.25}
    values = {site: {"ensemble": {**known, "num_images": 20}} for site in ("north", "south")}
    values["west"] = {"ensemble": {**known, "accuracy": 0.0, "auroc": None, "num_images": 1}}
    run.log.append("evaluation", {"round": 1, "split": "test", "leaves_hospital": False, "values": values})
    report = build_report(run.complete(1))
    assert report["utility"]["images"] == {"north": 20, "south": 20, "west": 1}
    assert report["questions"][7]["answer"].startswith("Mean accuracy over 3 of 4 hospitals is 33.3 %; each hospital")
    page = render_markdown(report)
    assert "| elm | - | - | - | - | - | - | - |" in page
    assert "| west | ensemble | 1 | 0.0 % | 50.0 % | 50.0 % | - | 25.0 % |" in page
    assert "| accuracy | west | 1 | 0.0 % |" in page
    assert "over 3 of 4 hospitals for accuracy, balanced, macro F1, calibration error." in page
    assert "over 2 of 4 hospitals for AUROC." in page
    assert "Fewer than 5 test images, on which metrics say little: west." in page


def test_where_every_hospital_is_measured_no_mean_is_said_to_leave_one_out(private_report):
    assert private_report["questions"][7]["answer"].startswith("Mean accuracy over the hospitals is 50.0 %")
    assert "for accuracy" not in render_markdown(private_report)
    assert "Fewer than" not in render_markdown(private_report)
