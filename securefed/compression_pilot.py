"""`auto` with an accuracy target: what each compression costs on these hospitals, by trying it before the run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from clients.encoders import FeatureBundle
from clients.method.threads import one_thread_each, usable_cores
from protocols.entropy import system_entropy
from protocols.roster import IdentityKey, Roster
from securefed.aggregation import Aggregator
from securefed.cohort import check_cohort
from securefed.compression_choice import LADDER
from securefed.config import RunConfig
from securefed.errors import ConfigError
from securefed.federation import Federation
from securefed.hospitals import Hospitals
from securefed.nodes.simulated import SimulatedSites
from securefed.observer import Observer
from securefed.preparation import encode_sites, load_sites, resolve_device
from securefed.sum_terms import SumTerms

PARTS = ("ensemble", "fam")
_KEY = "secure_aggregation.accuracy_loss"


@dataclass(frozen=True)
class Trial:
    """What a scheme came to.

    Attributes:
        scheme: Text of the scheme.
        accuracy: {part: mean accuracy over the sites on validation images after the last round}, in percent.
    """

    scheme: str
    accuracy: dict[str, float]

    def loss(self, reference: "Trial") -> dict[str, float]:
        """Points below another trial, by part; negative where this one is better."""
        return {part: reference.accuracy[part] - self.accuracy[part] for part in PARTS}


def settle_compression(
    config: RunConfig, cache_dir: Path | None, observer: Observer, workers: int | None = None
) -> RunConfig:
    """Return a configuration that names its compression, where `auto` is to keep an accuracy target; else the same.

    Every scheme, the smallest first, is run for all rounds of the configuration without masks (the same integers are
    summed, so that the models are the same) until one loses no more than the target, of the ensemble and of the FAM
    alone, against no compression. The choice is by validation images of all hospitals: a simulation may look at them.

    Raises:
        ConfigError: Privacy is on, a hospital has no validation images, or nothing is shared.
    """
    secure = config.secure_aggregation
    if secure.compression != "auto" or not secure.accuracy_loss:
        return config
    if config.privacy.enabled:
        raise ConfigError(_KEY, "the trials are chosen by private images and nobody counts them; name a compression")
    if not config.aggregates:
        raise ConfigError(_KEY, f"{config.federation.method} shares nothing that could be compressed")
    dataset, _ = load_sites(config.data, config.federation.seed)
    check_cohort(config, dataset.sites)
    device = resolve_device(config.federation.device)
    bundle = encode_sites(config, dataset, device, cache_dir, observer)
    empty = [site.site for site in bundle.sites if not site.val.labels.size]
    if empty:
        raise ConfigError(_KEY, f"needs validation images at every site and {', '.join(empty)} has none")

    def attempt(scheme: str) -> Trial:
        trial = _try(config, bundle, device, scheme, workers or usable_cores())
        figures = ", ".join(f"{part} {trial.accuracy[part]:.2f}" for part in PARTS)
        observer.noted(f"compression auto: {scheme} in {config.federation.rounds} rounds, validation images: {figures}")
        return trial

    with one_thread_each():
        scheme, reason = smallest_within(secure.accuracy_loss, attempt)
    observer.noted(reason)
    return replace(config, secure_aggregation=replace(secure, compression=scheme, accuracy_loss=0.0))


def smallest_within(limit: float, attempt: Callable[[str], Trial]) -> tuple[str, str]:
    """Return the smallest scheme of the ladder that loses at most `limit` points of each part, and why.

    Args:
        limit: Points of accuracy, above 0.
        attempt: Runs a scheme.
    """
    reference, *others = LADDER
    whole = attempt(reference)
    refused = ""
    for scheme in reversed(others):
        loss = attempt(scheme).loss(whole)
        told = " and ".join(f"{loss[part]:.2f} points of the {part}" for part in PARTS)
        if max(loss.values()) <= limit:
            return scheme, f"compression auto: {scheme} loses {told} (at most {limit:g} asked){refused}"
        refused = f"; {scheme} would lose {told}"
    return reference, f"compression auto: none, since every other scheme loses more than {limit:g} points{refused}"


def _try(config: RunConfig, bundle: FeatureBundle, device: str, scheme: str, workers: int) -> Trial:
    secure = replace(config.secure_aggregation, compression=scheme, enabled=False, accuracy_loss=0.0)
    federation = replace(config.federation, select="last")
    config = replace(config, secure_aggregation=secure, federation=federation)
    identities = {site.site: IdentityKey.generate(system_entropy) for site in bundle.sites}
    hospitals = Hospitals(bundle, config.training, federation.method, federation.seed, device, workers=workers)
    terms = SumTerms(config, Roster.of(identities), bundle.embed_dim, len(bundle.classes))
    sites = SimulatedSites(identities, terms, hospitals, workers)
    aggregator = Aggregator(terms, sites, sites, verifier=sites.verifier)
    run = Federation(hospitals, aggregator, terms.initial_vector, federation.select)
    kept = run.run(federation.rounds, lambda _: None)
    hospitals.load_private_states(kept.private)
    right: dict[str, list[float]] = {part: [] for part in PARTS}
    for site in bundle.sites:
        scores = hospitals.predict(site.site, kept.vector, "val")
        for part in PARTS:
            right[part].append(float((scores[part].argmax(axis=1) == site.val.labels).mean()))
    return Trial(scheme, {part: 100 * sum(values) / len(values) for part, values in right.items()})
