"""model_card.md: what a kept model is, where it comes from and what it must not be used for, from summary.json.

The form is that of model cards on the Hugging Face Hub: a head in YAML, then prose and tables.

Paper: Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (sections: details, intended use, factors, metrics,
    evaluation data, training data, ethical considerations, caveats).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from audit.bounds import at_most
from audit.report.markdown import escaped
from audit.report.privacy import NEIGHBOURS, UNITS
from audit.report.reading_order import in_order
from audit.report.utility import METRICS

_METRICS: Final = {key: title for key, title in METRICS.items() if key != "ece"}


def model_card(
    name: str, classes: Sequence[str], summary: Mapping[str, Any], study: str = "", hospitals: Sequence[str] = ()
) -> str:
    """Return the card as Markdown.

    Args:
        name: The run.
        classes: Names of the classes, in the order of the outputs.
        summary: Content of summary.json.
        study: Digest of the study, of what one hospital of a deployment keeps; "" where the record is in the folder.
        hospitals: Those whose test images, if they have any, were evaluated; none where a server writes the card.
    """
    provenance = summary["provenance"]
    kept = f"round {summary['chosen_round']} of {summary['rounds_completed']}"
    own = " Each hospital keeps a classifier of its own." if summary["method"] == "fedmedclip" else ""
    masks = "summed under pairwise masks" if summary["secure_aggregation"]["enabled"] else "not masked"
    card = f"""\
---
library_name: securefed
pipeline_tag: image-classification
tags: [federated-learning, secure-aggregation, clip]
---

# {escaped(name)}

## Details

- Method {summary["method"]} over a frozen encoder, kept from {kept}.
- Encoder {escaped(provenance["encoder"])}, SHA-256 `{provenance["encoder_digest"]}`.
- {len(classes)} classes: {escaped(", ".join(classes))}.
- Shared parameters: `fam.safetensors`, SHA-256 `{summary["fam_sha256"]}`.{own}
{_evidence(name, summary["config_digest"], study)}

## Use

Classify images of the kind that the hospitals trained on: `securefed predict`. It answers with one of these classes
whatever it is shown. It is no medical device, it was not validated for patients, and its probabilities are those of the
hospitals' own mix of cases.

## Training

By several hospitals; updates were {masks}. No image and no feature of one has left a hospital.

{_purpose(summary["config"]["purpose"])}## Evaluation

{_evaluation(summary["sites"], summary["global_site"], hospitals)}

## Privacy

{summary["privacy"]["claim"]}. {_epsilon(summary["privacy"])}Whoever has the model may try to learn from it about the
images that it was trained on; only what is claimed here bounds that.
"""
    return in_order(card)


def _evidence(name: str, config_digest: str, study: str) -> str:
    """Say by which digest the record knows what was run, and where that record is."""
    if not study:
        return f"""\
- Configuration: `config.toml`, digest `{config_digest}`.
- Record of the run: `audit.jsonl`, to be checked with `securefed audit verify`."""
    return f"""\
- Study: digest `{study}`, which all parties have signed. `config.toml` is what it says, with this hospital's device.
- Record of the run: with the lead, in the server's run folder. On a copy of it:
  `securefed audit verify COPY --roster roster.json --heads FOLDER/heads/{name}.jsonl` (FOLDER: this hospital's own)."""


def _epsilon(privacy: Mapping[str, Any]) -> str:
    """What a claim promises, in figures: without them it says nothing. "" where nothing is claimed."""
    if not privacy["claim"].startswith("CLAIMED"):
        return ""
    colluders = privacy.get("epsilon_by_adversary", {}).get("colluders", {})  # a claim is about these, where there are
    stated = [privacy["epsilon"], *colluders.values()]
    if None in stated:
        return ""
    neighbours, unit = NEIGHBOURS[privacy["adjacency"]], UNITS[privacy["unit"]]
    return f"Epsilon {at_most(max(stated))} at delta {privacy['delta']:g}, for {neighbours} {unit}. "


def _purpose(purpose: Mapping[str, Any]) -> str:
    stated = [f"- {key.replace('_', ' ')}: {escaped(value)}" for key, value in purpose.items() if value]
    return "\n".join([*stated, "", ""]) if stated else ""


def _evaluation(sites: Mapping[str, Any], held_out: Mapping[str, Any] | None, hospitals: Sequence[str]) -> str:
    """What was measured, in a row for each hospital: those without test images are in it, too."""
    if not sites and not hospitals:
        return "Test metrics stay at the hospitals; each has its own in its copy of this card."
    rows = {site: parts["test"]["ensemble"] for site, parts in sites.items()}
    rows = {site: rows.get(site) for site in [*hospitals, *(site for site in rows if site not in hospitals)]}
    last = "Nothing is known of it at hospitals that did not take part."
    if held_out is not None:
        rows[f"{held_out['site']} (held out)"] = held_out["ensemble"]
        guest = escaped(held_out["site"])
        last = f"{guest} took no part: it has the shared model alone. Nothing is known of it elsewhere."
    lines = [
        "What each hospital predicts with, on its own test images, %; a dash where it has none:",
        "",
        f"| hospital | images | {' | '.join(_METRICS.values())} |",
        f"|---|---:|{'---:|' * len(_METRICS)}",
    ]
    for site, found in rows.items():
        shown = ["-" if not found or found[key] is None else f"{100 * found[key]:.1f}" for key in _METRICS]
        lines.append(f"| {escaped(site)} | {found['num_images'] if found else 0} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", last])
