"""Point-maze data made by D4RL's recipe: a waypoint controller walks from goal to random goal.

Walkers run in parallel and are never reset; a new goal, in another cell, is set on arrival (or
after the environment's horizon), and each such segment is one episode. Gaussian noise of 0.5 is
added to the actions, as in Minari's sets and D4RL's `--noisy`. The controller remembers its
waypoints: the data are Markov in neither observation nor time, although the maze is.

Names: `pointmaze/MAZE[-NOISE][-SIZE]-v1`

- MAZE: umaze, medium, large, open.
- NOISE: `noiseless`, as D4RL's published maze2d-open file is; or `noise0.2`, the standard deviation of
  the actions' noise. Left out: 0.5.
- SIZE: training transitions, `10k` to `10M` (D4RL has 1M), and a tenth as many are held out; at most so
  many, in whole episodes, so that a few hundred may lack. Left out: 40 walkers of 1,500 steps to learn
  from, about 57,000 transitions, and 10 that are held out.

A name says only what differs, so that each set has one name.

Not D4RL's files: generated here, with their own anchors. Rewards are the environment's, of the
state that follows the action (D4RL's relabelled ones are one step off).
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ablate.data.behaviour import explore
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.data.waypoints import REACHED, Walker, Waypoints, noisy_logp
from ablate.envs.pointmaze import (
    GOAL_RADIUS,
    HORIZONS,
    MAZES,
    POSITION_NOISE,
    POSITIONS,
    VELOCITIES,
    Ball,
    PointMaze,
    free_cells,
)
from ablate.errors import UserError, unknown
from ablate.registry import register

ACTION_NOISE = 0.5
STEPS = 1500  # of each walker
WALKERS = {"train": 40, "held_out": 10}
# Where a size is asked for, there is a walker for so many of the transitions: few enough that long
# segments, which are the likelier to be unfinished at the end and left out, are not missed.
STEPS_SIZED = 4000
SMALLEST, LARGEST = 10_000, 10_000_000
HELD_OUT = 0.1  # of the size
ANCHOR_EPISODES = 400
_MEMBER = re.compile(
    r"(?P<maze>[a-z]+)(-(?P<noise>noiseless|noise0\.[0-9]{0,5}[1-9]))?(-(?P<size>[1-9][0-9]{0,8}[kM]))?-v1"
)


@register("data", "pointmaze", label="PointMaze")
class PointMazes(Family):
    """`pointmaze/MAZE-v1`: about 60,000 training and 15,000 held-out transitions; see the module."""

    words: ClassVar = {"umaze": "U"}

    def resolve(self, member: str, name: str) -> DataSpec:
        parts = _MEMBER.fullmatch(member)
        if parts is None or parts["maze"] not in MAZES:
            raise unknown("data", name, self.names())
        maze, base = parts["maze"], f"pointmaze/{member}"
        noise = _noise(parts["noise"], name)
        size = None if parts["size"] is None else _size(parts["size"], name)
        made: dict[str, Any] = {"steps": STEPS, "walkers": WALKERS}
        if size is not None:
            made = {"size": size, "held_out": HELD_OUT, "steps_sized": STEPS_SIZED}

        def generate() -> tuple[Trajectories, Trajectories]:
            train = walk(base, maze, "train", noise, size)
            held_out = None if size is None else round(HELD_OUT * size)
            return train, walk(base, maze, "held_out", noise, held_out)

        def make_env(num_envs: int) -> PointMaze:
            return PointMaze(num_envs, maze)

        return DataSpec(
            name=base,
            family="pointmaze",
            recipe={
                "generator": "pointmaze",
                "version": 2,
                "maze": maze,
                "noise": noise,
                **made,
                "anchor_episodes": ANCHOR_EPISODES,
                "seed": 0,
            },
            generate=generate,
            goal=(0, 1),
            make_env=make_env,
            anchors=lambda: anchors(maze),
            best_policy=0,
            num_policies=1,
            behaviour=lambda: Walker(maze, noise),
            hidden_physics=lambda num_envs, spread: PointMaze(num_envs, maze, spread),
        )

    def names(self) -> list[str]:
        options = ("", "-1M", "-noiseless", "-noiseless-1M")
        return [f"pointmaze/{maze}{option}-v1" for maze in MAZES for option in options]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        return {"position": POSITIONS, "velocity": VELOCITIES}


def _noise(text: str | None, name: str) -> float:
    """The level of noise that `text` of a set's name says."""
    if text is None:
        return ACTION_NOISE
    noise = 0.0 if text == "noiseless" else float(text.removeprefix("noise"))
    if noise == ACTION_NOISE:
        raise UserError(
            f"data: '{name}' has noise {noise}, as every set whose name says nothing of it."
        )
    return noise


def _size(text: str, name: str) -> int:
    """The number of transitions that `text` of a set's name says."""
    number = int(text[:-1])
    size = number * (1000 if text[-1] == "k" else 1_000_000)
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"data: '{name}' has size {text}; allowed: 10k to 10M.")
    if text[-1] == "k" and number % 1000 == 0:
        raise UserError(f"data: '{name}' has size {text}; it is written {number // 1000}M.")
    return size


