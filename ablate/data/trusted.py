"""Policies of stable-baselines3 that are code: `data collect --policy sb3:FILE.zip --trust-code`.

stable-baselines3, an extra, unpickles the file, and the file may run anything as it does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from ablate.data.behaviour import Acted, one_hot
from ablate.data.stable_baselines import Collector, choices_of
from ablate.errors import UserError

# Where the policy classes live -> the algorithm that reads the file.
ALGORITHMS = {
    "stable_baselines3.sac.policies": "SAC",
    "stable_baselines3.td3.policies": "TD3",
    "stable_baselines3.dqn.policies": "DQN",
}


class Trusted(Collector):
    """The policy in `path`, as stable-baselines3 loads it; else as `StableBaselines`.

    Raises UserError when the package is missing, the file isn't a saved policy of its or is for other actions.
    """

    def __init__(
        self, path: Path, space: Any, normaliser: Path | None = None, deterministic: bool = False
    ) -> None:
        super().__init__(space, normaliser)
        self._deterministic = deterministic
        model = _load(path)
        self._policy = model.policy
        self._policy.set_training_mode(False)
        self._reads = model.observation_space
        if model.action_space != space:
            raise UserError(
                f"--policy sb3:{path}: it gives {model.action_space}; the environment takes {space}. Collect in the"
                " environment it was trained in."
            )

    @property
    def observation_dim(self) -> int:
        return spaces.utils.flatdim(self._reads)

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        super().start(observation, rng)
        torch.manual_seed(int(rng.integers(1 << 62)))

    def act(self, observation: np.ndarray) -> Acted:
        seen = self._unflattened(self.seen(observation))
        picked, _ = self._policy.predict(seen, deterministic=self._deterministic)
        ids = np.zeros(len(observation), dtype=np.int64)
        if isinstance(self.space, spaces.Box):
            return Acted(np.clip(self.scaled(picked), -1.0, 1.0).astype(np.float32), ids)
        groups = zip(picked.reshape(len(ids), -1).T, choices_of(self.space), strict=True)
        return Acted(np.concatenate([one_hot(each, count) for each, count in groups], axis=1), ids)

    def _unflattened(self, observation: np.ndarray) -> Any:
        """Flat rows (B, N) as the policy's own observations."""
        space = self._reads
        if isinstance(space, spaces.Box):
            return observation.reshape(-1, *space.shape).astype(space.dtype)
        single = [spaces.utils.unflatten(space, row) for row in observation]
        if isinstance(space, spaces.Dict):
            return {key: np.stack([row[key] for row in single]) for key in space}
        return np.stack(single)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"--policy sb3:{path}: there is no such file.")
    try:
        import stable_baselines3
        from stable_baselines3.common.save_util import load_from_zip_file
    except ImportError as error:
        raise UserError(
            f"--policy sb3:{path}: stable-baselines3 is not installed; `pip install stable-baselines3`."
        ) from error
    try:
        data, _, _ = load_from_zip_file(path, device="cpu")
        assert data is not None
        algorithm = ALGORITHMS.get(data["policy_class"].__module__, "PPO")
        return getattr(stable_baselines3, algorithm).load(path, device="cpu")
    except Exception as error:  # a foreign file may break anywhere
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"--policy sb3:{path}: stable-baselines3 can't load it ({reason})."
        ) from error
