"""The trainer: algorithms, schedule, checkpoints. Knows nothing of environments."""

from ablate.learn import objective

__all__ = ["objective"]
