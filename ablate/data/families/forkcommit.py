"""A behaviour that commits to a route at t = 0 and takes it D steps later (`ablate.envs.forkcommit`).

`forkcommit/D-v0`, for any delay D. Half the episodes take the arm up and half the arm down; both are
good, so long as it is the one shown at first. Up to the junction the actions are noise around 0, the
same for both routes, and nothing that is seen or done there tells which it is: the context needed
is D + 1 timesteps, and less is as good as none. One action in about D + 5 is the one that needs it: with
a large D, how long is trained matters as well.

The score is 100 times the return: 100 for the policy the data come from, 50 for the best one that sees
K <= D timesteps (chance at the junction, but an arm at all events), -100 for one that can't make up
its mind. A head that answers with the mean of both routes is of the last kind, unless it
goes on to whatever side it happens to be on.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, censored_logp, explore
from ablate.data.catalogue import Anchors, DataSpec, Family, always
from ablate.data.collect import collect
from ablate.data.exact import EARLY
from ablate.data.trajectories import Trajectories, action_variance
from ablate.envs.forkcommit import JUNCTION, ROUTE, SPEED, ForkCommit
from ablate.errors import UserError, unknown
from ablate.registry import register

EPISODES = {"train": 400, "held_out": 100}  # as many up as down
ACTION_NOISE = 0.2
MAX_DELAY = 10_000


@register("data", "forkcommit", label="Fork-Commit")
class ForkCommits(Family):
    """400 training and 100 held-out episodes of about D + 5 timesteps, routes balanced."""

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(r"([0-9]{1,9})-v0", member)
        if found is None:
            raise unknown("data", name, self.names())
        number, delay = found[1], int(found[1])
        if not 1 <= delay <= MAX_DELAY or number != str(delay):
            raise UserError(f"data: '{name}' has delay {number}; allowed: 1 to {MAX_DELAY}.")
        base = f"forkcommit/{member}"

        def generate() -> tuple[Trajectories, Trajectories]:
            return demonstrate(base, delay, "train"), demonstrate(base, delay, "held_out")

        def make_env(num_envs: int) -> ForkCommit:
            return ForkCommit(num_envs, delay)

        return DataSpec(
            name=base,
            family="forkcommit",
            recipe={
                "generator": "forkcommit",
                "version": 1,
                "delay": delay,
                "noise": ACTION_NOISE,
                "seed": 0,
                **EPISODES,
            },
            generate=generate,
            make_env=make_env,
            anchors=lambda: Anchors(
                0.0, 1.0, "100 times the return; the return of the policy the data come from is 1"
            ),
            best_policy=0,
            num_policies=1,
            yardstick=lambda part, anchors, context: yardstick(part, anchors, delay, context),
            behaviour=Committed,
            optimal=always(1.0),
        )

    def names(self) -> list[str]:
        return [f"forkcommit/{delay}-v0" for delay in (5, 20, 80, 320)]


class Committed(Behaviour):
    """Remembers the route shown at first, and takes it at the junction; noise everywhere."""

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._route = np.sign(observation[:, ROUTE])

    def act(self, observation: np.ndarray) -> Acted:
        at_junction = observation[:, JUNCTION] > 0.5
        mean = np.where(at_junction, self._route, 0.0).astype(np.float32)[:, None]
        action = explore(mean, ACTION_NOISE, self._rng)
        ids = np.zeros(len(mean), dtype=np.int64)
        return Acted(action, ids, censored_logp(action, mean, ACTION_NOISE), mean)


def demonstrate(name: str, delay: int, part: str) -> Trajectories:
    """EPISODES[part] episodes, half of them of each route."""
    wanted = EPISODES[part]
    shortest = delay + round(1 / SPEED)
    batch = 2 * wanted  # so that either route is drawn often enough
    made = collect(
        name,
        part,
        lambda num_envs: ForkCommit(num_envs, delay),
        Committed(),
        batch * shortest,
        batch=batch,
    )
    route = made.observations[made.episode_starts[:-1], ROUTE]  # (E,)
    chosen = [np.flatnonzero(route == each)[: wanted // 2] for each in (-1, 1)]
    kept = made.select(np.sort(np.concatenate(chosen)))
    kept_route = kept.observations[kept.episode_starts[:-1], ROUTE]
    return replace(kept, goal=np.repeat(kept_route, kept.lengths)[:, None])


def yardstick(
    held_out: Trajectories, anchors: Anchors, delay: int, context: int
) -> dict[str, float]:
    """Errors of the exact posterior mean, and the best score, given K timesteps and the time.

    The posterior mean is wrong, by 1, at the junction's first timestep only, and there only if the route
    is out of sight: one step later the sign of y is the route's, but for an error of 5 standard
    deviations of the noise.
    """
    timestep = held_out.timestep
    error = (timestep == delay) & (context <= delay)  # (T,), the squared error
    variance = action_variance(held_out)
    return {
        "action_error": float(error.mean()) / variance,
        "action_error_early": float(error[timestep < EARLY].mean()) / variance,
        "score": float(anchors.score(1.0 if context > delay else 0.5)),
    }
