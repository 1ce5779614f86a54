"""Launchers: who runs which cohort where. They don't know what a cohort computes.

A launcher is registered under the kind `launcher`; importing this package registers `local`.
"""

from ablate.launch import local as local
