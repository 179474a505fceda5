"""Differential privacy at a hospital: what one image or patient can do to a step is bounded, then covered by noise.

docs/privacy.md states the rules; `securefed/privacy` holds a configuration against them before anything is trained.
"""

from clients.privacy.clipping import ClippedSum, clipped_sum, unit_by_unit_sum
from clients.privacy.hospital import PrivateHospital
from clients.privacy.randomness import Randomness
from clients.privacy.settings import PrivacySettings

__all__ = ["ClippedSum", "PrivacySettings", "PrivateHospital", "Randomness", "clipped_sum", "unit_by_unit_sum"]
