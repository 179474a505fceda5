"""Membership inference on the shared model: does it tell training images from others of the same hospitals?"""

import numpy as np
from numpy.typing import NDArray

from audit.empirical import membership
from clients.encoders import FeatureBundle
from clients.method.hospital import Hospital
from clients.method.layout import vector_layout
from securefed.attacks.findings import Finding
from securefed.attacks.rates import rates_of
from securefed.config import RunConfig
from securefed.sum_terms import Vector

NAME = "membership inference"


def infer_members(config: RunConfig, bundle: FeatureBundle, vector: Vector) -> list[Finding]:
    """Return how well the confidence of the shared FAM in the true class tells members from others.

    The attacker has the shared model and the features and classes of images, not the private classifiers. Members are
    all training images, others all test images; where a split is by patient or time the two differ for that reason too.

    Args:
        config: Configuration of the run.
        bundle: Its data.
        vector: float32[d], the shared parameters.
    """
    if not vector.size:
        return [Finding(NAME, "not tried", "MEASURED", {}, "Not tried: the method publishes no model.")]
    shapes = [shape for _, shape in vector_layout(bundle.embed_dim, config.training, "fedclip")]
    fam = vector[: sum(int(np.prod(shape)) for shape in shapes)]
    scores: dict[str, list[NDArray[np.float64]]] = {"train": [], "test": []}
    for site in bundle.sites:
        attacker = Hospital(site, bundle.text_features, bundle.logit_scale, config.training, "fedclip")
        for split, found in scores.items():
            rows = getattr(site, split)
            if rows.labels.size:
                parts = attacker.predict(fam, split)
                likely = parts["fam" if "fam" in parts else "ensemble"][np.arange(len(rows.labels)), rows.labels]
                found.append(np.log(np.maximum(likely.astype(np.float64), 1e-30)))
    if not scores["train"] or not scores["test"]:
        return [Finding(NAME, "not tried", "MEASURED", {}, "Not tried: there are no training or no test images.")]
    rates = membership(np.concatenate(scores["train"]), np.concatenate(scores["test"]))
    told = "Confidence of the shared model in the true class, training against test images; 50 % area is guessing."
    return [Finding(NAME, "the shared model, by confidence", "MEASURED", rates_of(rates), told)]
