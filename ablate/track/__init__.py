"""Tracking: a Sacred run per trial attempt, the store's reader, the tidy table, the study folder.

Knows nothing of what is measured: a trial is an id, a configuration and a flat dict of numbers.
"""
