"""Formats of files of trajectories, one file each."""
