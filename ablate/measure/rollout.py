"""Rollouts: all episodes of all seeds of a cell in one batch, one environment call a timestep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ablate import streams
from ablate.envs.base import VectorEnv
from ablate.measure.agent import Actable
from ablate.models.layouts import Fields
from ablate.words import Response

RESPONSES = (
    Response("score", unit="points", direction="higher", digits=1, points=True),
    Response("score_median", "median score", "points", "higher", 1, points=True),
    Response("return_mean", "return", "reward units", "higher", 1),
    Response("return_std", "spread of returns", "reward units", "lower", 1),
    Response("success", "success rate", direction="higher"),
    Response("length", "episode length", "timesteps", digits=1),
    Response("jerk", "action jerk", "action units", "lower"),
    Response("regret", "regret, capped", "points", "lower", 1, points=True),
    Response("lost", "share of lost episodes", direction="lower"),
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


def evaluation_seeds(study: str, episodes: int) -> list[int]:
    """Environment seeds of the evaluation: consecutive, and the same in every cell of the study."""
    base = int(streams.stream(study, 0, "eval-env").integers(0, 2**20))
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

    target: return-to-go at the start, in the environment's units, lowered by each reward received (DT,
    gym/decision_transformer/evaluation; not lowered where `decrement` is False, as with DT's delayed
    rewards). policy: the id shown under the condition `policy-id`. Actions are
    sampled with noise from each seed's own stream, or are the head's mode.
    """
    agent.eval()
    size = agent.size
    device = agent.device
    shape = (size, episodes)
    one_list = evaluation_seeds(study, episodes)
    observation = env.reset(one_list * size)
    noise_streams = [streams.stream(study, seed, "eval-act") for seed in seeds]
    actor = agent.start(episodes)
    layout = agent.layout
    previous = np.zeros((*shape, env.action_dim), dtype=np.float32)
    reward = np.zeros(shape)
    to_go = np.full(shape, target)
    shown = torch.zeros(*shape, layout.policies, device=device)
    if policy is not None and layout.policies:
        shown[..., policy] = 1.0
    goals = env.goals() if layout.goal else None
    goal = None if goals is None else _tensor(goals.reshape(*shape, -1), device)
    # RvS asks for the same average return throughout (Emmons et al. 2022, appendix).
    average, constant = "average-return" in layout.condition, np.full(shape, target / env.horizon)
    alive = np.ones(shape, dtype=bool)
    returns, lengths = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    success = np.full(shape, np.nan)
    change, changes = np.zeros(size), np.zeros(size)
    noise_dim = agent.noise_dim if sample else 0
    for t in range(env.horizon):
        fields = Fields(
            observation=_tensor(observation.reshape(*shape, -1), device),
            action=_tensor(previous, device),
            reward=_tensor(reward, device),
            return_to_go=_tensor(constant * (env.horizon - t) if average else to_go, device),
            time=torch.full(shape, float(t), device=device),
            policy=shown,
            goal=goal,
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
        if decrement:
            to_go = to_go - reward
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
