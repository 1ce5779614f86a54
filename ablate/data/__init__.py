"""Data sets: trajectories, files, generators, windows. Importing registers the families."""

from ablate.data import families  # noqa: F401
