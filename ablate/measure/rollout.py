"""Rollouts: all episodes of all seeds of a cell in one batch, one environment call a timestep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.data import streams
from ablate.envs.base import VectorEnv
from ablate.envs.device import DeviceEnv, on_device
from ablate.models.agent import Actable
from ablate.models.conditions import Moment
from ablate.models.layouts import Fields


@dataclass(frozen=True)
class Rollouts:
    """Per policy and episode, (S, E): undiscounted return, success (NaN where the task has none), length,
    and the environment seed, which says where the episode starts and what its noise is.

    jerk (S,): mean squared change of the action from one timestep to the next, over live timesteps.
    """

    returns: np.ndarray
    success: np.ndarray
    lengths: np.ndarray
    jerk: np.ndarray
    env_seeds: np.ndarray


def evaluation_seeds(study: str, seed: int, episodes: int) -> list[int]:
    """Environment seeds of the episodes in which the models of a training seed are evaluated.

    The same in every cell of the seed; those of another seed are others. Consecutive, and the first is even
    (the goals of some tasks are then balanced). They lie above those that data are collected with.
    """
    base = int(streams.stream(study, seed, "eval-env").integers(2**45, 2**51))
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
    lists: Sequence[int] | None = None,
) -> Rollouts:
    """Run the `episodes` episodes of its seed for each of the S policies in `env`, which has S * episodes places.

    lists: the seeds whose episodes the policies are evaluated in, where not their own.

    target, decrement, policy: what the conditions ask for, see `Moment`. Actions are sampled with noise from
    each seed's own stream, or are the head's mode.
    """
    agent.eval()
    size = agent.size
    device = agent.device
    shape = (size, episodes)
    env_seeds = np.array([evaluation_seeds(study, seed, episodes) for seed in lists or seeds])
    twin = None if device.type == "cpu" else on_device(env, device)
    if twin is not None:
        asked = Asked(target, decrement, policy)
        noise = drawn_ahead(agent, study, seeds, (episodes, env.horizon)) if sample else None
        books = steps_on_device(agent, twin, env_seeds, asked, noise)
        returns, success, lengths, jerk = (each.cpu().numpy() for each in books)
        return Rollouts(returns, success, lengths, jerk, env_seeds)
    observation = env.reset(env_seeds.ravel().tolist())
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
            noise = _tensor(drawn, _noise_device(agent))
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
            change += (((action - previous) ** 2).mean(-1) * alive).sum(1, dtype=np.float64)
            changes += alive.sum(1)
        previous = action
        if "success" in info:
            success = np.where(alive, info["success"].reshape(shape), success).astype(np.float64)
        alive &= ~(terminations | truncations).reshape(shape)
        if not alive.any():
            break
    return Rollouts(returns, success, lengths, change / np.maximum(changes, 1), env_seeds)


@dataclass(frozen=True)
class Asked:
    """What the conditions ask for, see `Moment`."""

    target: float
    decrement: bool = True
    policy: int | None = None


@torch.no_grad()
def steps_on_device(
    agent: Actable, env: DeviceEnv, env_seeds: np.ndarray, asked: Asked, noise: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `rollout` does, where the environment is on the policies' device: no step copies anything to the host.

    So nobody asks whether all episodes are over: every one has the steps of the horizon, frozen once it is done.

    env_seeds: (S, E). noise: (T, S, E, noise_dim) uniform numbers of all timesteps, None for the mode. Returns
    returns, success, lengths (S, E) and jerk (S,) as in `Rollouts`, on the device. Conditions are told tensors.
    """
    shape, device = env_seeds.shape, agent.device
    seen = env.reset(env_seeds.ravel().tolist())
    actor, layout = agent.start(shape[1]), agent.layout
    reward = torch.zeros(shape, dtype=torch.float64, device=device)
    alive = torch.ones(shape, dtype=torch.bool, device=device)
    returns, success = torch.zeros_like(reward), torch.full_like(reward, float("nan"))
    lengths = torch.zeros_like(alive, dtype=torch.int64)
    change, changes = reward.sum(1), reward.sum(1)
    told: dict[str, Any] = {}
    action: Tensor | None = None
    for t in range(env.horizon):
        observed = seen.view(*shape, -1)
        if action is None:
            action = observed.new_zeros(*shape, layout.action_dim)
        arrays: Any = (observed, action, reward)  # conditions reckon with tensors as with arrays
        moment = Moment(
            arrays[0], arrays[1], arrays[2], t, env, layout,
            target=asked.target, decrement=asked.decrement, policy=asked.policy,
        )  # fmt: skip
        told = {
            name: torch.as_tensor(condition.shown(moment, told.get(name)), device=device)
            for name, condition in layout.conditions.items()
        }
        fields = Fields(
            observation=observed,
            action=action,
            reward=reward.float(),
            time=torch.full(shape, float(t), device=device),
            told={name: values.float() for name, values in told.items()},
        )
        # A diverged policy may answer NaN; it is reported as failed, and must not stop the others' episodes.
        chosen = torch.nan_to_num(actor.act(fields, None if noise is None else noise[t])).float()
        seen, rewards, terminations, truncations, info = env.step(chosen.flatten(0, 1))
        reward = torch.where(alive, rewards.view(shape), 0.0)
        returns += reward
        lengths += alive
        if t > 0:
            change += ((chosen - action).square().mean(-1) * alive).sum(1, dtype=torch.float64)
            changes += alive.sum(1)
        action = chosen
        if "success" in info:
            success = torch.where(alive, info["success"].view(shape).double(), success)
        alive = alive & ~(terminations | truncations).view(shape)
    return returns, success, lengths, change / changes.clamp(min=1)


def drawn_ahead(
    agent: Actable, study: str, seeds: Sequence[int], counts: tuple[int, int]
) -> Tensor | None:
    """(T, S, E, noise_dim) uniform numbers of E episodes and T timesteps, each seed's from its own stream."""
    if not agent.noise_dim:
        return None
    shape = (counts[1], counts[0], agent.noise_dim)
    drawn = [streams.stream(study, seed, "eval-act").random(shape) for seed in seeds]
    return _tensor(np.stack(drawn, axis=1), _noise_device(agent))


def _noise_device(agent: Actable) -> torch.device:
    """Where an agent wants its noise: with the fields, where it doesn't say that its host reads it."""
    found: torch.device = getattr(agent, "noise_device", agent.device)
    return found


def _tensor(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)
