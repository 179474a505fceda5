"""How a privacy mechanism is written down in a log or ledger: facts about the noise, never an epsilon."""

from audit.rules import PROSE, Choice, Integer, ListOf, Real, Record, Rule, Tagged

UNIT = Choice(("image", "patient", "hospital"))
"""Whose presence the guarantee hides."""

VIEW = Choice(("everybody", "aggregate-only", "aggregation-broken"))
"""Against whom: whoever sees anything that leaves a hospital, who sees only sums, or who opens single updates."""

DELTA = Real(0, 1, above=True, below=True)
"""The probability with which a guarantee may fail."""

ADJACENCY = Choice(("add-or-remove-one", "replace-one"))
"""Which data sets count as neighbours."""

BUDGET_DELTA = Real(1e-10, 1e-2, below=True)
"""Of a new budget, as of a run (securefed/config/privacy.py): with more, one record in a hundred may be given away."""

_POSITIVE = Real(0, above=True)
_RATE = Real(0, 1, above=True)
_GRID: dict[str, Rule] = {"l1": _POSITIVE, "l2": _POSITIVE, "shares": Integer(1), "sampling_rate": _RATE}

_SIMPLE: dict[str, Record] = {
    "gaussian": Record({"noise_multiplier": _POSITIVE}),
    "sampled-gaussian": Record({"noise_multiplier": _POSITIVE, "sampling_rate": _RATE}),
    "grouped-sampled-gaussian": Record({"noise_multipliers": ListOf(_POSITIVE, filled=True), "sampling_rate": _RATE}),
    "skellam": Record({**_GRID, "share_variance": _POSITIVE}, {"least_share_variance": _POSITIVE}),
    "discrete-gaussian": Record({**_GRID, "share_sigma": _POSITIVE, "dimension": Integer(1)}),
    "unknown": Record({"reason": PROSE}),
}

MECHANISM: Rule = Tagged("type", _SIMPLE)
"""One mechanism: noise multipliers are noise standard deviation over clip norm; grid quantities are integer steps."""
