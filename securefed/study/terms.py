"""The terms of a study's sums, as every party derives them from its file."""

from protocols.noise import NoisePlan
from securefed.privacy.bearing import require_noise
from securefed.study.form import Study
from securefed.sum_terms import SumTerms


def terms_of(study: Study) -> SumTerms:
    """Return the terms of a study's sums, bound to its digest."""
    return SumTerms(
        study.config, study.protocol_roster, study.embed_dim, len(study.classes), bytes.fromhex(study.digest)
    )


def noise_of(study: Study) -> NoisePlan | None:
    """Return the noise that the study's hospitals add in shares; None where they add none.

    Raises:
        ConfigError: No noise meets the study's target, in whatever mode.
    """
    require_noise(study.config)
    return terms_of(study).noise
