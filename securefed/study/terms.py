"""The terms of a study's sums, as every party derives them from its file."""

from securefed.study.form import Study
from securefed.sum_terms import SumTerms


def terms_of(study: Study) -> SumTerms:
    """Return the terms of a study's sums, bound to its digest."""
    return SumTerms(
        study.config, study.protocol_roster, study.embed_dim, len(study.classes), bytes.fromhex(study.digest)
    )
