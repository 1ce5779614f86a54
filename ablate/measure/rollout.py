"""Rollouts: all episodes of all seeds of a cell in one batch, one environment call a timestep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ablate import streams
from ablate.data.catalogue import DataSet
from ablate.envs.base import VectorEnv
from ablate.measure.agent import Actable
from ablate.models.conditions import Moment
from ablate.models.layouts import Fields
from ablate.words import Response

RESPONSES = (
    Response("score", unit="points", direction="higher", digits=1, points=True),
    Response("score_median", "median score", "points", "higher", digits=1, points=True),
    Response("return_mean", label="return", unit="reward units", direction="higher", digits=1),
    Response("return_std", label="spread of returns", unit="reward units", digits=1),
    Response("success", label="success rate", unit="fraction", direction="higher"),
    Response("length", label="episode length", unit="timesteps", digits=1),
    Response("jerk", label="action jerk", unit="action units"),
)


@dataclass(frozen=True)
class Rollouts:
    """Per policy and episode, (S, E): undiscounted return, success (NaN where the task has none), length.

    jerk (S,): mean squared change of the action from one timestep to the next, over live timesteps.
    """

    returns: np.ndarray
    success: np.ndarray
    lengths: np.ndarray
    jerk: np.ndarray

    def responses(self, data: DataSet, cap: float) -> dict[str, np.ndarray]:
        """What `RESPONSES` declares, (S,) each."""
        scores = data.anchors.score(self.returns)  # (S, E)
        single = self.returns.shape[1] == 1
        return {
            "score": scores.mean(1),
            "score_median": np.median(scores, axis=1),
            "return_mean": self.returns.mean(1),
            "return_std": self.returns.std(1, ddof=0 if single else 1),
            "success": self.success.mean(1),
            "length": self.lengths.mean(1),
            "jerk": self.jerk,
        }


def evaluation_seeds(study: str, seed: int, episodes: int) -> list[int]:
    """Environment seeds of a training seed's evaluation: the same in every cell of that seed, others for other
    seeds, so that an interval over seeds also covers new episodes."""
    base = int(streams.stream(study, seed, "eval-env").integers(0, 2**30))
    return [2 * base + episode for episode in range(episodes)]


@torch.no_grad()
def rollout(
    agent: Actable,
    env: VectorEnv,
    episodes: int,
    *,
    study: str,
    seeds: Sequence[int],
    target: float,
    policy: int | None,
    sample: bool,
    decrement: bool = True,
) -> Rollouts:
    """Run `episodes` episodes for each of the S policies in `env`, which has S * episodes places.

    target, decrement, policy: what the conditions ask for, see `Moment`. Actions are sampled with noise from
    each seed's own stream, or are the head's mode.
    """
    agent.eval()
    size = agent.size
    device = agent.device
    shape = (size, episodes)
    observation = env.reset([e for seed in seeds for e in evaluation_seeds(study, seed, episodes)])
    noise_streams = [streams.stream(study, seed, "eval-act") for seed in seeds]
    actor = agent.start(episodes)
    layout = agent.layout
    previous = np.zeros((*shape, env.action_dim), dtype=np.float32)
    reward = np.zeros(shape)
    told: dict[str, np.ndarray] = {}
    alive = np.ones(shape, dtype=bool)
    returns, lengths = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    success = np.full(shape, np.nan)
    change, changes = np.zeros(size), np.zeros(size)
    noise_dim = agent.noise_dim if sample else 0
    for t in range(env.horizon):
        observed = observation.reshape(*shape, -1)
        moment = Moment(
            observed,
            previous,
            reward,
            t,
            env,
            layout,
            target=target,
            decrement=decrement,
            policy=policy,
        )
        told = {
            name: condition.shown(moment, told.get(name))
            for name, condition in layout.conditions.items()
        }
        fields = Fields(
            observation=_tensor(observed, device),
            action=_tensor(previous, device),
            reward=_tensor(reward, device),
            time=torch.full(shape, float(t), device=device),
            told={name: _tensor(values, device) for name, values in told.items()},
        )
        noise = None
        if noise_dim:
            drawn = np.stack([g.random((episodes, noise_dim)) for g in noise_streams])
            noise = _tensor(drawn, device)
        chosen = actor.act(fields, noise)  # (S, E, M)
        # A diverged policy may answer NaN; it is reported as failed, and must not stop the others' episodes.
        action = torch.nan_to_num(chosen).cpu().numpy().astype(np.float32)  # (S, E, M)
        observation, rewards, terminations, truncations, info = env.step(
            action.reshape(size * episodes, -1)
        )
        reward = np.where(alive, rewards.reshape(shape), 0.0)
        returns += reward
        lengths += alive
        if t > 0:
            change += (((action - previous) ** 2).mean(-1) * alive).sum(1)
            changes += alive.sum(1)
        previous = action
        if "success" in info:
            success = np.where(alive, info["success"].reshape(shape), success).astype(np.float64)
        alive &= ~(terminations | truncations).reshape(shape)
        if not alive.any():
            break
    return Rollouts(returns, success, lengths, change / np.maximum(changes, 1))


def _tensor(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)
