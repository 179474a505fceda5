"""Privacy accounting: facts about noise in, epsilon with bracket and cross-checks out.

`dp-accounting` is imported when a privacy loss distribution is computed, not before: a run without differential privacy
is verified without it.
"""

from audit.accounting.calibrate import (
    CalibrationError,
    DeltaTooLargeError,
    affordable_steps,
    bound_against,
    calibrate_noise,
    calibrate_sampled_gaussian,
    upper_accountant,
    upper_epsilon,
)
from audit.accounting.epsilon import DISAGREEMENT, Epsilon, account
from audit.accounting.fields import mechanism_fields, mechanism_of
from audit.accounting.mechanisms import (
    Adjacency,
    Composition,
    DiscreteGaussian,
    Gaussian,
    GroupedSampledGaussian,
    Mechanism,
    Repeated,
    SampledGaussian,
    Skellam,
    Unknown,
)
from audit.accounting.rdp import rdp_epsilon
from audit.accounting.views import against_broken_aggregation, against_colluders

__all__ = [
    "DISAGREEMENT",
    "Adjacency",
    "CalibrationError",
    "Composition",
    "DeltaTooLargeError",
    "DiscreteGaussian",
    "Epsilon",
    "Gaussian",
    "GroupedSampledGaussian",
    "Mechanism",
    "Repeated",
    "SampledGaussian",
    "Skellam",
    "Unknown",
    "account",
    "affordable_steps",
    "against_broken_aggregation",
    "against_colluders",
    "bound_against",
    "calibrate_noise",
    "calibrate_sampled_gaussian",
    "mechanism_fields",
    "mechanism_of",
    "rdp_epsilon",
    "upper_accountant",
    "upper_epsilon",
]
