"""A behaviour that commits to a route at once and takes it D steps later (`ablate.envs.forkcommit`).

`forkcommit/D[xF][-CUE]-v0`, for any delay D, with F forks one after another, each with a route of its own (left
out: one), and a CUE other than one at a fork's beginning: `shown` throughout, or `either`, where none is and both
arms are good, of which the behaviour keeps to one. These two are Markov.

Half the episodes take the arm up and half the arm down; both are
good, so long as it is the one shown at first. Up to the junction the actions are noise around 0, the
same for both routes, and nothing that is seen or done there tells which it is: the context needed
is D + 1 timesteps, and less is as good as none. One action in about D + 5 is the one that needs it: with
a large D, how long is trained matters as well.

The score is 100 times the return, of a fork: 100 for the policy the data come from, 50 for the best one that sees
K <= D timesteps (chance at the junction, but an arm at all events), -100 for one that can't make up
its mind. A head that answers with the mean of both routes is of the last kind, unless it
goes on to whatever side it happens to be on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, censored_logp, explore
from ablate.data.catalogue import Anchors, DataSpec, Family, always
from ablate.data.collect import collect
from ablate.data.exact import EARLY
from ablate.data.trajectories import Trajectories, action_variance
from ablate.envs.forkcommit import ACROSS, JUNCTION, PROGRESS, ROUTE, SPEED, Cue, ForkCommit
from ablate.errors import UserError, unknown
from ablate.registry import register

EPISODES = {"train": 400, "held_out": 100}  # as many up as down
ACTION_NOISE = 0.2
MAX_DELAY = 10_000


@register("data", "forkcommit", label="Fork-Commit")
class ForkCommits(Family):
    """400 training and 100 held-out episodes of about D + 5 timesteps a fork, routes balanced."""

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,3}))?(?:-(shown|either))?-v0", member)
        if found is None:
            raise unknown("data", name, self.names())
        number, delay = found[1], int(found[1])
        if not 1 <= delay <= MAX_DELAY or number != str(delay):
            raise UserError(f"data: '{name}' has delay {number}; allowed: 1 to {MAX_DELAY}.")
        forks = 1 if found[2] is None else int(found[2])
        if found[2] is not None and (forks < 2 or found[2] != str(forks)):
            raise UserError(
                f"data: '{name}' has {found[2]} forks; allowed: 2 to 999, or no number for one."
            )
        cue: Cue = "first" if found[3] is None else found[3]  # type: ignore[assignment]
        base = f"forkcommit/{member}"
        task = Task(delay, forks, cue)
        recipe = {
            "generator": "forkcommit",
            "version": 1,
            "delay": delay,
            "noise": ACTION_NOISE,
            "seed": 0,
        }
        if task != Task(delay):
            recipe |= {"forks": forks, "cue": cue}

        def generate() -> tuple[Trajectories, Trajectories]:
            return demonstrate(base, task, "train"), demonstrate(base, task, "held_out")

        return DataSpec(
            name=base,
            family="forkcommit",
            recipe=recipe | EPISODES,
            generate=generate,
            make_env=task.env,
            anchors=lambda: Anchors(
                0.0,
                float(forks),
                "100 times the return; the return of the policy the data come from is 1"
                if forks == 1
                else f"100 times the return of a fork; that of the policy the data come from is 1, of {forks}",
            ),
            best_policy=0,
            num_policies=1,
            yardstick=lambda part, anchors, context: yardstick(part, anchors, task, context),
            behaviour=lambda: Committed(cue == "either"),
            optimal=always(float(forks)),
        )

    def names(self) -> list[str]:
        members = [
            "5",
            "20",
            "80",
            "320",
            "5x4",
            "20x4",
            "80x4",
            "320x2",
            "20x4-shown",
            "20x4-either",
        ]
        return [f"forkcommit/{member}-v0" for member in members]


@dataclass(frozen=True)
class Task:
    """What the environment is told, see `ForkCommit`."""

    delay: int
    forks: int = 1
    cue: Cue = "first"

    def env(self, num_envs: int) -> ForkCommit:
        """The environment of so many episodes."""
        return ForkCommit(num_envs, self.delay, self.forks, self.cue)


class Committed(Behaviour):
    """Remembers the route shown at first, and takes it at the junction; noise everywhere.

    either: nothing is shown, and it makes up its mind at a fork's beginning.
    """

    def __init__(self, either: bool = False) -> None:
        self.either = either

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._route = np.sign(observation[:, ROUTE])

    def act(self, observation: np.ndarray) -> Acted:
        told = np.sign(observation[:, ROUTE])
        if self.either:
            begins = observation[:, PROGRESS] == 0.0
            told = np.where(begins, self._rng.choice([-1.0, 1.0], size=len(observation)), 0.0)
        self._route = np.where(told == 0.0, self._route, told)
        at_junction = observation[:, JUNCTION] > 0.5
        mean = np.where(at_junction, self._route, 0.0).astype(np.float32)[:, None]
        action = explore(mean, ACTION_NOISE, self._rng)
        ids = np.zeros(len(mean), dtype=np.int64)
        return Acted(action, ids, censored_logp(action, mean, ACTION_NOISE), mean)


def demonstrate(name: str, task: Task, part: str) -> Trajectories:
    """EPISODES[part] episodes, half of them of each route of the first fork. Their goals are the routes, where told."""
    wanted = EPISODES[part]
    shortest = task.forks * (task.delay + round(1 / SPEED))
    batch = 2 * wanted  # so that either route is drawn often enough
    made = collect(
        name,
        part,
        task.env,
        Committed(task.cue == "either"),
        batch * shortest,
        batch=batch,
    )
    assert made.simulator_state is not None
    route = made.simulator_state[made.episode_starts[:-1], 2]  # (E,)
    chosen = [np.flatnonzero(route == each)[: wanted // 2] for each in (-1, 1)]
    kept = made.select(np.sort(np.concatenate(chosen)))
    assert kept.simulator_state is not None
    return kept if task.cue == "either" else replace(kept, goal=kept.simulator_state[:, 2:])


def yardstick(
    held_out: Trajectories, anchors: Anchors, task: Task, context: int
) -> dict[str, float]:
    """Errors of the exact posterior mean, and the best score, given K timesteps and the time.

    The posterior mean is wrong, by 1, at a junction's first timestep only, and there only if the route
    is out of sight: one step later the sign of y is the route's, but for an error of 5 standard
    deviations of the noise.
    """
    timestep = held_out.timestep
    first = (held_out.observations[:, JUNCTION] > 0.5) & (held_out.observations[:, ACROSS] == 0.0)
    blind = task.cue == "either" or (task.cue == "first" and context <= task.delay)
    error = first & blind  # (T,), the squared error
    variance = action_variance(held_out)
    known = task.cue != "first" or context > task.delay
    return {
        "action_error": float(error.mean()) / variance,
        "action_error_early": float(error[timestep < EARLY].mean()) / variance,
        "score": float(anchors.score(task.forks * (1.0 if known else 0.5))),
    }
