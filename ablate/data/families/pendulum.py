"""Pendulums that are pumped to an energy: provably Markov, with noise, one of them chaotic.

`pendulum/single-v0`: towards the energy of standing upright; `pendulum/double-v0`: towards that of both links level,
in the midst of the chaotic motions. 1,000 training and 100 held-out episodes of 200 steps; `pendulum/double-100-v0`
has 100 training episodes. The score is 0 for an idle motor and 100 for the behaviour without its noise.
"""

from __future__ import annotations

import functools
import re
from typing import ClassVar

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, censored_logp, explore
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.collect import collect
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.envs.pendulum import GRAVITY, HORIZON, DoublePendulum, Pendulum
from ablate.errors import UserError, unknown
from ablate.registry import register

KINDS: dict[str, type[Pendulum]] = {"single": Pendulum, "double": DoublePendulum}
WANTED = {"single": GRAVITY, "double": 0.0}  # J, see `Pendulum.energy`
GAIN = 0.1  # of the action, for each J that is lacking and each rad/s of the shoulder
EXPLORATION = 0.3  # standard deviation of the action
TRAIN, HELD_OUT, MOST = 1000, 100, 100_000  # episodes
ANCHOR_EPISODES = 200


@register("data", "pendulum", label="Pendulum")
class Pendulums(Family):
    """`pendulum/KIND[-EPISODES]-v0`."""

    words: ClassVar = {"single-v0": "single", "double-v0": "double"}

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(r"(single|double)(?:-([1-9][0-9]*))?-v0", member)
        if not found:
            raise unknown("data", name, self.names())
        kind, episodes = found[1], int((found[2] or str(TRAIN))[:9])
        if episodes > MOST:
            raise UserError(f"data: '{name}' has {episodes} episodes; allowed: 1 to {MOST}.")
        base = f"pendulum/{member}"

        def part(which: str, count: int) -> Trajectories:
            return collect(base, which, KINDS[kind], Pump(kind), count * HORIZON)

        return DataSpec(
            name=base,
            family="pendulum",
            recipe={
                "generator": "pendulum",
                "version": 1,
                "kind": kind,
                "train": episodes,
                "held_out": HELD_OUT,
                "seed": 0,
            },
            generate=lambda: (part("train", episodes), part("held_out", HELD_OUT)),
            make_env=KINDS[kind],
            anchors=lambda: anchors(kind),
            best_policy=0,
            num_policies=1,
            behaviour=lambda: Pump(kind),
        )

    def names(self) -> list[str]:
        return [f"pendulum/{kind}-v0" for kind in KINDS]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        links = KINDS[member.partition("-")[0]].links
        return {
            "position": list(range(2 * links)),
            "velocity": list(range(2 * links, 3 * links)),
        }


class Pump(Behaviour):
    """Turns the shoulder the way it goes where energy is lacking, and against it where there is too much.

    noise: standard deviation of its exploration.
    """

    def __init__(self, kind: str, noise: float = EXPLORATION) -> None:
        self._kind, self._noise = kind, noise

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng

    def act(self, observation: np.ndarray) -> Acted:
        env = KINDS[self._kind]
        seen = observation.astype(np.float64)
        pairs, speeds = seen[:, : 2 * env.links], seen[:, 2 * env.links :]
        angles = np.arctan2(pairs[:, 1::2], pairs[:, ::2])
        lacking = WANTED[self._kind] - env.energy(np.concatenate([angles, speeds], axis=1))
        mean = np.clip(GAIN * lacking * speeds[:, 0], -1.0, 1.0).astype(np.float32)[:, None]
        ids = np.zeros(len(mean), dtype=np.int64)
        if not self._noise:
            return Acted(mean, ids, mean=mean)
        actions = explore(mean, self._noise, self._rng)
        return Acted(actions, ids, censored_logp(actions, mean, self._noise), mean)


@functools.cache
def anchors(kind: str) -> Anchors:
    """Mean returns of an idle motor (score 0) and of the noise-free pump (100)."""
    seeds = stream("data", 0, f"anchors/pendulum/{kind}").integers(1 << 62, size=ANCHOR_EPISODES)

    def mean_return(pump: Pump | None) -> float:
        env = KINDS[kind](ANCHOR_EPISODES)
        seen, total = env.reset(seeds.tolist()), np.zeros(ANCHOR_EPISODES)
        for _ in range(HORIZON):
            action = np.zeros((ANCHOR_EPISODES, 1)) if pump is None else pump.act(seen).actions
            seen, rewards, *_ = env.step(action)
            total += rewards
        return float(total.mean())

    return Anchors(
        low=mean_return(None),
        high=mean_return(Pump(kind, noise=0.0)),
        source=f"mean returns of an idle motor and of the behaviour without its noise, {ANCHOR_EPISODES} episodes",
    )
