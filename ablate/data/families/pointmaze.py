"""Point-maze data made by D4RL's recipe: a waypoint controller walks from goal to random goal.

Walkers run in parallel and are never reset; a new goal, in another cell, is set on arrival (or
after the environment's horizon), and each such segment is one episode. Gaussian noise of 0.5 is
added to the actions, as in Minari's sets and D4RL's `--noisy`. The controller remembers its
waypoints: the data are Markov in neither observation nor time, although the maze is.

Not D4RL's files: generated here, with their own anchors. Rewards are the environment's, of the
state that follows the action (D4RL's relabelled ones are one step off).
"""

from __future__ import annotations

import functools

import numpy as np

from ablate.data.behaviour import censored_logp, explore
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.trajectories import Trajectories
from ablate.data.waypoints import REACHED, Waypoints
from ablate.envs.pointmaze import (
    GOAL_RADIUS,
    HORIZONS,
    MAZES,
    POSITION_NOISE,
    Ball,
    PointMaze,
    free_cells,
)
from ablate.errors import unknown
from ablate.registry import register
from ablate.streams import stream

ACTION_NOISE = 0.5
STEPS = 1500  # of each walker
WALKERS = {"train": 40, "held_out": 10}
ANCHOR_EPISODES = 400
GOAL_COORDINATES = [0, 1, 4, 5]  # everything but the velocity


@register("data", "pointmaze")
class PointMazes(Family):
    """`pointmaze/MAZE-v1`: about 60,000 training and 15,000 held-out transitions."""

    def resolve(self, member: str, name: str) -> DataSpec:
        maze = member.removesuffix("-v1")
        if member == maze or maze not in MAZES:
            raise unknown("data", name, self.names())
        base = f"pointmaze/{member}"

        def generate() -> tuple[Trajectories, Trajectories]:
            return walk(base, maze, "train"), walk(base, maze, "held_out")

        def make_env(num_envs: int) -> PointMaze:
            return PointMaze(num_envs, maze)

        return DataSpec(
            name=base,
            family="pointmaze",
            recipe={
                "generator": "pointmaze",
                "version": 2,
                "maze": maze,
                "noise": ACTION_NOISE,
                "steps": STEPS,
                "walkers": WALKERS,
                "anchor_episodes": ANCHOR_EPISODES,
                "seed": 0,
            },
            generate=generate,
            make_env=make_env,
            anchors=lambda: anchors(maze),
            best_policy=0,
            num_policies=1,
        )

    def names(self) -> list[str]:
        return [f"pointmaze/{maze}-v1" for maze in MAZES]

    def twins(self, member: str) -> dict[str, list[int]]:
        return {"mask-velocity": GOAL_COORDINATES}


def walk(name: str, maze: str, part: str) -> Trajectories:
    """The finished segments of all walkers, walker by walker; unfinished ones are left out."""
    rng = stream("data", 0, f"{name}/{part}")
    walkers = WALKERS[part]
    cells, ball = free_cells(maze), Ball(maze)
    start = rng.integers(len(cells), size=walkers)
    position = cells[start] + rng.uniform(-POSITION_NOISE, POSITION_NOISE, size=(walkers, 2))
    velocity = np.zeros((walkers, 2))
    goal = np.zeros((walkers, 2))
    since = np.zeros(walkers, dtype=np.int64)  # steps since the goal was set
    controller = Waypoints(maze, walkers)
    arrived = np.ones(walkers, dtype=bool)
    log: dict[str, list[np.ndarray]] = {
        key: [] for key in ("observations", "behaviour_action", "actions", "rewards", "truncations")
    }
    for _ in range(STEPS):
        for walker in np.flatnonzero(arrived).tolist():
            goal[walker] = _new_goal(cells, controller.nearest_cell(position[walker]), rng)
            controller.set_goal(walker, position[walker], goal[walker], rng)
        since = np.where(arrived, 0, since)
        mean = controller.act(position, velocity).astype(np.float32)
        action = explore(mean, ACTION_NOISE, rng)
        log["observations"].append(
            np.concatenate([position, velocity, goal], axis=1).astype(np.float32)
        )
        position, velocity = ball.step(position, velocity, action)
        distance = np.linalg.norm(position - goal, axis=1)
        since += 1
        arrived = (distance < REACHED) | (since >= HORIZONS[maze])
        log["behaviour_action"].append(mean)
        log["actions"].append(action)
        log["rewards"].append((distance <= GOAL_RADIUS).astype(np.float32))
        log["truncations"].append(arrived)
    by_walker = {key: np.stack(each, axis=1) for key, each in log.items()}  # (B, T, ...)
    finished = by_walker["truncations"]
    last = STEPS - finished[:, ::-1].argmax(axis=1)  # rows of each walker up to its last arrival
    kept = (np.arange(STEPS) < last[:, None]) & finished.any(axis=1, keepdims=True)
    flat = {key: np.ascontiguousarray(each[kept]) for key, each in by_walker.items()}
    logp = censored_logp(flat["actions"], flat["behaviour_action"], ACTION_NOISE)
    return Trajectories(
        name=name,
        **flat,
        terminations=np.zeros(len(logp), dtype=bool),
        episode_starts=np.concatenate([[0], np.flatnonzero(flat["truncations"]) + 1]),
        behaviour_id=np.zeros(len(logp), dtype=np.int64),
        behaviour_logp=logp.astype(np.float32),
        goal=flat["observations"][:, 4:].copy(),
        simulator_state=flat["observations"][:, :4].copy(),
    )


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
