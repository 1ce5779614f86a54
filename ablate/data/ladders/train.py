"""Trains one locomotion task's ladder of behaviour policies: `python -m ablate.data.ladders.train hopper`.

Proximal policy optimisation of stable-baselines3 (an extra: `pip install ablate-sequence-rl[ladders]`)
with two hidden layers of 64, since a ladder needs many policies of known quality and not the best
one there is. Snapshots are taken all along the run; `python -m ablate.data.ladders.choose` measures them and
ships twenty.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from safetensors.numpy import save_file
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from ablate.envs.locomotion import ENVIRONMENTS

NUM_ENVS = 16
# Close to Tianshou's benchmark of PPO on MuJoCo (its examples/mujoco; 64-64, return normalisation,
# learning rate falling to 0); the discount and the initial noise were chosen for each task by eye.
COMMON: dict[str, Any] = {
    "n_steps": 128,  # 2,048 transitions an update
    "batch_size": 64,
    "n_epochs": 10,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "ent_coef": 0.0,
    "vf_coef": 0.25,
    "max_grad_norm": 0.5,
}
LEARNING_RATE = 3e-4
# steps: where the learning rate, falling linearly, would be 0; stop: where the run ends; snapshots, spacing:
# the n-th of N snapshots is taken at (n / N) ** spacing of the steps (a task learnt soon needs dense ones).
RECIPES: dict[str, dict[str, Any]] = {
    "hopper": {
        "steps": 3_000_000,
        "stop": 1_000_000,
        "seed": 1,
        "gamma": 0.995,
        "log_std_init": 0.0,
        "spacing": 2.0,
        "snapshots": 160,
    },
    "halfcheetah": {
        "steps": 3_000_000,
        "stop": 3_000_000,
        "seed": 1,
        "gamma": 0.98,
        "log_std_init": -1.0,
        "spacing": 1.0,
        "snapshots": 40,
    },
    "walker2d": {
        "steps": 4_000_000,
        "stop": 4_000_000,
        "seed": 0,
        "gamma": 0.99,
        "log_std_init": 0.0,
        "spacing": 1.0,
        "snapshots": 40,
    },
    "ant": {
        "steps": 3_000_000,
        "stop": 1_500_000,
        "seed": 0,
        "gamma": 0.99,
        "log_std_init": 0.0,
        "spacing": 1.0,
        "snapshots": 40,
    },
}


class Snapshots(BaseCallback):
    """Writes the actor, and what training needs to go on, at equal intervals of steps."""

    def __init__(self, task: str, folder: Path, normaliser: VecNormalize) -> None:
        super().__init__()
        self.folder, self.normaliser = folder, normaliser
        self.recipe = recipe(task)
        self.stop = RECIPES[task]["stop"]
        settings = RECIPES[task]
        along = np.linspace(0, 1, settings["snapshots"] + 1) ** settings["spacing"]
        self.marks = (along * settings["steps"]).astype(int)

    def _on_step(self) -> bool:
        return bool(self.num_timesteps < self.stop)

    def _on_rollout_start(self) -> None:
        self._write()

    def _on_training_end(self) -> None:
        self._write()

    def _write(self) -> None:
        index = int(np.searchsorted(self.marks, self.num_timesteps, side="right")) - 1
        path = self.folder / f"{index:03d}.safetensors"
        if path.exists():
            return
        about = {"step": str(self.num_timesteps), "recipe": json.dumps(self.recipe)}
        state = self.model.policy.state_dict()
        save_file(actor_weights(state, self.normaliser), path, metadata=about)
        self.model.save(self.folder / "model.zip")
        self.normaliser.save(str(self.folder / "normaliser.pkl"))


def recipe(task: str) -> dict[str, Any]:
    """Everything that the run depends on, as JSON."""
    return {
        "environment": ENVIRONMENTS[task],
        "algorithm": "PPO",
        "envs": NUM_ENVS,
        "hidden": [64, 64],
        "learning_rate": LEARNING_RATE,
        **COMMON,
        **RECIPES[task],
        "stable-baselines3": version("stable-baselines3"),
        "gymnasium": version("gymnasium"),
        "mujoco": version("mujoco"),
    }


def actor_weights(state: dict[str, Any], normaliser: VecNormalize) -> dict[str, np.ndarray]:
    """The actor's arrays under the names of `ablate.data.ladders.Ladder`, without the snapshots' axis."""
    moments: Any = normaliser.obs_rms
    state = {name: value.numpy().copy() for name, value in state.items()}
    return {
        "mean": moments.mean.astype(np.float32),
        "scale": np.sqrt(moments.var + normaliser.epsilon).astype(np.float32),
        "w0": state["mlp_extractor.policy_net.0.weight"],
        "b0": state["mlp_extractor.policy_net.0.bias"],
        "w1": state["mlp_extractor.policy_net.2.weight"],
        "b1": state["mlp_extractor.policy_net.2.bias"],
        "w2": state["action_net.weight"],
        "b2": state["action_net.bias"],
        "log_std": state["log_std"],
    }


def train(task: str, folder: Path) -> None:
    """Trains `task` to the end of its recipe, from where `folder` left off."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    settings = RECIPES[task]
    envs = make_vec_env(
        lambda: gymnasium.make(ENVIRONMENTS[task]), n_envs=NUM_ENVS, seed=settings["seed"]
    )
    if (folder / "normaliser.pkl").exists():
        normaliser = VecNormalize.load(str(folder / "normaliser.pkl"), envs)
        model = PPO.load(folder / "model.zip", env=normaliser, device="cpu")
    else:
        normaliser = VecNormalize(envs, gamma=settings["gamma"])
        model = PPO(
            "MlpPolicy",
            normaliser,
            learning_rate=lambda remaining: LEARNING_RATE * remaining,
            gamma=settings["gamma"],
            seed=settings["seed"],
            policy_kwargs={"log_std_init": settings["log_std_init"]},
            device="cpu",
            verbose=1,
            **COMMON,
        )
    left = settings["steps"] - model.num_timesteps
    callback = Snapshots(task, folder, normaliser)
    model.learn(left, callback=callback, reset_num_timesteps=False, log_interval=25)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(RECIPES))
    parser.add_argument("--folder", type=Path, required=True, help="Where snapshots go.")
    given = parser.parse_args()
    train(given.task, given.folder)
