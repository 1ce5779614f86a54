"""Vectorised environments: one file each, all behind the interface of `ablate.envs.base`."""
