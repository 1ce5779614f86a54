"""Comparators: what attention is compared with, through the interface a user's own would use."""

from baselines import bag, conv, gru, lstm, mlp

__all__ = ["bag", "conv", "gru", "lstm", "mlp"]
