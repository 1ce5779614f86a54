"""A user's own stable-baselines3 policy as a behaviour policy: `data collect --policy sb3:FILE.zip`.

stable-baselines3 is an extra. Its files hold pickled Python: load only those that you trust.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from ablate.data.behaviour import Acted, Behaviour, censored_logp
from ablate.errors import UserError

# Where the policy classes live -> the algorithm that reads the file.
ALGORITHMS = {
    "stable_baselines3.common.policies": ("PPO", "A2C"),
    "stable_baselines3.sac.policies": ("SAC",),
    "stable_baselines3.td3.policies": ("TD3", "DDPG"),
    "stable_baselines3.dqn.policies": ("DQN",),
}


class StableBaselines(Behaviour):
    """The policy in `path`, sampling as in training (or its mode).

    normaliser: the VecNormalize file of its training environment, where it had one. `behaviour_logp` is known
    for Gaussian policies (the likelihood of the clipped action) and categorical ones.

    Raises UserError when the package is missing or the file isn't a saved policy of its.
    """

    def __init__(
        self, path: Path, normaliser: Path | None = None, deterministic: bool = False
    ) -> None:
        self._model = _load(path)
        self._deterministic = deterministic
        self._moments = None if normaliser is None else _moments(normaliser)
        self._policy = self._model.policy
        self._policy.set_training_mode(False)
        self.observation_space: Any = self._model.observation_space
        self.action_space: Any = self._model.action_space

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        wanted = spaces.utils.flatdim(self.observation_space)
        if observation.shape[1] != wanted:
            raise UserError(
                f"--policy: it reads observations of {wanted} numbers, the environment gives"
                f" {observation.shape[1]}; collect in the environment it was trained in."
            )
        torch.manual_seed(int(rng.integers(1 << 62)))

    def act(self, observation: np.ndarray) -> Acted:
        rows = len(observation)
        seen = self._seen(observation)
        chosen, _ = self._policy.predict(seen, deterministic=self._deterministic)
        ids = np.zeros(rows, dtype=np.int64)
        if isinstance(self.action_space, spaces.Discrete):
            picked = chosen.reshape(rows).astype(np.int64) - int(self.action_space.start)
            choices = np.arange(int(self.action_space.n))
            actions = np.where(choices == picked[:, None], 1.0, -1.0).astype(np.float32)
            return Acted(actions, ids, logp=self._categorical_logp(seen, picked))
        space = self.action_space
        middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
        actions = ((chosen - middle) / half).reshape(rows, -1)
        actions = np.clip(actions, -1.0, 1.0).astype(np.float32)
        gaussian = self._gaussian(seen)
        if gaussian is None or self._deterministic:
            return Acted(actions, ids)
        mean, std = (
            (gaussian[0] - middle.ravel()) / half.ravel(),
            gaussian[1] / half.ravel(),
        )
        return Acted(
            actions,
            ids,
            logp=censored_logp(actions, mean, std),
            mean=np.clip(mean, -1.0, 1.0).astype(np.float32),
        )

    def _seen(self, observation: np.ndarray) -> Any:
        """Flat rows (B, N) as the policy's own observations, normalised as in its training."""
        space = self.observation_space
        if self._moments is not None:
            observation = self._moments.normalize_obs(observation)
        if isinstance(space, spaces.Box):
            return observation.reshape(-1, *space.shape).astype(space.dtype)
        single = [spaces.utils.unflatten(space, row) for row in observation]
        if isinstance(space, spaces.Dict):
            return {key: np.stack([row[key] for row in single]) for key in space}
        return np.stack(single)

    def _distribution(self, seen: Any) -> Any:
        """What an actor-critic policy draws from; None of other algorithms."""
        if not hasattr(self._policy, "get_distribution"):
            return None
        with torch.no_grad():
            return self._policy.get_distribution(self._policy.obs_to_tensor(seen)[0]).distribution

    def _gaussian(self, seen: Any) -> tuple[np.ndarray, np.ndarray] | None:
        found = self._distribution(seen)
        if not isinstance(found, torch.distributions.Normal):
            return None
        return found.mean.double().numpy(), found.stddev.double().numpy()

    def _categorical_logp(self, seen: Any, picked: np.ndarray) -> np.ndarray | None:
        found = self._distribution(seen)
        if self._deterministic or not isinstance(found, torch.distributions.Categorical):
            return None
        return found.log_prob(torch.from_numpy(picked)).double().numpy()


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
        module = data["policy_class"].__module__
        algorithms = ALGORITHMS.get(module)
        if algorithms is None:
            known = ", ".join(name for each in ALGORITHMS.values() for name in each)
            raise UserError(
                f"--policy sb3:{path}: its policy is of {module}; allowed: those of {known}."
            )
        return getattr(stable_baselines3, algorithms[0]).load(path, device="cpu")
    except UserError:
        raise
    except Exception as error:  # a foreign file may break anywhere
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"--policy sb3:{path}: not a policy saved by stable-baselines3 ({reason})."
        ) from error


def _moments(path: Path) -> Any:
    from stable_baselines3.common.running_mean_std import RunningMeanStd
    from stable_baselines3.common.vec_env import VecNormalize

    try:
        with path.open("rb") as file:
            import pickle

            found = pickle.load(file)
        assert isinstance(found, VecNormalize)
        assert isinstance(found.obs_rms, RunningMeanStd)
    except Exception as error:
        raise UserError(
            f"--normaliser {path}: not a VecNormalize file of stable-baselines3."
        ) from error
    return found
