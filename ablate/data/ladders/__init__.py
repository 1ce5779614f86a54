"""Ladders of behaviour policies for locomotion: twenty snapshots of one training run a task.

A file a task, TASK.safetensors: every array has the snapshots along its first axis. `train.py` made
the policies, `choose.py` measured and packed them; the file's metadata hold the recipe and the scores.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ablate.data.behaviour import Acted, Behaviour, censored_logp
from ablate.errors import unknown

FOLDER = Path(__file__).parent
# Data are collected with this share of the noise the policies were trained with: at full noise the
# walkers' best policies fall in one episode out of ten.
NOISE = 0.5
OBSERVATION_CLIP = 10.0  # of the normalised observation, in training too


@dataclass(frozen=True, eq=False)
class Ladder:
    """L policies of one task: tanh networks of the normalised observation, with Gaussian noise.

    Attributes:
        weights: mean, scale (L, N); w0 (L, H, N), b0 (L, H), w1 (L, H, H), b1, w2 (L, M, H), b2, all
            float32; log_std (L, M), of the noise in training.
        about: recipe, steps of training (L,), measured returns (L,) as stored in the file.
    """

    task: str
    weights: dict[str, np.ndarray]
    about: dict[str, Any]

    @property
    def size(self) -> int:
        return len(self.weights["b0"])

    @property
    def observation_dim(self) -> int:
        return int(self.weights["mean"].shape[1])

    @property
    def action_dim(self) -> int:
        return int(self.weights["b2"].shape[1])

    @property
    def digest(self) -> str:
        """16 hex digits over all weights."""
        found = hashlib.sha256()
        for name in sorted(self.weights):
            found.update(f"{name}|{self.weights[name].shape}|".encode())
            found.update(np.ascontiguousarray(self.weights[name]).data)
        return found.hexdigest()[:16]

    @property
    def scores(self) -> np.ndarray:
        """Mean normalised score of each snapshot as it collects data, (L,)."""
        return np.array(self.about["scores"])

    @property
    def expert(self) -> int:
        """The best snapshot, chosen by other episodes than those that `scores` report."""
        return int(self.about["expert"])

    @property
    def medium(self) -> int:
        """The snapshot that was nearest to a score of 40, likewise."""
        return int(self.about["medium"])

    @functools.cached_property
    def _exact(self) -> dict[str, np.ndarray]:
        """The weights in float64."""
        return {name: value.astype(np.float64) for name, value in self.weights.items()}

    def mean(self, snapshot: int, observation: np.ndarray) -> np.ndarray:
        """Means (B, M) float64 of the actions of one snapshot at raw observations (B, N), not clipped.

        In float64, so that an action, rounded to float32, hardly ever depends on how a machine sums.
        """
        w = {name: value[snapshot] for name, value in self._exact.items()}
        clip = OBSERVATION_CLIP
        x = np.clip((observation - w["mean"]) / w["scale"], -clip, clip)  # (B, N)
        x = np.tanh(x @ w["w0"].T + w["b0"])  # (B, H)
        x = np.tanh(x @ w["w1"].T + w["b1"])  # (B, H)
        return x @ w["w2"].T + w["b2"]  # (B, M)

    def std(self, snapshot: int) -> np.ndarray:
        """Standard deviations (M,) of the noise added while collecting."""
        found: np.ndarray = NOISE * np.exp(self._exact["log_std"][snapshot])
        return found


def path(task: str) -> Path:
    """The file of a task's ladder."""
    return FOLDER / f"{task}.safetensors"


def tasks() -> list[str]:
    """Tasks that have a ladder."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


@functools.cache
def load(task: str) -> Ladder:
    """The ladder of a task; raises UserError for a task without one."""
    if task not in tasks():
        raise unknown("ladder", task, tasks())
    with safe_open(path(task), "numpy") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Ladder(task, weights, json.loads(file.metadata()["about"]))


class LadderBehaviour(Behaviour):
    """Snapshots of a ladder act; which one does may change from step to step.

    snapshots: those that may act; a logged id is a place in this list. acting: called with (B, rng) at
    each step, gives the places (B,) that act; `each_step` False calls it at the start of an episode only.
    """

    def __init__(
        self,
        ladder: Ladder,
        snapshots: list[int],
        acting: Callable[[int, np.random.Generator], np.ndarray],
        each_step: bool = False,
    ) -> None:
        self._ladder, self._snapshots = ladder, snapshots
        self._acting, self._each_step = acting, each_step

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._ids = self._acting(len(observation), rng)

    def act(self, observation: np.ndarray) -> Acted:
        if self._each_step:
            self._ids = self._acting(len(observation), self._rng)
        mean = np.empty((len(observation), self._ladder.action_dim))
        std = np.empty(mean.shape)
        for place in np.unique(self._ids):
            rows = self._ids == place
            snapshot = self._snapshots[place]
            mean[rows] = self._ladder.mean(snapshot, observation[rows])
            std[rows] = self._ladder.std(snapshot)
        noise = std * self._rng.standard_normal(mean.shape)
        actions = np.clip(mean + noise, -1.0, 1.0).astype(np.float32)
        return Acted(
            actions=actions,
            ids=self._ids.copy(),
            logp=censored_logp(actions, mean, std),
            mean=np.clip(mean, -1.0, 1.0).astype(np.float32),
        )
