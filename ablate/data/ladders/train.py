"""Trains one locomotion task's ladder of behaviour policies: `python -m ablate.data.ladders.train hopper`.

Proximal policy optimisation of stable-baselines3 (an extra: `pip install ablate-sequence-rl[ladders]`)
with two hidden layers of 64, since a ladder needs many policies of known quality and not the best
one there is. Snapshots are taken all along the run; `python -m ablate.data.ladders.choose` measures them and
ships twenty.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from safetensors.numpy import save_file
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

TASKS = {
    "hopper": "Hopper-v4",
    "halfcheetah": "HalfCheetah-v4",
    "walker2d": "Walker2d-v4",
    "ant": "Ant-v4",
}

# Close to Tianshou's benchmark of PPO on MuJoCo (tianshou.org, "MuJoCo benchmark": 3M steps).
NUM_ENVS = 16
RECIPE: dict[str, Any] = {
    "n_steps": 128,  # 2,048 transitions an update
    "batch_size": 64,
    "n_epochs": 10,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "ent_coef": 0.0,
    "vf_coef": 0.25,
    "max_grad_norm": 0.5,
}
LEARNING_RATE = 3e-4  # falls linearly to 0
SNAPSHOTS = 40  # besides the untrained policy


class Snapshots(BaseCallback):
    """Writes the actor, with the observations' normalisation folded in, at equal intervals of steps."""

    def __init__(self, folder: Path, normaliser: VecNormalize, total: int) -> None:
        super().__init__()
        self.folder, self.normaliser = folder, normaliser
        self.marks = np.linspace(0, total, SNAPSHOTS + 1).astype(int)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._write()

    def _on_training_end(self) -> None:
        self._write()

    def _write(self) -> None:
        index = int(np.searchsorted(self.marks, self.num_timesteps, side="right")) - 1
        path = self.folder / f"{index:02d}.safetensors"
        if path.exists():
            return
        actor = folded_actor(self.model, self.normaliser)
        save_file(actor, path, metadata={"step": str(self.num_timesteps)})
        self.model.save(self.folder / "model.zip")
        self.normaliser.save(str(self.folder / "normaliser.pkl"))


def folded_actor(model: PPO, normaliser: VecNormalize) -> dict[str, np.ndarray]:
    """The actor as weights of tanh layers that take the raw observation, and the log std (M,)."""
    state = {name: value.numpy().copy() for name, value in model.policy.state_dict().items()}
    scale = np.sqrt(normaliser.obs_rms.var + normaliser.epsilon)
    first = state["mlp_extractor.policy_net.0.weight"]
    return {
        "mean": normaliser.obs_rms.mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "w0": first,
        "b0": state["mlp_extractor.policy_net.0.bias"],
        "w1": state["mlp_extractor.policy_net.2.weight"],
        "b1": state["mlp_extractor.policy_net.2.bias"],
        "w2": state["action_net.weight"],
        "b2": state["action_net.bias"],
        "log_std": state["log_std"],
    }


def make_envs(task: str, seed: int) -> VecEnv:
    return make_vec_env(lambda: gymnasium.make(TASKS[task]), n_envs=NUM_ENVS, seed=seed)


def train(task: str, total: int, seed: int, folder: Path) -> None:
    """Trains `task` for `total` steps from where `folder` left off."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    envs = make_envs(task, seed)
    if (folder / "normaliser.pkl").exists():
        normaliser = VecNormalize.load(str(folder / "normaliser.pkl"), envs)
        model = PPO.load(folder / "model.zip", env=normaliser, device="cpu")
    else:
        normaliser = VecNormalize(envs, gamma=RECIPE["gamma"])
        model = PPO(
            "MlpPolicy",
            normaliser,
            learning_rate=lambda remaining: LEARNING_RATE * remaining,
            seed=seed,
            device="cpu",
            **RECIPE,
        )
    callback = Snapshots(folder, normaliser, total)
    left = total - model.num_timesteps
    model.verbose = 1
    model.learn(left, callback=callback, reset_num_timesteps=False, log_interval=25)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--steps", type=int, default=4_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    train(given.task, given.steps, given.seed, given.folder)
