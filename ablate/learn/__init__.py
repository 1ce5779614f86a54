"""Training: the loop, what one update does (`objective`), and checkpoints.

Our own algorithms are imported here so that they are registered.
"""

from ablate.learn import joint, objective

__all__ = ["joint", "objective"]
