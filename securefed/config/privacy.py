"""The `[privacy]` section: what is promised about one image, patient or hospital, and how it is kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from securefed.errors import ConfigError

MODES = ("off", "local", "distributed", "hospital")
UNITS = ("image", "patient", "hospital")
ADJACENCIES = ("add-or-remove-one", "replace-one")
COUPLINGS = ("joint", "one-way")
NOISE_SOURCES = ("system", "seeded")
MECHANISMS = ("skellam", "discrete-gaussian")
DROPOUT_NOISE = ("auto", "xnoise", "conservative")
CHARGES = ("sum", "share")

MAX_EPSILON = 100.0
"""Of a target: far above what is claimed (docs/privacy.md); accountants take ever longer to find the noise for more."""
NOISE_MULTIPLIERS = (1e-6, 1e6)
"""Beyond them epsilon is infinite or zero whatever is done, and accountants leave the range of their numbers."""
MIN_SAMPLING_RATE = 1e-6
"""Below it accountants leave the range of their numbers."""
CLIP_NORMS = (1e-6, 1e6)
"""Beyond them nothing is left of a gradient in float32, or nothing is clipped."""
NORMALISERS = (1e-3, 1e9)
"""Units of privacy: from far below one to more than there are people's images."""
MAX_STEPS = 1000
"""A round. Noise for 10**6 steps over all rounds, at a rate below 1, is found in half a minute; for 10**7 a plan, which
tries other rates as well, had no answer after 200 s."""
DELTAS = (1e-10, 1e-2)
"""Below the first the tail of floating-point noise (clients/privacy/randomness.py) counts for as much; at the second a
release of one record in a hundred as it is would be within the promise."""


_OF_SHARES = ("max_colluders", "mechanism", "dropout_noise", "ring_bits", "spare_rounds")
"""Settings of noise in shares."""

_OF_STEPS = ("coupling", "sampling_rate", "normaliser")
"""Settings of private steps."""

_IN_ANY_MODE = (
    *("epsilon", "noise_multiplier", "delta", "unit", "adjacency", "coupling", "clip_norm", "fam_clip_norm"),
    *("mlp_clip_norm", "fam_noise_share", "sampling_rate", "steps", "normaliser", "centring_steps", "ledger"),
    *_OF_SHARES,
)
"""Settings of privacy, whatever its mode; without it a party may still have its `noise` and `charge`."""


def _check(condition: bool, key: str, reason: str) -> None:
    if not condition:
        raise ConfigError(f"privacy.{key}", reason)


@dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of what is trained on.

    Attributes:
        mode: `off`; `local` (every hospital adds the whole noise in each of its steps); `distributed` (one step a
            round, the noise is added in shares inside the secure sum); `hospital` (the whole update is clipped, the
            noise is added in shares).
        epsilon: The limit that no release may exceed; without `noise_multiplier` the noise is calibrated to it. 0 for
            none.
        noise_multiplier: Standard deviation of the noise over the clip norm; of the sum over the hospitals in the modes
            that add shares. 0 calibrates it to `epsilon`.
        delta: Probability with which the guarantee may fail; 1e-10 or more, and less than 0.01. It should be well below
            one over the units of the largest hospital.
        unit: Whose presence is hidden: `image`, `patient` or `hospital`.
        adjacency: `add-or-remove-one` or `replace-one`.
        coupling: `joint` (FAM and MLP are private together) or `one-way` (the FAM is private and learns nothing from
            the MLP; the MLP is not private and stays).
        clip_norm: L2 norm, 1e-6 to 1e6 like the next two, to which the contribution of one unit of privacy to one step
            is clipped.
        fam_clip_norm: With `mlp_clip_norm`: norm of its own for the part of the FAM; 0 clips both together.
        mlp_clip_norm: Likewise for the part of the MLP.
        fam_noise_share: With norms of their own: share, in (0, 1), of the squared signal-to-noise ratio that the FAM
            gets; the MLP gets the rest. Each part's noise multiplier is `noise_multiplier` / sqrt(its share).
        sampling_rate: Probability with which each unit enters a step (Poisson sampling); public, the same everywhere.
            At 1 every unit is in every step.
        steps: Steps a round and hospital in the mode `local`.
        normaliser: Public number by which the noisy sum of a step is divided, in units of privacy, 0.001 to 1e9; in the
            mode `distributed` for each hospital, and the norm, in clip norms, that one hospital's sum may have
            undamaged.
        centring_steps: In the mode `local`: how many steps, the first ones of the first rounds, measure each hospital's
            mean feature, with the noise of a step, so that those that follow spend no clip norm on what all images have
            in common.
        max_colluders: Hospitals that may pool what they know of their own noise, in the modes that add shares.
        noise: Where samples and noise come from: `system` (the operating system's entropy) or `seeded` (reproducible
            from the seed of the run: nothing is claimed).
        mechanism: Distribution of the noise in the modes that add shares: `skellam`, or `discrete-gaussian` to compare.
        dropout_noise: What happens to shares when hospitals are lost: `xnoise` (exact: excess is removed inside the
            protocol), `conservative` (shares for the fewest survivors; more noise otherwise), or `auto`: xnoise under
            secure aggregation of up to 100 hospitals with Skellam noise of the system, else conservative.
        ring_bits: Width of the ring in these modes, 16 to 32; 0 takes the least in which rounding costs below 0.2 %.
        ledger: File of the budget ledger that every release is charged to; "" for none. It must be there, and a run
            keeps its absolute path.
        charge: What a ledger is charged for a vector in the modes that add shares: the costliest `sum` that can follow,
            against whoever sees sums only; or the `share` alone, against whoever opens single vectors.
        spare_rounds: In the modes that add shares: rounds beyond those of training that the noise is calibrated to,
            since a round that is done again after an interruption is paid for again.
    """

    mode: str = "off"
    epsilon: float = 0.0
    noise_multiplier: float = 0.0
    delta: float = 1e-5
    unit: str = "image"
    adjacency: str = "add-or-remove-one"
    coupling: str = "joint"
    clip_norm: float = 1.0
    fam_clip_norm: float = 0.0
    mlp_clip_norm: float = 0.0
    fam_noise_share: float = 0.5
    sampling_rate: float = 1.0
    steps: int = 1
    normaliser: float = 64.0
    centring_steps: int = 0
    max_colluders: int = 0
    noise: str = "system"
    mechanism: str = "skellam"
    dropout_noise: str = "auto"
    ring_bits: int = 0
    ledger: str = ""
    charge: str = "sum"
    spare_rounds: int = 0

    def __post_init__(self) -> None:
        for key, names in (
            ("mode", MODES),
            ("unit", UNITS),
            ("adjacency", ADJACENCIES),
            ("coupling", COUPLINGS),
            ("noise", NOISE_SOURCES),
            ("mechanism", MECHANISMS),
            ("dropout_noise", DROPOUT_NOISE),
            ("charge", CHARGES),
        ):
            _check(getattr(self, key) in names, key, f"{getattr(self, key)!r} is unknown; use {', '.join(names)}")
        for key in ("epsilon", "noise_multiplier"):
            value = getattr(self, key)
            _check(value >= 0 and math.isfinite(value), key, f"{value}: use a positive number, or 0 for none")
        self._check_range()
        _check(0 < self.fam_noise_share < 1, "fam_noise_share", f"{self.fam_noise_share}: use a share within (0, 1)")
        _check(self.centring_steps >= 0, "centring_steps", f"{self.centring_steps}: use 0 or more")
        _check(self.ring_bits == 0 or 16 <= self.ring_bits <= 32, "ring_bits", f"{self.ring_bits}: use 16 to 32, or 0")
        _check(self.spare_rounds >= 0, "spare_rounds", f"{self.spare_rounds}: use 0 or more")
        _check(self.max_colluders >= 0, "max_colluders", f"{self.max_colluders}: use 0 or more")
        _check(
            (self.fam_clip_norm > 0) == (self.mlp_clip_norm > 0),
            "fam_clip_norm" if self.fam_clip_norm == 0 else "mlp_clip_norm",
            "fam_clip_norm and mlp_clip_norm go together: give both, or neither to clip FAM and MLP together",
        )
        _check(
            not self.clips_by_group or self.clip_norm == PrivacyConfig.clip_norm,
            "clip_norm",
            "has no meaning beside fam_clip_norm and mlp_clip_norm, which clip each part; give it, or those two",
        )
        if self.mode == "off":
            self._refuse_given(_IN_ANY_MODE, "has no meaning without privacy; add --dp local, or take it out")
            return
        if self.mode == "local":
            reason = "has no meaning with --dp local, where each hospital adds the whole noise; take it out, or use "
            self._refuse_given(_OF_SHARES, f"{reason}--dp distributed or hospital")
        if self.mode == "hospital":
            reason = (
                "has no meaning with --dp hospital, where whole updates are clipped; take it out, or use --dp local"
            )
            self._refuse_given(_OF_STEPS, f"{reason} or distributed")
        _check(
            self.clips_by_group or self.fam_noise_share == PrivacyConfig.fam_noise_share,
            "fam_noise_share",
            "has no meaning without fam_clip_norm and mlp_clip_norm; give these, or take it out",
        )
        _check(
            self.epsilon > 0 or self.noise_multiplier > 0,
            "epsilon",
            f"--dp {self.mode} needs --epsilon (the noise is calibrated to it) or --noise-multiplier",
        )
        _check(
            (self.mode == "hospital") == (self.unit == "hospital"),
            "unit",
            f"--dp {self.mode} cannot protect a whole {self.unit} as its unit; use "
            + ("hospital" if self.mode == "hospital" else "image or patient"),
        )

        _check(
            not self.clips_by_group or (self.mode == "local" and self.coupling == "joint"),
            "fam_clip_norm",
            "has no meaning where the FAM alone is private; use privacy.clip_norm",
        )
        _check(
            not self.centring_steps or self.mode == "local",
            "centring_steps",
            f"--dp {self.mode} has no measuring steps; use 0, or --dp local",
        )
        _check(
            not (self.ledger and self.noise == "seeded"),
            "ledger",
            "noise that follows from a seed protects nobody, so that nothing of it can be charged; run without --seed",
        )

    def _refuse_given(self, keys: Sequence[str], reason: str) -> None:
        """Refuse a setting that nothing would read: who gave it believes that it protects."""
        for item in fields(self):
            _check(item.name not in keys or getattr(self, item.name) == item.default, item.name, reason)

    def _check_range(self) -> None:
        """Refuse numbers with which nothing can be promised, or nothing accounted."""
        _check(self.epsilon <= MAX_EPSILON, "epsilon", f"{self.epsilon:g}: use {MAX_EPSILON:g} at most, or 0 for none")
        least, most = NOISE_MULTIPLIERS
        usable = self.noise_multiplier == 0 or least <= self.noise_multiplier <= most
        reason = f"{self.noise_multiplier:g}: use {least:g} to {most:g}, or 0 to calibrate it to epsilon"
        _check(usable, "noise_multiplier", reason)
        low, high = DELTAS
        why = "more lets a promise fail for one person in a hundred, less floating-point noise cannot keep"
        _check(low <= self.delta < high, "delta", f"{self.delta:g}: use {low:g} or more and less than {high:g}; {why}")
        rate = f"{self.sampling_rate:g}: use a rate from {MIN_SAMPLING_RATE:g} to 1"
        _check(MIN_SAMPLING_RATE <= self.sampling_rate <= 1, "sampling_rate", rate)
        for key, (low, high) in (
            *((key, CLIP_NORMS) for key in ("clip_norm", "fam_clip_norm", "mlp_clip_norm")),
            ("normaliser", NORMALISERS),
        ):
            value, default = getattr(self, key), getattr(PrivacyConfig, key)
            _check(low <= value <= high or value == default, key, f"{value:g}: use {low:g} to {high:g}")
        _check(1 <= self.steps <= MAX_STEPS, "steps", f"{self.steps}: use 1 to {MAX_STEPS}")

    @property
    def measuring_rounds(self) -> int:
        """In how many rounds, the first ones, hospitals measure and do not train: their updates are zeros."""
        return self.centring_steps // self.steps if self.mode == "local" else 0

    @property
    def enabled(self) -> bool:
        """Whether anything is protected."""
        return self.mode != "off"

    @property
    def clips_by_group(self) -> bool:
        """Whether FAM and MLP have clip norms of their own."""
        return self.fam_clip_norm > 0
