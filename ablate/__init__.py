"""ablate: controlled ablations of sequence modelling in offline reinforcement learning."""

__version__ = "0.1.0"
