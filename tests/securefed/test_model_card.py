"""The model card says what summary.json says, and nothing that it does not."""

import json
import re
from pathlib import Path

import pytest
import yaml

from securefed.config import config_from_mapping
from securefed.model_card import model_card
from securefed.simulation import simulate
from securefed.summary import measured


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("card")
    config = config_from_mapping({"federation": {"rounds": 1, "device": "cpu"}, "purpose": {"controller": "The trees"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("securefed.outcome.draw_plots", lambda *_: None)
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


def test_a_site_that_was_held_out_is_in_the_card_and_what_is_known_elsewhere_is_said_to_be_nothing(run):
    summary = json.loads(run.summary.read_text())
    elsewhere = "Nothing is known of it at hospitals that did not take part."
    assert elsewhere in model_card("north", ["oak", "pine"], summary)
    found = {"num_images": 12, "accuracy": 0.25, "balanced_accuracy": 0.5, "macro_f1": None, "auroc": 0.75}
    card = model_card("north", ["oak", "pine"], {**summary, "global_site": {"site": "yew", "ensemble": found}})
    assert "| yew (held out) | 12 | 25.0 | 50.0 | - | 75.0 |" in card
    assert "yew took no part" in card
    assert elsewhere not in card
    assert measured({**summary, "global_site": {"site": "yew", "ensemble": found}})["yew"] == {"ensemble": found}
    assert list(measured(summary)) == list(summary["sites"])


def test_hospitals_without_test_images_are_rows_of_the_card_and_nobody_is_said_to_keep_metrics(run):
    summary = json.loads(run.summary.read_text())
    card = model_card("north", ["oak", "pine"], summary, "", [*summary["sites"], "yew"])
    assert "| yew | 0 | - | - | - | - |" in card
    card = model_card("north", ["oak", "pine"], {**summary, "sites": {}}, "", ["oak", "yew"])
    assert "| oak | 0 | - | - | - | - |" in card
    assert "Test metrics stay" not in card
    found = {"num_images": 12, "accuracy": 0.25, "balanced_accuracy": 0.5, "macro_f1": None, "auroc": 0.75}
    held_out = {"site": "fir", "ensemble": found}
    card = model_card("north", ["oak"], {**summary, "sites": {}, "global_site": held_out}, "", ["yew"])
    assert "| fir (held out) | 12 | 25.0 |" in card


def test_no_name_in_a_card_is_markup(run):
    summary = json.loads(run.summary.read_text())
    found = next(iter(summary["sites"].values()))
    hostile = {**summary, "sites": {"a|b <i>x": found}, "config": {"purpose": {"controller": "<b>|"}}}
    hostile["provenance"] = {**summary["provenance"], "encoder": "local-dir:a_b_<u>"}
    hostile["global_site"] = {"site": "g|<s>\u202e", "ensemble": found["test"]["ensemble"]}
    card = model_card("odd|run<b>", ["<script>alert(1)</script>", "*b*"], hostile)
    assert not re.search("<[a-z/]", card)
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {7}
    assert "| a\\|b &lt;i>x |" in card
    assert "\\*b\\*" in card
    assert "\u202e" not in card


def test_a_claim_has_its_epsilon_delta_unit_and_neighbours_in_the_card(run):
    summary = json.loads(run.summary.read_text())
    assert "Epsilon" not in run.card.read_text()
    private = {"claim": "CLAIMED: training images", "epsilon": 7.99942, "delta": 1e-5}
    for unit, adjacency, said in (
        ("patient", "add-or-remove-one", "adding or removing all training images of one patient at a hospital"),
        ("image", "replace-one", "replacing one training image at a hospital"),
        ("hospital", "add-or-remove-one", "adding or removing all data of one hospital"),
    ):
        privacy = {**private, "unit": unit, "adjacency": adjacency}
        card = model_card("north", ["oak", "pine"], {**summary, "privacy": privacy})
        assert f"CLAIMED: training images. Epsilon 8 at delta 1e-05, for {said}. Whoever has" in card
    views = {"aggregate_only": 7.99942, "colluders": {"1": 9.5}, "aggregation_broken": 30.0}
    shares = {**private, "unit": "image", "adjacency": "replace-one", "epsilon_by_adversary": views}
    assert "Epsilon 9.5 at delta" in model_card("north", ["oak", "pine"], {**summary, "privacy": shares})
    privacy = {**private, "claim": "NOT CLAIMED: no meaningful epsilon", "unit": "image", "adjacency": "replace-one"}
    assert "Epsilon" not in model_card("north", ["oak", "pine"], {**summary, "privacy": privacy})


def test_every_file_of_a_run_folder_is_explained_and_the_secret_ones_are_marked(run):
    page = (Path(__file__).resolve().parents[2] / "docs/run-folder.md").read_text()
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \| (.+) \|$", page.split("## summary.json")[0], re.MULTILINE)
    explained = {name: text for names, text in rows for name in re.findall("`([^`]+)`", names)}
    for path in run.path.rglob("*"):
        if path.is_file():
            name = re.sub(r"^sites/[^/]+/", "sites/<site>/", path.relative_to(run.path).as_posix())
            text = explained[name]
            assert ("**secret, do not share**" in text) == (path.stat().st_mode & 0o077 == 0), name
