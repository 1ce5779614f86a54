"""Data sets: trajectories, files, generators, windows. Importing registers the families."""

from ablate.data import d4rl, lq, pointmaze, tmaze  # noqa: F401
