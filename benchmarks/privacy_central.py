"""The private trainings of `--dp` in one process: without noise, and with the noise of a trusted server.

The hospitals, clipped sums and the server's step are those of the runs; there is no protocol, no integer noise and no
log, and nothing is claimed. `noiseless` is what the modes reach as epsilon goes to infinity; `central` is DP-SGD on the
data of all sites in one place, with the noise multiplier of the sum: what `--dp distributed` has to equal.
"""

import dataclasses

import numpy as np

from clients.encoders import FeatureBundle, LabelledFeatures, SiteFeatures
from clients.method.layout import initial_vector
from clients.privacy import PrivacySettings, PrivateHospital, Randomness
from securefed.config import RunConfig
from securefed.noisy import MomentumStep
from securefed.privacy.mechanism import step_settings


def noiseless(bundle: FeatureBundle, config: RunConfig) -> dict:
    """Return the mean test accuracy of each part after all rounds of the mode, with a noise multiplier of 0."""
    if config.privacy.mode == "distributed":
        return _summed(bundle, config, bundle.sites, 0.0)
    step = step_settings(config.privacy, config.federation.rounds)
    step = dataclasses.replace(step, noise_multipliers=(0.0,) * len(step.clip_norms))
    hospitals = [_hospital(site, bundle, config, step) for site in bundle.sites]
    vector = _start(bundle, config)
    for number in range(1, config.federation.rounds + 1):
        vector = vector + np.mean([hospital.train_round(vector, number) for hospital in hospitals], axis=0)
    return _accuracy(hospitals, vector)


def central(bundle: FeatureBundle, config: RunConfig, noise_multiplier: float) -> dict:
    """Return the same of DP-SGD on the pooled images; the FAM is judged at each site, whose MLP is not private."""
    return _summed(bundle, config, [_pooled(bundle)], noise_multiplier)


def _summed(bundle: FeatureBundle, config: RunConfig, holders: list, noise_multiplier: float) -> dict:
    training, privacy = config.training, config.privacy
    step = PrivacySettings(
        unit=privacy.unit,
        coupling="one-way",
        clip_norms=(privacy.clip_norm,),
        noise_multipliers=(0.0,),
        sampling_rate=privacy.sampling_rate,
        normaliser=privacy.normaliser,
    )
    hospitals = [_hospital(site, bundle, config, step) for site in bundle.sites]
    pooled = [_hospital(site, bundle, config, step) for site in holders] if len(holders) < len(hospitals) else hospitals
    server = MomentumStep(
        training.fam_learning_rate,
        training.learning_rate_decay,
        training.adam_beta1,
        training.weight_decay,
        privacy.normaliser * len(hospitals),
    )
    source = Randomness.of_the_system()
    vector = _start(bundle, config).astype(np.float64)
    velocity = np.zeros_like(vector)
    for number in range(1, config.federation.rounds + 1):
        received = vector.astype(np.float32)
        total = np.sum([holder.clipped_sum(received, number).vector for holder in pooled], axis=0, dtype=np.float64)
        if noise_multiplier:
            total += noise_multiplier * privacy.clip_norm * source.gaussian(len(total)).double().numpy()
        for hospital in hospitals:
            hospital._load_shared(received)  # noqa: SLF001 (as `clipped_sum` does before the MLP trains)
            hospital.train_mlp(number)
        update, velocity = server(total, vector, velocity, number)
        vector = vector + update
    return _accuracy(hospitals, vector.astype(np.float32))


def _hospital(site: SiteFeatures, bundle: FeatureBundle, config: RunConfig, step: PrivacySettings) -> PrivateHospital:
    seed, method = config.federation.seed, config.federation.method
    return PrivateHospital(
        site, bundle.text_features, bundle.logit_scale, config.training, step, None, method, seed, "cpu"
    )


def _pooled(bundle: FeatureBundle) -> SiteFeatures:
    def whole(split: str) -> LabelledFeatures:
        parts = [site.split(split) for site in bundle.sites]
        return LabelledFeatures(
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.labels for part in parts]),
            tuple(path for part in parts for path in part.paths),
            tuple(digest for part in parts for digest in part.digests),
        )

    return SiteFeatures("all", whole("train"), whole("val"), whole("test"))


def _start(bundle: FeatureBundle, config: RunConfig) -> np.ndarray:
    return initial_vector(
        bundle.embed_dim, config.training, config.federation.seed, config.federation.method, len(bundle.classes)
    )


def _accuracy(hospitals: list[PrivateHospital], vector: np.ndarray) -> dict:
    """Mean over the sites, in per cent, by part."""
    found = [hospital.evaluate(vector, "test") for hospital in hospitals]
    return {part: 100 * float(np.mean([one[part].accuracy for one in found])) for part in ("ensemble", "fam", "mlp")}
