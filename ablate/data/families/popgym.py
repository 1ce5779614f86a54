"""Data of POPGym's tasks, collected in the real package `popgym` (an optional extra).

`popgym/TASK-DIFFICULTY/random-v0`: uniformly random actions. `popgym/TASK-DIFFICULTY/expert-v0`: a
scripted expert; the card games' remembers exactly what was shown and returns 1, cart-pole's and
pendulum's also sees the hidden velocities. About 100,000 training timesteps each.

Score 0 is the mean return of uniformly random actions. Score 100 is the best possible return, 1, for
the card games and cart-pole, and the expert's for the pendulum. Seeing the present observation only,
and not the time, is worth next to nothing in the card games: with C cards in the deck, the best
returns are -1/2 + 3 / (2 (C - 1)^2) in RepeatFirst, -1/2 + 1 / (2 (C - 1)) in RepeatPrevious and
-1/2 + 3 / (2 C) in Autoencode, where random actions return -1/2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ablate.data.behaviour import Behaviour, UniformBehaviour, UniformChoice
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.collect import collect
from ablate.data.popgym_experts import (
    BackwardsCards,
    CartPoleFeedback,
    Counter,
    FirstCard,
    PendulumSwingUp,
    PreviousCard,
)
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.envs.popgym import CARDS, DIFFICULTIES, PopGym
from ablate.errors import unknown
from ablate.registry import register

STEPS = {"train": 100_000, "held_out": 20_000}
BEHAVIOURS = ("random", "expert")
ANCHOR_EPISODES = 400
# Our names of POPGym's tasks.
TASKS = {
    "repeat-first": "RepeatFirst",
    "repeat-previous": "RepeatPrevious",
    "autoencode": "Autoencode",
    "count-recall": "CountRecall",
    "position-only-cartpole": "PositionOnlyCartPole",
    "noisy-position-only-cartpole": "NoisyPositionOnlyCartPole",
    "position-only-pendulum": "PositionOnlyPendulum",
    "noisy-position-only-pendulum": "NoisyPositionOnlyPendulum",
}
# POPGym's difficulties, by number: easy, medium, hard.
RECALL = (4, 32, 64)  # RepeatPrevious: k
CARDS_SEEN = (52, 104, 156)  # Autoencode: cards in the decks
COUNTED = ((2, 27), (4, 27), (13, 17))  # CountRecall: kinds of cards, possible counts


@register("data", "popgym", label="POPGym")
class PopGyms(Family):
    """A random behaviour and a scripted expert for every task and difficulty."""

    def resolve(self, member: str, name: str) -> DataSpec:
        task, _, rest = member.partition("/")
        kind = rest.removesuffix("-v0")
        if f"popgym/{member}" not in self.names():
            raise unknown("data", name, self.names())
        ours, _, difficulty = task.rpartition("-")
        game, level = TASKS[ours], [each.lower() for each in DIFFICULTIES].index(difficulty)
        base = f"popgym/{member}"

        def make_env(num_envs: int) -> PopGym:
            return PopGym(num_envs, game + DIFFICULTIES[level])

        def behaviour() -> Behaviour:
            return expert(game, level) if kind == "expert" else uniform(game, level)

        def generate() -> tuple[Trajectories, Trajectories]:
            # The card games' hidden state is wide, and their experts don't need it.
            privileged = kind == "expert" and game not in CARDS
            train, held_out = (
                collect(base, part, make_env, behaviour(), steps, privileged=privileged)
                for part, steps in STEPS.items()
            )
            return train, held_out

        return DataSpec(
            name=base,
            family="popgym",
            recipe={
                "generator": "popgym",
                "version": 1,
                "task": game + DIFFICULTIES[level],
                "behaviour": kind,
                **STEPS,
                "anchor_episodes": ANCHOR_EPISODES,
                "seed": 0,
            },
            generate=generate,
            make_env=make_env,
            anchors=lambda: anchors(game, level),
            best_policy=0,
            num_policies=1,
            behaviour=behaviour,
        )

    def names(self) -> list[str]:
        return [
            f"popgym/{task}-{difficulty.lower()}/{kind}-v0"
            for task in TASKS
            for difficulty in DIFFICULTIES
            for kind in BEHAVIOURS
        ]


def choices(game: str, level: int) -> int:
    """Number of discrete actions, 0 for the pendulum's torque."""
    if game.endswith("Pendulum"):
        return 0
    return {"CountRecall": COUNTED[level][1]}.get(game, 2 if game.endswith("CartPole") else 4)


def uniform(game: str, level: int) -> Behaviour:
    """Uniformly random actions."""
    count = choices(game, level)
    return UniformChoice(count) if count else UniformBehaviour(1)


def expert(game: str, level: int) -> Behaviour:
    """The scripted expert of POPGym's `game` at a difficulty, 0 to 2."""
    makers: dict[str, Callable[[], Behaviour]] = {
        "RepeatFirst": FirstCard,
        "RepeatPrevious": lambda: PreviousCard(RECALL[level]),
        "Autoencode": lambda: BackwardsCards(CARDS_SEEN[level]),
        "CountRecall": lambda: Counter(*COUNTED[level]),
    }
    control = CartPoleFeedback if game.endswith("CartPole") else PendulumSwingUp
    return makers.get(game, control)()


def anchors(game: str, level: int) -> Anchors:
    """Mean return of random actions, and the best: exact where it is known, else measured.

    A guess is right with probability 1 / choices and earns as much as a wrong one costs, and the
    best return is 1. In cart-pole every step that the pole stands earns the same, 1 in all. The
    noisy tasks differ from the easy ones in what is shown only, at any difficulty.
    """
    if game in CARDS:
        low = 2.0 / choices(game, level) - 1.0
        return Anchors(low, 1.0, "the exact mean return of random actions, and the best return")
    if game.startswith("Noisy"):
        game, level = game.removeprefix("Noisy"), 0
    low = mean_return(game, level, "random")
    measured = f"over {ANCHOR_EPISODES} episodes"
    if game.endswith("CartPole"):
        return Anchors(low, 1.0, f"mean return of random actions {measured}, and the best return")
    high = mean_return(game, level, "expert")
    return Anchors(
        low, high, f"mean returns of random actions and of the swing-up controller, {measured}"
    )


@functools.cache
def mean_return(game: str, level: int, kind: str) -> float:
    """Mean return of ANCHOR_EPISODES episodes of `random` or `expert` behaviour, the same starts."""
    env = PopGym(ANCHOR_EPISODES, game + DIFFICULTIES[level])
    rng = stream("data", 0, f"popgym/anchors/{game}{DIFFICULTIES[level]}")
    who = expert(game, level) if kind == "expert" else uniform(game, level)
    env.reset(rng.integers(1 << 62, size=ANCHOR_EPISODES).tolist())
    who.start(env.full_observation(), rng)
    total, over = np.zeros(ANCHOR_EPISODES), np.zeros(ANCHOR_EPISODES, dtype=bool)
    while not over.all():
        acted = who.act(env.full_observation())
        _, rewards, terminations, truncations, _ = env.step(acted.actions)
        total += rewards
        over = terminations | truncations
    return float(total.mean())
