"""The model card says what summary.json says, and nothing that it does not."""

import json

import pytest
import yaml

from securefed.config import config_from_mapping
from securefed.model_card import model_card
from securefed.simulation import simulate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("card")
    config = config_from_mapping({"federation": {"rounds": 1, "device": "cpu"}, "purpose": {"controller": "The trees"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("securefed.outcome.draw_plots", lambda folder, chosen_round: None)
        return simulate(config, output=root / "run", cache_dir=root / "cache").folder


def test_a_run_leaves_a_card_with_its_digests_classes_metrics_and_claim(run):
    card, summary = run.card.read_text(), json.loads(run.summary.read_text())
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["pipeline_tag"] == "image-classification"
    for said in (summary["fam_sha256"], summary["provenance"]["encoder_digest"], summary["privacy"]["claim"]):
        assert said in card
    assert "controller: The trees" in card
    for site, parts in summary["sites"].items():
        found = parts["test"]["ensemble"]
        assert f"| {site} | {found['num_images']} | {100 * found['accuracy']:.1f} |" in card
    assert "updates were summed under pairwise masks" in card


def test_a_card_of_a_server_shows_no_metric_and_one_of_updates_in_clear_says_so(run):
    summary = json.loads(run.summary.read_text())
    card = model_card("north", ["oak", "pine"], {**summary, "sites": {}, "secure_aggregation": {"enabled": False}})
    assert "Test metrics stay at the hospitals" in card
    assert "AUROC" not in card
    assert "updates were not masked" in card
    assert "2 classes: oak, pine" in card
