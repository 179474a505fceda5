"""All attacks on one finished run, and their entry into its record."""

import math
from collections.abc import Sequence
from pathlib import Path

from audit.accounting import (
    DiscreteGaussian,
    Gaussian,
    GroupedSampledGaussian,
    Mechanism,
    Repeated,
    SampledGaussian,
    Skellam,
    against_broken_aggregation,
    mechanism_of,
)
from audit.history import RunHistory, read_history
from audit.log import read_events
from audit.report import write_report
from clients.encoders import FeatureBundle
from clients.method.layout import initial_vector
from securefed.attacks.findings import Finding, coarse, record_findings
from securefed.attacks.inversion import invert_gradients
from securefed.attacks.members import infer_members
from securefed.attacks.protocol import attack_protocol
from securefed.config import RunConfig, load_config
from securefed.errors import ConfigError, RunFolderError
from securefed.evidence import utc_now
from securefed.model_file import load_model
from securefed.observer import Observer
from securefed.preparation import encode_sites, load_sites
from securefed.run_folder import RunFolder
from securefed.sum_terms import Vector

ATTACKS = ("epsilon", "members", "inversion", "protocol")
"""What can be tried: one-run auditing of epsilon, membership inference, gradient inversion, the catalogue."""


def attack_run(
    path: Path,
    *,
    attacks: Sequence[str] = ATTACKS,
    canaries: int = 5000,
    site: str | None = None,
    cache_dir: Path | None = None,
    observer: Observer | None = None,
) -> list[Finding]:
    """Attack a finished run, record what was found in its log and write its report again.

    Args:
        path: The run folder; it must hold the keys of its parties, as that of a simulation does, for the new head of
            the log to be signed.
        attacks: Some of ATTACKS.
        canaries: Canaries of one-run auditing.
        site: The hospital whose training is audited; None for the first.
        cache_dir: Folder of the feature cache.
        observer: Who watches.

    Raises:
        RunFolderError: There is no finished run.
        EvidenceError: Its log does not verify.
        ConfigError: The data are not those of the run, or an argument is unknown.
    """
    unknown = [name for name in attacks if name not in ATTACKS]
    if unknown:
        raise ConfigError("--only", f"{unknown[0]!r} is unknown; use {', '.join(ATTACKS)}")
    folder = RunFolder.open(path)
    config = load_config(folder.config)
    history = read_history(read_events(folder.log))
    if history.completed is None:
        raise RunFolderError(path, "did not reach its end; finish it with simulate --resume before attacking it")
    findings: list[Finding] = []
    if set(attacks) & {"epsilon", "members", "inversion"}:
        bundle = _bundle(config, cache_dir, observer or Observer())
        described = history.last("data_described")
        if described is not None and described.fields["fingerprint"] != folder.name_of_data(
            bundle.data_fingerprint, keyed=bool(described.fields.get("keyed"))
        ):
            raise ConfigError("RUN", "the data are not those of the run any more; restore them")
        encoder = history.last("encoder_described")
        if encoder is not None and "features" in encoder.fields:
            named = folder.name_of_data(bundle.features_digest, keyed=config.privacy.enabled)
            if encoder.fields["features"] != named:
                raise ConfigError("RUN", "the file of features is not that of the run any more; restore it")
        findings += _on_data(config, bundle, folder, attacks, canaries, site)
    if "protocol" in attacks:
        findings += attack_protocol()
    record_findings(folder, findings, utc_now)
    signing = folder.path / "server.key"
    if signing.exists():
        write_report(folder.path, key=signing)
    else:  # the report of the run stays as its server signed it
        write_report(folder.path, output=folder.path / "attacked")
    return findings


def _on_data(
    config: RunConfig,
    bundle: FeatureBundle,
    folder: RunFolder,
    attacks: Sequence[str],
    canaries: int,
    site: str | None,
) -> list[Finding]:
    history = read_history(read_events(folder.log))
    names = [found.site for found in bundle.sites]
    chosen = names[0] if site is None else site
    if chosen not in names:
        raise ConfigError("--site", f"{chosen} did not train; use one of {', '.join(names)}")
    vector = load_model(folder).vector
    method, seed = config.federation.method, config.federation.seed
    findings: list[Finding] = []
    if "epsilon" in attacks:
        initial = initial_vector(bundle.embed_dim, config.training, seed, method, len(bundle.classes))
        findings += _audit(config, bundle, history, initial, chosen, canaries)
    exact: list[Finding] = []
    if "members" in attacks:
        exact += infer_members(config, bundle, vector)
    if "inversion" in attacks:
        of_update, of_sum = recorded_noise(history)
        exact += invert_gradients(config, bundle, vector, noise_multiplier=of_update, of_the_sum=of_sum)
    return findings + (list(map(coarse, exact)) if config.privacy.enabled else exact)


def _audit(
    config: RunConfig, bundle: FeatureBundle, history: RunHistory, initial: Vector, site: str, canaries: int
) -> list[Finding]:
    if history.claim is None or history.claim.fields["claim"] != "CLAIMED":
        told = "Not tried: no differential privacy is claimed, there is no epsilon to refute."
        return [Finding("one-run audit", "not tried", "MEASURED", {}, told)]
    from securefed.attacks.privacy import audit_privacy  # brings what trains with noise

    return audit_privacy(config, bundle, history, initial, site=site, canaries=canaries)


def recorded_noise(history: RunHistory) -> tuple[float | None, float | None]:
    """Return the noise of the last release over its clip norm: in a single update, and in a sum over shares of it.

    None where there is no such noise. Of a share counts what is left to one who can open single updates; of groups that
    are clipped apart the first one, the FAM.
    """
    event = history.last("privacy_event")
    if event is None:
        return None, None
    mechanism = mechanism_of(event.fields["mechanism"])
    match mechanism:
        case Gaussian() | SampledGaussian():
            return mechanism.noise_multiplier, None
        case GroupedSampledGaussian():
            return mechanism.noise_multipliers[0], None
        case Skellam() | DiscreteGaussian():
            (single,) = against_broken_aggregation([Repeated(mechanism)])
            return _over_norm(single.mechanism), _over_norm(mechanism)
        case _:
            return None, None


def _over_norm(mechanism: Mechanism) -> float:
    """The standard deviation of noise in shares over the L2 norm of one contribution, both in grid steps."""
    if isinstance(mechanism, Skellam):
        return math.sqrt(mechanism.shares * mechanism.share_variance) / mechanism.l2
    assert isinstance(mechanism, DiscreteGaussian)  # noqa: S101 (the two kinds of noise in shares)
    return math.sqrt(mechanism.shares) * mechanism.share_sigma / mechanism.l2


def _bundle(config: RunConfig, cache_dir: Path | None, observer: Observer) -> FeatureBundle:
    dataset, _ = load_sites(config.data, config.federation.seed)
    return encode_sites(config, dataset, "cpu", cache_dir, observer)
