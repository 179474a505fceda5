"""What is left of a run: the kept model and each hospital's MLP, evaluated once on test data, written and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.history import RoundRecord
from clients.encoders import FeatureBundle
from clients.method.hospital import Hospital
from clients.method.layout import vector_layout
from clients.method.settings import TrainingSettings
from clients.method.threads import one_thread_each
from securefed.config import RunConfig
from securefed.evaluation import SiteEvaluation, at_held_out_site, evaluate_site, metric_rows
from securefed.hospitals import Hospitals
from securefed.model_card import model_card
from securefed.model_file import SavedModel, save_model, vector_digest
from securefed.plots import plot_accuracy, plot_bytes, plot_confusion, plot_keep_ratios, plot_reliability
from securefed.provenance import software_versions
from securefed.run_folder import RunFolder, read_byte_rows, read_metric_rows
from securefed.summary import summarise

FINAL = -1
"""Round number in metrics.csv of the kept model's final evaluation."""


@dataclass(frozen=True)
class Outcome:
    """A run whose training has ended.

    Attributes:
        hospitals: The hospitals, with the MLPs that belong to the kept model.
        vector: float32[d], the kept shared parameters; float32[0] where the method shares none.
        rounds: Rounds that were finished.
        chosen_round: Round of the kept model, 0 where there is none.
        secure_aggregation: Parameters of the secure sum and dropouts by stage, for the summary.
        privacy: What is claimed and what it cost, for the summary.
        training: The rounds of training that the result stands on, as the log has them.
        seconds: {train, aggregate, evaluate: seconds}.
        name: What the model card calls the run; the name of its folder unless given.
        study: Digest of the study, of what one hospital of a deployment keeps: the record is the server's then; "" of a
            run that has its record beside it.
    """

    hospitals: Hospitals
    vector: NDArray[np.float32]
    rounds: int
    chosen_round: int
    secure_aggregation: Mapping[str, Any]
    privacy: Mapping[str, Any]
    training: Sequence[RoundRecord] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    name: str = ""
    study: str = ""


def write_outcome(
    folder: RunFolder,
    config: RunConfig,
    bundle: FeatureBundle,
    outcome: Outcome,
    seconds: Mapping[str, float],
    keyed: str = "",
) -> dict[str, Any]:
    """Evaluate on test data, write models, metrics, plots and summary.json; return the summary.

    Args:
        folder: The run's folder.
        config: Its configuration.
        bundle: The features of its data.
        outcome: What the rounds ended with.
        seconds: Seconds by phase.
        keyed: What a private run calls its data where others read of them; "" for their fingerprint.
    """
    with one_thread_each():
        evaluations = [
            evaluate_site(site.site, outcome.hospitals.predict(site.site, outcome.vector, "test"), site.test.labels)
            for site in bundle.sites
            if site.test.labels.size
        ]
        held_out = _evaluate_global_site(config, bundle, outcome)
    digest = _write_models(folder, config, bundle, outcome)
    folder.keep_rows_until(folder.metrics, outcome.rounds)
    for evaluation in [*evaluations, *([held_out] if held_out else [])]:
        folder.append_rows(folder.metrics, metric_rows(evaluation, FINAL, "test"))
    folder.write_json(folder.evaluation, _details([*evaluations, *([held_out] if held_out else [])], bundle.classes))
    draw_plots(folder, outcome.chosen_round, outcome.training, config.training.learn_thresholds)
    summary = summarise(
        config,
        evaluations=evaluations,
        global_evaluation=held_out,
        byte_rows=read_byte_rows(folder.bytes),
        training=outcome.training,
        rounds_completed=outcome.rounds,
        chosen_round=outcome.chosen_round,
        secure_aggregation=outcome.secure_aggregation,
        seconds=seconds,
        fam_sha256=digest,
        provenance={
            "data_fingerprint": keyed or bundle.data_fingerprint,
            "data_keyed": bool(keyed),
            "encoder": bundle.encoder_name,
            "encoder_digest": bundle.encoder_digest,
            **({"features_digest": bundle.features_digest} if bundle.features_digest else {}),
            **({} if keyed else {"images_encoded": bundle.images_encoded, "cache_hits": bundle.cache_hits}),
            "software": software_versions(),
        },
        privacy=outcome.privacy,
    )
    folder.write_json(folder.summary, summary)
    if digest is not None:
        name, hospitals = outcome.name or folder.name, [site.site for site in bundle.sites]
        folder.write_text(folder.card, model_card(name, bundle.classes, summary, outcome.study, hospitals))
    return summary


