"""Measurements of speed beside a stated yardstick. No test depends on their outcome."""
