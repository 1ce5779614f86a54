"""Demonstrations in the T-Mazes: walk the corridor (active: ask the oracle first), then take an arm.

`tmaze/passive-L` and `tmaze/active-L` for any corridor length L: the expert takes the goal's arm.
`tmaze/passive-L-blind` and `tmaze/active-L-blind`: the same walk by a demonstrator that forgets what
the oracle said and takes either arm, so that half of the episodes fail. There the past says nothing
about the actions, only about the return: imitation gains nothing from memory, and an action that
shall earn a given return needs it.

Actions are one-hot over (right, up, left, down), scaled to -1 and +1. The score is 100 times the
return: 100 for the expert, 50 for the best policy without memory (chance at the junction), at most
0 for one that never moves; for a policy that doesn't dawdle, 100 times its success rate.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, one_hot
from ablate.data.catalogue import Anchors, DataSpec, Family, always
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.envs.tmaze import DOWN, LEFT, MOVES, RIGHT, UP, ActiveTMaze, PassiveTMaze, TMaze, goals
from ablate.errors import UserError, unknown
from ablate.registry import register

MAZES = {"passive": PassiveTMaze, "active": ActiveTMaze}
EPISODES = {"train": 400, "held_out": 100}
# First seeds of the two parts; even, so that each part has as many goals up as down.
FIRST_SEED = {"train": 1 << 40, "held_out": 1 << 41}
MAX_LENGTH = 10_000
KNOWN_LENGTHS = (10, 20, 50, 100, 250, 500, 1000, 1500)


@register("data", "tmaze", label="T-Maze")
class TMazes(Family):
    """400 training and 100 held-out episodes, goals balanced."""

    words: ClassVar = {r"passive-(\d+)": r"\1 steps"}

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(r"(passive|active)-([0-9]+)(-blind)?", member)
        if not found:
            raise unknown("data", name, self.names())
        kind, number, blind = found[1], found[2], found[3] is not None
        length = int(number)
        if not 1 <= length <= MAX_LENGTH or number != str(length):
            raise UserError(
                f"data: '{name}' has corridor length {number}; allowed: 1 to {MAX_LENGTH}."
            )
        base = name.partition("@")[0]

        def behaviour() -> Demonstrator:
            return Demonstrator(make_env(1).oracle_distance, blind)

        def generate() -> tuple[Trajectories, Trajectories]:
            # The passive expert's sets are older than final observations, and stay as they are.
            final = (kind, blind) != ("passive", False)
            train, held_out = (
                demonstrate(base, part, make_env(EPISODES[part]), behaviour(), final)
                for part in ("train", "held_out")
            )
            return train, held_out

        def make_env(num_envs: int) -> TMaze:
            return MAZES[kind](num_envs, length)

        more: dict[str, Any] = {} if kind == "passive" else {"maze": kind}
        if blind:
            more["blind"] = True
        return DataSpec(
            name=base,
            family="tmaze",
            recipe={
                "generator": "tmaze",
                "version": 1,
                "length": length,
                "first_seed": FIRST_SEED,
                **EPISODES,
                **more,
            },
            generate=generate,
            make_env=make_env,
            anchors=lambda: Anchors(0.0, 1.0, "100 times the return; the expert's return is 1"),
            best_policy=0,
            num_policies=1,
            behaviour=behaviour,
            optimal=always(1.0),
        )

    def names(self) -> list[str]:
        lengths = [f"tmaze/{kind}-{length}" for kind in MAZES for length in KNOWN_LENGTHS]
        return [*lengths, *(f"tmaze/{kind}-20-blind" for kind in MAZES)]


class Demonstrator(Behaviour):
    """Left to the oracle, right along the corridor, then into the goal's arm.

    Reads the observation that the maze shows: two numbers; further ones are ignored. It remembers
    what the oracle said; where it was told nothing (the sign was hidden, or it is `blind`), the arm
    is drawn once an episode, with equal probability, and its action without noise there is the mean
    of both.
    """

    def __init__(self, oracle_distance: int, blind: bool = False) -> None:
        self.oracle_distance = oracle_distance
        self.blind = blind

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._time = 0
        self._told = np.zeros(len(observation), dtype=np.int64)  # in {-1, 0, +1}
        self._coin = 2 * rng.integers(2, size=len(observation)) - 1
        self._drawn = np.zeros(len(observation), dtype=bool)  # the arm is, from the second turn on

    def act(self, observation: np.ndarray) -> Acted:
        at_junction = observation[:, 0] > 0.5
        sign = np.where(np.abs(observation[:, 1]) > 0.5, np.sign(observation[:, 1]), 0)
        if not self.blind:
            self._told = np.where(at_junction | (sign == 0), self._told, sign).astype(np.int64)
        arm = np.where(self._told == 0, self._coin, self._told)
        asking = self._time < self.oracle_distance
        turning = at_junction & (not asking)
        ahead = LEFT if asking else RIGHT
        moves = np.where(turning, np.where(arm > 0, UP, DOWN), ahead)
        self._time += 1
        actions = one_hot(moves, len(MOVES))  # (B, 4)
        drawn = turning & (self._told == 0) & ~self._drawn
        self._drawn |= drawn
        either = one_hot(np.full(len(moves), UP), len(MOVES))
        either[:, [UP, DOWN]] = 0.0  # one half each
        return Acted(
            actions=actions,
            ids=np.zeros(len(actions), dtype=np.int64),
            logp=np.where(drawn, np.log(0.5), 0.0),
            mean=np.where(drawn[:, None], either, actions),
        )


def demonstrate(
    name: str, part: str, env: TMaze, behaviour: Behaviour, final: bool
) -> Trajectories:
    """One episode of each of the part's seeds, in order; with `final`, what is seen last too."""
    episodes, horizon = env.num_envs, env.horizon
    seeds = list(range(FIRST_SEED[part], FIRST_SEED[part] + episodes))
    observation = env.reset(seeds)
    behaviour.start(observation, stream("data", 0, f"{name}/{part}"))
    log: dict[str, list[np.ndarray]] = {}
    for _ in range(horizon):
        acted = behaviour.act(observation)
        row = {
            "observations": observation,
            "actions": acted.actions,
            "behaviour_logp": acted.logp,
            "behaviour_action": acted.mean,
        }
        observation, row["rewards"], row["terminations"], row["truncations"], _ = env.step(
            acted.actions
        )
        for key, value in row.items():
            assert value is not None
            log.setdefault(key, []).append(value)
    flat = {}
    for key, each in log.items():
        rows = np.stack(each, axis=1)  # (B, T, ...)
        rows = rows.astype(np.float32) if rows.dtype.kind == "f" else rows
        flat[key] = rows.reshape(episodes * horizon, *rows.shape[2:])
    assert flat["terminations"].reshape(episodes, horizon)[:, -1].all()
    return Trajectories(
        name=name,
        **flat,
        episode_starts=np.arange(episodes + 1) * horizon,
        behaviour_id=np.zeros(episodes * horizon, dtype=np.int64),
        goal=np.repeat(goals(seeds), horizon).astype(np.float32)[:, None],
        final_observations=observation if final else None,
    )
