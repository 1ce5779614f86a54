"""How long a study should take on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablate import registry
from ablate.config import timesteps

REFERENCE_PARAMETERS = 16_000
# Seconds of one thread for a timestep seen in training, forward and backward, at the reference
# size. Rough: for when nothing has been measured on this machine.
SECONDS_PER_TIMESTEP = {
    "mlp": 2e-7,
    "bag": 1e-6,
    "conv": 2e-6,
    "gru": 4e-6,
    "lstm": 4e-6,
    "attention": 4e-6,
}
SECONDS_PER_UPDATE = 1.5e-3  # what an update costs whatever its size
SECONDS_PER_EPISODE = 0.012  # of evaluation, at context 20


def fit_seconds(config: Mapping[str, Any], pace: float | None = None) -> float:
    """Estimated seconds of training one fit on one worker.

    pace: measured seconds of an update of one seed; None where nothing was measured.
    """
    train = config["train"]
    if pace is None:
        known = SECONDS_PER_TIMESTEP
        rate = known.get(config["mixer"], sum(known.values()) / len(known))
        rate *= config["model"]["parameters"] / REFERENCE_PARAMETERS
        pace = train["targets_per_update"] * timesteps(config) * rate + SECONDS_PER_UPDATE
    return float(train["updates"] * pace)


def measure_seconds(config: Mapping[str, Any], name: str, options: Mapping[str, Any]) -> float:
    """Estimated seconds of one measurement of one fit at one budget.

    As the measurement says, or by the episodes and samples that its options ask for: an episode encodes its window
    anew at each step, on top of what stepping costs at any context, and a search takes a step for each sequence that
    it keeps.
    """

    def tokens() -> int:
        from ablate.study.expand import tokens_per_timestep  # late: `status` needs no models

        return tokens_per_timestep(config)

    said = registry.get("measurement", name).seconds(config, options, tokens)
    if said is not None:
        return float(said)
    episode = SECONDS_PER_EPISODE * (0.2 + timesteps(config) / 20)
    searched = options.get("horizon", 1) * options.get("beam", 1) / 8
    return float(options.get("episodes", 1) * episode * max(1.0, searched))


def trial_seconds(config: Mapping[str, Any], pace: float | None = None) -> float:
    """Estimated seconds of one fit with all that is measured of it."""
    measured = config["measure"].items()
    return fit_seconds(config, pace) + sum(measure_seconds(config, n, o) for n, o in measured)


def wall_seconds(jobs: Sequence[float], workers: int) -> float:
    """Seconds that jobs of these lengths take together; the longest is waited for."""
    return max(sum(jobs) / max(workers, 1), max(jobs, default=0.0))


def spell(seconds: float) -> str:
    """A duration in words of the right size."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
