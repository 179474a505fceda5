"""What attacks show about a privacy claim: lower bounds on epsilon with confidence, and rates of membership attacks."""

from audit.empirical.membership import Membership, membership
from audit.empirical.one_run import MIN_CANARIES, OneRunAudit, audit_scores
from audit.empirical.tradeoff import GaussianCurve, ProfileCurve, TradeOff, curve_of

__all__ = [
    "MIN_CANARIES",
    "GaussianCurve",
    "Membership",
    "OneRunAudit",
    "ProfileCurve",
    "TradeOff",
    "audit_scores",
    "curve_of",
    "membership",
]