def draw_plots(folder: RunFolder, chosen_round: int, training: Sequence[RoundRecord], learned: bool) -> None:
    """Draw all plots of a run from the files of its folder, and from its rounds of training what they sent.

    Where layers learn no thresholds (`learned`), all rows are kept throughout: there is nothing to draw of them.
    """
    rows = read_metric_rows(folder.metrics) if folder.metrics.exists() else []
    details = folder.read_json(folder.evaluation)
    plot_accuracy(rows, chosen_round, folder.plots)
    if learned:
        plot_keep_ratios(rows, folder.plots)
    plot_bytes(training, folder.plots)
    plot_reliability({site: entry["reliability"] for site, entry in details["sites"].items()}, folder.plots)
    matrices = {site: entry["confusion"] for site, entry in details["sites"].items()}
    plot_confusion(matrices, details["classes"], folder.plots)


def global_site_parts(
    bundle: FeatureBundle, settings: TrainingSettings, vector: NDArray[np.float32], device: str
) -> Mapping[str, NDArray[np.float32]]:
    """Return the probabilities at a site without an MLP: of the FAM alone, or without one of the encoder alone."""
    assert bundle.global_site is not None  # noqa: S101 (the caller has looked)
    alone = "fedclip" if vector.size else "zero-shot"
    size = sum(int(np.prod(shape)) for _, shape in vector_layout(bundle.embed_dim, settings, alone))
    guest = Hospital(bundle.global_site, bundle.text_features, bundle.logit_scale, settings, alone, device=device)
    return guest.predict(vector[:size], "test")


def _evaluate_global_site(config: RunConfig, bundle: FeatureBundle, outcome: Outcome) -> SiteEvaluation | None:
    site = bundle.global_site
    if site is None or not site.test.labels.size:
        return None
    parts = global_site_parts(bundle, config.training, outcome.vector, "cpu")
    named = at_held_out_site(parts, config.federation.method, shares=bool(outcome.vector.size))
    return evaluate_site(site.site, named, site.test.labels)


def _write_models(folder: RunFolder, config: RunConfig, bundle: FeatureBundle, outcome: Outcome) -> str | None:
    for site in outcome.hospitals.sites:
        state = outcome.hospitals.private_states()[site]
        if state:
            path = folder.site(site) / "mlp.safetensors"
            folder.write_arrays(path, state, {"site": site, "method": config.federation.method}, private=True)
    save_model(
        folder,
        SavedModel(
            vector=outcome.vector,
            text_features=bundle.text_features,
            classes=bundle.classes,
            prompts=bundle.prompts,
            logit_scale=bundle.logit_scale,
            method=config.federation.method,
            settings=config.training,
            encoder=bundle.encoder_name,
            encoder_digest=bundle.encoder_digest,
            sites=tuple(outcome.hospitals.sites),
        ),
    )
    return vector_digest(outcome.vector) if outcome.vector.size else None


def _details(evaluations: Sequence[SiteEvaluation], classes: Sequence[str]) -> dict[str, Any]:
    return {
        "classes": list(classes),
        "sites": {
            evaluation.site: {"confusion": evaluation.confusion, "reliability": evaluation.reliability}
            for evaluation in evaluations
        },
    }
