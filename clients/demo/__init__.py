"""The embedded default: a cohort drawn by a program and a small CLIP trained on drawings (docs/demo.md)."""

from clients.demo.cohort import plan_cohort
from clients.demo.encoder import encoder_dir
from clients.demo.source import DemoImages, load_demo_dataset, write_cohort

__all__ = ["DemoImages", "encoder_dir", "load_demo_dataset", "plan_cohort", "write_cohort"]
