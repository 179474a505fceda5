"""What a study promises about private data, in words and figures that are computed from the study alone."""

from audit.accounting import Adjacency, Composition, Repeated, upper_epsilon
from audit.bounds import at_most
from protocols.noise import NoisePlan
from securefed.config import RunConfig
from securefed.privacy.bearing import too_few_rounds
from securefed.privacy.claim import reason, unprotected, verdict
from securefed.privacy.mechanism import local_cost
from securefed.privacy.shared_charges import single_share
from securefed.privacy.shared_claim import shared_reason, shared_verdict
from securefed.privacy.shared_noise import dearest_sum, quietest_sum, rate_of
from securefed.study.form import Study
from securefed.sum_terms import SumTerms
from securefed.summary import privacy_off


def privacy_in_words(study: Study) -> list[str]:
    """Return what is promised about private data, one sentence a line."""
    config, privacy = study.config, study.config.privacy
    if not privacy.enabled:
        return [f"Privacy: {privacy_off(config)['claim']}."]
    what = f"{privacy.mode}, {privacy.unit} level, {privacy.adjacency}, delta {privacy.delta:g}"
    terms = SumTerms(config, study.protocol_roster, study.embed_dim, len(study.classes), bytes.fromhex(study.digest))
    if terms.noise is None:
        lines = [f"Privacy: {what}. {verdict(config)}: {reason(config)}.", _local(config)]
    else:
        lines = [f"Privacy: {what}. {shared_verdict(config, terms.noise)}: {shared_reason(config, terms.noise)}."]
        lines += _shared(config, terms.noise)
    if short := too_few_rounds(config, terms.noise):
        lines.append(f"HOSPITALS REFUSE THIS STUDY: {short}.")
    lines.append(
        "Every hospital charges its own ledger before it sends anything, and refuses what its budget does not bear."
    )
    return [*lines, f"Not protected: {'; '.join(unprotected(config, deployed=True))}."]


def _local(config: RunConfig) -> str:
    privacy, rounds = config.privacy, config.federation.rounds
    cost = local_cost(privacy, rounds)
    epsilon = upper_epsilon(cost.of_rounds(rounds), privacy.delta, Adjacency(privacy.adjacency))
    return f"All {rounds} rounds cost a hospital epsilon {at_most(epsilon)}, against everybody{_target(config)}."


def _shared(config: RunConfig, plan: NoisePlan) -> list[str]:
    privacy, rounds, request = config.privacy, config.federation.rounds, plan.request
    delta, adjacency, rate = privacy.delta, Adjacency(privacy.adjacency), rate_of(privacy)

    def cost(a_round: Composition) -> str:
        whole = [Repeated(part.mechanism, rounds) for part in a_round]
        return at_most(upper_epsilon(whole, delta, adjacency))

    quietest = [Repeated(quietest_sum(plan, rate))]
    known = f"{request.noise_multiplier:.4g} clip norms of noise on a sum, added in shares ({request.dropout.value})"
    costs = f"all {rounds} rounds cost a hospital epsilon {cost(quietest)} against whoever sees only sums"
    lines = [f"{known}; {costs}{_target(config)}."]
    if request.colluders:
        seen = cost(dearest_sum(plan, rate))
        lines.append(f"With {request.colluders} hospitals that know their own noise it is {seen}.")
    broken = cost([Repeated(single_share(plan, rate))])
    opens = "one who opens single vectors, which secure aggregation prevents"
    lines.append(f"Against {opens}, it is {broken}, and more with every round that is begun again.")
    return lines


def _target(config: RunConfig) -> str:
    return f"; the study stops before it exceeds {config.privacy.epsilon:g}" if config.privacy.epsilon else ""
