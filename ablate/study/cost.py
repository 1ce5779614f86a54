"""How long a study should take on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ablate.study.expand import Trial

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


@dataclass(frozen=True)
class Calibration:
    """What training costs.

    seconds_per_timestep: by mixer, at REFERENCE_PARAMETERS parameters; the mean of those listed is
        used for a mixer that is not.
    seconds_per_update: what an update costs whatever its size. seconds_per_episode: of evaluation.
    """

    seconds_per_timestep: Mapping[str, float] = field(default_factory=SECONDS_PER_TIMESTEP.copy)
    seconds_per_update: float = 1.5e-3
    seconds_per_episode: float = 0.02


@dataclass(frozen=True)
class Cost:
    """An estimate. work: seconds of one worker for everything; wall: seconds with `workers`;
    by_mixer: shares of work."""

    work: float
    wall: float
    workers: int
    by_mixer: dict[str, float]


def seconds(trial: Trial, calibration: Calibration) -> float:
    """Estimated seconds of one trial on one worker: updates x targets x context x cost of a
    timestep."""
    config = trial.config
    known = calibration.seconds_per_timestep
    rate = known.get(config["mixer"], sum(known.values()) / len(known))
    rate *= config["model"]["parameters"] / REFERENCE_PARAMETERS
    train = config["train"]
    update = train["targets_per_update"] * config["context"] * rate + calibration.seconds_per_update
    return (
        train["updates"] * update + config["evaluate"]["episodes"] * calibration.seconds_per_episode
    )


def estimate(trials: Iterable[Trial], workers: int, calibration: Calibration | None = None) -> Cost:
    """Seconds that the trials take. With few long trials the last worker is waited for, so `wall`
    is no less than the longest trial."""
    calibration = calibration or Calibration()
    by_mixer: dict[str, float] = {}
    longest = 0.0
    for trial in trials:
        cost = seconds(trial, calibration)
        longest = max(longest, cost)
        mixer = trial.config["mixer"]
        by_mixer[mixer] = by_mixer.get(mixer, 0.0) + cost
    work = sum(by_mixer.values())
    return Cost(work, max(work / workers, longest), workers, by_mixer)
