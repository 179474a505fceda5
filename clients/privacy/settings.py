"""What a hospital needs to know to train privately: public constants, the same at all hospitals."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PrivacySettings:
    """The private step.

    Attributes:
        unit: Whose influence on a step is bounded: `image` or `patient`.
        coupling: `joint` (FAM and MLP are clipped and noised) or `one-way` (the FAM alone; it learns nothing from the
            MLP, which trains without noise and stays).
        clip_norms: One norm for all trained parameters together, or two: of the FAM and of the MLP.
        noise_multipliers: For each clip norm the standard deviation of the noise over it; 0 where others add the noise.
        sampling_rate: Probability with which each unit enters a step.
        steps: Steps a round.
        normaliser: Public number by which the noisy sum is divided.
        centring_steps: How many steps, the first ones of the first rounds, measure a hospital's mean feature instead of
            training (`clients.privacy.centring`).

    Raises:
        ValueError: Something is out of range, or norms and multipliers are not of one length.
    """

    unit: str = "image"
    coupling: str = "joint"
    clip_norms: tuple[float, ...] = (1.0,)
    noise_multipliers: tuple[float, ...] = (1.0,)
    sampling_rate: float = 0.5
    steps: int = 1
    normaliser: float = 64.0
    centring_steps: int = 0

    def measuring_steps(self, round_number: int) -> int:
        """Return how many steps of a round, counted from 1, measure: its first ones, and the same at every hospital."""
        return min(self.steps, max(0, self.centring_steps - (round_number - 1) * self.steps))

    def __post_init__(self) -> None:
        if self.unit not in ("image", "patient") or self.coupling not in ("joint", "one-way"):
            raise ValueError(f"unit {self.unit!r} with coupling {self.coupling!r} is not known at a hospital")
        if len(self.clip_norms) not in (1, 2) or len(self.clip_norms) != len(self.noise_multipliers):
            raise ValueError("one clip norm, or two (FAM, MLP), and as many noise multipliers are needed")
        if self.coupling == "one-way" and len(self.clip_norms) != 1:
            raise ValueError("one-way trains the FAM alone in private: one clip norm")
        if min(self.clip_norms) <= 0 or min(self.noise_multipliers) < 0 or self.normaliser <= 0 or self.steps < 1:
            raise ValueError("clip norms and normaliser must be positive, noise not negative, steps at least 1")
        if self.centring_steps < 0:
            raise ValueError(f"the number of centring steps must be at least 0, is {self.centring_steps}")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"the sampling rate must be in (0, 1], is {self.sampling_rate}")
