"""Half-good trajectories that share a corridor: is the whole way put together from two halves?

D4RL's waypoint controller walks from A or B through a corridor of S cells to the good or the bad goal
(`ablate.envs.stitch`), with noise of 0.5 on its actions. The score is 100 times the rate at which the
good goal is reached from A. No goal is shown.

`stitch/apart-S-v0`: from A always to the bad goal, from B always to the good one. Nobody walks the
whole way from A to the good goal; it can only be stitched, in the corridor.
`stitch/whole-S-v0`: the goal is drawn independently of the start. Starts, goals, and what is done
in each half are distributed as above; only which halves belong together differs. whole-S minus
apart-S is what stitching costs.

What to expect: cloning with perfect memory scores 0 on apart-S, it recalls whence it came; cloning that
has forgotten this by the end of the corridor scores 50 on both. Position and velocity at the end of the
corridor tell nothing about the start; those of 20, 30 and 40 steps before tell it in 61 %, 91 % and 98 %
of the episodes if S = 1 (measured, nearest neighbours), and each further cell takes 25 steps more. All
returns from A are 0 on apart-S, so that asking for a return of 1 there is a question that the data don't
answer. behaviour_id is 0 for who heads for the good goal, 1 for the bad one.

In the spirit of the point-mass sets "stitch" of Brandfonbrener et al. (2022), "When does
return-conditioned supervised learning work for offline reinforcement learning?", and of the two kinds
of half-good trajectories of Zhou et al. (2023), "Free from Bellman completeness"; the maze and the
control by independent goals are our own.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from ablate.data.catalogue import Anchors, DataSpec, Family, always
from ablate.data.collect import collect
from ablate.data.trajectories import Trajectories
from ablate.data.waypoints import Aim, Walker
from ablate.envs.pointmaze import POSITIONS, VELOCITIES
from ablate.envs.stitch import MAX_SHARED, Stitch, goals_of, stitch_map
from ablate.errors import UserError, unknown
from ablate.registry import register

KINDS = ("apart", "whole")
GOOD, BAD = 0, 1
STEPS = {"train": 150_000, "held_out": 30_000}
ACTION_NOISE = 0.5
BATCH = 250  # episodes at once


@register("data", "stitch", label="Stitch")
class StitchSets(Family):
    """150,000 training and 30,000 held-out timesteps, of 150 to 350 an episode for S from 1 to 8."""

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(r"([a-z]+)-([0-9]{1,9})-v0", member)
        if found is None or found[1] not in KINDS:
            raise unknown("data", name, self.names())
        kind, shared = found[1], int(found[2])
        if not 1 <= shared <= MAX_SHARED or found[2] != str(shared):
            raise UserError(
                f"data: '{name}' has a corridor of {found[2]} cells; allowed: 1 to {MAX_SHARED}."
            )
        base = f"stitch/{member}"

        def generate() -> tuple[Trajectories, Trajectories]:
            return demonstrate(base, kind, shared, "train"), demonstrate(
                base, kind, shared, "held_out"
            )

        def make_env(num_envs: int) -> Stitch:
            return Stitch(num_envs, shared)

        return DataSpec(
            name=base,
            family="stitch",
            recipe={
                "generator": "stitch",
                "version": 1,
                "kind": kind,
                "shared": shared,
                "steps": STEPS,
                "noise": ACTION_NOISE,
                "batch": BATCH,
                "seed": 0,
            },
            generate=generate,
            make_env=make_env,
            anchors=lambda: Anchors(
                0.0,
                1.0,
                "100 times the rate at which the good goal is reached from A: 100 for who walks there,"
                f" {50 if kind == 'whole' else 0} for the policy the data come from",
            ),
            best_policy=GOOD,
            num_policies=2,
            optimal=always(1.0),
        )

    def names(self) -> list[str]:
        return [f"stitch/{kind}-{shared}-v0" for shared in (1, 2, 4) for kind in KINDS]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        return {"position": POSITIONS, "velocity": VELOCITIES}


def demonstrate(name: str, kind: str, shared: int, part: str) -> Trajectories:
    """Episodes from A and B, equally likely."""
    made = collect(
        name,
        part,
        lambda num_envs: Stitch(num_envs, shared, "AB"),
        Walker(stitch_map(shared), ACTION_NOISE, heading(kind, shared)),
        STEPS[part],
        batch=BATCH,
    )
    assert made.behaviour_id is not None
    return replace(made, name=name, goal=goals_of(shared)[made.behaviour_id].astype(np.float32))


def heading(kind: str, shared: int) -> Aim:
    """Which goal to head for, given the first observation."""

    def aim(first: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        from_a = first[:, 1] > 0
        ids = np.where(from_a, BAD, GOOD)
        if kind == "whole":
            ids = rng.integers(2, size=len(first))
        return goals_of(shared)[ids], ids.astype(np.int64)

    return aim
