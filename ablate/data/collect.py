"""Collecting trajectories: a behaviour policy acts in a batch of episodes until there are enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ablate.data.behaviour import Acted, Behaviour
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.envs.base import VectorEnv

BATCH = 64


def collect(
    name: str,
    part: str,
    make_env: Callable[[int], VectorEnv],
    behaviour: Behaviour,
    steps: int,
    *,
    privileged: bool = True,
    batch: int | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> Trajectories:
    """Whole episodes, at least one, of at most `steps` timesteps in all unless the first is longer.

    Everything random is a function of (name, part, batch). privileged: the behaviour sees what the
    environment hides (`full_observation`), else what it shows. The logged observation is what is
    shown. batch: episodes at once; None for as many as may be needed, at most BATCH.
    progress: told how many timesteps there are after each batch.
    """
    rng = stream("data", 0, f"{name}/{part}")
    parts: list[Trajectories] = []
    if batch is None:
        batch = min(BATCH, -(-steps // make_env(1).horizon))
    env = make_env(batch)
    total = 0
    while total < steps:
        made = _episodes(name, env, behaviour, rng, privileged)
        parts.append(made)
        total += len(made.rewards)
        progress(min(total, steps))
    every = concatenate(name, parts)
    enough = int(np.searchsorted(every.episode_starts, steps, side="right")) - 1
    return every.select(np.arange(max(1, enough)))


def _episodes(
    name: str, env: VectorEnv, behaviour: Behaviour, rng: np.random.Generator, privileged: bool
) -> Trajectories:
    """One batch of whole episodes."""
    batch = env.num_envs
    observation = env.reset(rng.integers(1 << 62, size=batch).tolist())
    behaviour.start(env.full_observation() if privileged else observation, rng)
    alive = np.ones(batch, dtype=bool)
    log: dict[str, list[np.ndarray]] = {}
    length = np.zeros(batch, dtype=np.int64)
    while alive.any():
        state = env.simulator_state()
        acted: Acted = behaviour.act(env.full_observation() if privileged else observation)
        row = {
            "observations": observation,
            "actions": acted.actions,
            "behaviour_id": acted.ids,
            "behaviour_logp": acted.logp,
            "behaviour_action": acted.mean,
            "simulator_state": state,
        }
        observation, rewards, terminations, truncations, _ = env.step(acted.actions)
        row |= {"rewards": rewards, "terminations": terminations, "truncations": truncations}
        for key, value in row.items():
            if value is not None:
                log.setdefault(key, []).append(value)
        length += alive
        alive &= ~(terminations | truncations)
    kept = np.arange(length.max()) < length[:, None]  # (B, L)
    flat = {key: np.stack(each, axis=1)[kept] for key, each in log.items()}
    types = {
        "observations": np.float32, "actions": np.float32, "rewards": np.float32,
        "behaviour_id": np.int64, "behaviour_logp": np.float32, "behaviour_action": np.float32,
        "simulator_state": np.float32,
    }  # fmt: skip
    return Trajectories(
        name=name,
        **{key: value.astype(types.get(key, value.dtype)) for key, value in flat.items()},
        episode_starts=np.concatenate([[0], np.cumsum(length)]),
        final_observations=observation.astype(np.float32),
    )


def concatenate(name: str, parts: list[Trajectories]) -> Trajectories:
    """The episodes of all parts, in order; all parts have the same arrays."""
    starts = [np.zeros(1, dtype=np.int64)]
    for part in parts:
        starts.append(part.episode_starts[1:] + starts[-1][-1])
    arrays = {
        key: np.concatenate([part.arrays[key] for part in parts])
        for key in parts[0].arrays
        if key != "episode_starts"
    }
    return Trajectories(name=name, **arrays, episode_starts=np.concatenate(starts))
