"""Comparators, mixers and algorithms, through the interface that a user's own would use."""

from baselines import bag, conv, convformer, cql, ensemble, gru, iql, lstm, mlp, ssm, td3_bc

__all__ = [
    "bag",
    "conv",
    "convformer",
    "cql",
    "ensemble",
    "gru",
    "iql",
    "lstm",
    "mlp",
    "ssm",
    "td3_bc",
]
