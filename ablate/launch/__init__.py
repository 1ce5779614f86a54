"""Launchers: who runs which cohort where. They don't know what a cohort computes.

A launcher is registered under the kind `launcher`; importing this package registers ours. Those for clusters import
what they need when they are used.
"""

from ablate.launch import local as local
from ablate.launch import ray as ray
from ablate.launch import slurm as slurm