def walk(
    name: str, maze: str, part: str, noise: float = ACTION_NOISE, size: int | None = None
) -> Trajectories:
    """The finished segments of all walkers, walker by walker; unfinished ones are left out.

    size: whole segments of at most so many transitions in all; None for WALKERS of STEPS steps, whose
    files are older than `final_observations` and lack it wherever noise is ACTION_NOISE.
    """
    rng = stream("data", 0, f"{name}/{part}")
    walkers = WALKERS[part] if size is None else max(1, round(size / STEPS_SIZED))
    cells, ball = free_cells(maze), Ball(maze)
    start = rng.integers(len(cells), size=walkers)
    position = cells[start] + rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=(walkers, 2))
    velocity = np.zeros((walkers, 2))
    goal = np.zeros((walkers, 2))
    since = np.zeros(walkers, dtype=np.int64)  # steps since the goal was set
    last = np.zeros(walkers, dtype=np.int64)  # steps of each walker up to its last arrival
    controller = Waypoints(maze, walkers)
    arrived = np.ones(walkers, dtype=bool)
    steps = 0
    log: dict[str, list[np.ndarray]] = {
        key: []
        for key in (
            "observations",
            "behaviour_action",
            "actions",
            "rewards",
            "truncations",
            "after",
        )
    }
    while steps < STEPS if size is None else last.sum() < size:
        for walker in np.flatnonzero(arrived).tolist():
            goal[walker] = _new_goal(cells, controller.nearest_cell(position[walker]), rng)
            controller.set_goal(walker, position[walker], goal[walker], rng)
        since = np.where(arrived, 0, since)
        mean = controller.act(position, velocity).astype(np.float32)
        action = explore(mean, noise, rng)
        log["observations"].append(_observation(position, velocity, goal))
        position, velocity = ball.step(position, velocity, action)
        distance = np.linalg.norm(position - goal, axis=1)
        since += 1
        steps += 1
        arrived = (distance < REACHED) | (since >= HORIZONS[maze])
        last = np.where(arrived, steps, last)
        log["behaviour_action"].append(mean)
        log["actions"].append(action)
        log["rewards"].append((distance <= GOAL_RADIUS).astype(np.float32))
        log["truncations"].append(arrived)
        log["after"].append(_observation(position, velocity, goal))
    kept = np.arange(steps) < last[:, None]  # (B, T)
    flat = {key: np.stack(each, axis=1)[kept] for key, each in log.items()}  # (rows, ...)
    after = flat.pop("after")[flat["truncations"]]
    logp = noisy_logp(flat["actions"], flat["behaviour_action"], noise)
    every = Trajectories(
        name=name,
        **flat,
        terminations=np.zeros(len(logp), dtype=bool),
        episode_starts=np.concatenate([[0], np.flatnonzero(flat["truncations"]) + 1]),
        behaviour_id=np.zeros(len(logp), dtype=np.int64),
        behaviour_logp=logp.astype(np.float32),
        goal=flat["observations"][:, 4:].copy(),
        simulator_state=flat["observations"][:, :4].copy(),
    )
    if size is None and noise == ACTION_NOISE:
        return every
    every = replace(every, final_observations=after)
    if size is None:
        return every
    enough = int(np.searchsorted(every.episode_starts, size, side="right")) - 1
    return every.select(np.arange(enough))


def _observation(position: np.ndarray, velocity: np.ndarray, goal: np.ndarray) -> np.ndarray:
    return np.concatenate([position, velocity, goal], axis=1).astype(np.float32)


@functools.cache
def anchors(maze: str) -> Anchors:
    """Mean returns of uniformly random actions (score 0) and of the noise-free controller (100)."""
    seeds = stream("data", 0, f"anchors/{maze}").integers(1 << 62, size=ANCHOR_EPISODES).tolist()
    return Anchors(
        low=float(random_returns(maze, seeds).mean()),
        high=float(controller_returns(maze, seeds).mean()),
        source="mean returns of uniformly random actions and of the noise-free waypoint controller,"
        f" {ANCHOR_EPISODES} episodes of {HORIZONS[maze]} steps each",
    )


def random_returns(maze: str, seeds: list[int]) -> np.ndarray:
    """Returns (B,) of uniformly random actions, one episode a seed."""
    env, rng = PointMaze(len(seeds), maze), stream("data", 0, f"random/{maze}")
    env.reset(seeds)
    total = np.zeros(len(seeds))
    for _ in range(env.horizon):
        total += env.step(rng.uniform(-1.0, 1.0, size=(len(seeds), 2)))[1]
    return total


def controller_returns(maze: str, seeds: list[int]) -> np.ndarray:
    """Returns (B,) of the waypoint controller without noise, one episode a seed."""
    env, controller = PointMaze(len(seeds), maze), Waypoints(maze, len(seeds))
    rng = stream("data", 0, f"waypoints/{maze}")
    observation = env.reset(seeds).astype(np.float64)
    for walker, row in enumerate(observation):
        controller.set_goal(walker, row[:2], row[4:], rng)
    total = np.zeros(len(seeds))
    for _ in range(env.horizon):
        step = env.step(controller.act(observation[:, :2], observation[:, 2:4]))
        observation = step[0].astype(np.float64)
        total += step[1]
    return total


def _new_goal(cells: np.ndarray, here: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A goal (2,) in a uniformly random cell other than the one with index `here`."""
    other = rng.integers(len(cells) - 1)
    cell = cells[other + (other >= int(here))]
    return cell + rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=2)
