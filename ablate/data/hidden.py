"""Hiding part of the state, by degrees: what the text after the `@` of a data set's name says.

`NAME@mask-velocity+noise-0.1` hides velocities and adds noise. The parts, in the order in which they
act and are written (masks by the alphabet):

    mask-GROUP, mask-GROUP-F   a group of coordinates that the family names (velocity, position), or the
                               fraction F of it, rounded up
    mask-F                     the fraction F of all coordinates in groups (of all, where there are none)
    noise-S                    Gaussian noise of S standard deviations of each coordinate in the training data
    drop-P                     with probability P what was shown last is shown again; the first always is
    delay-D                    an action takes effect D steps after it is chosen; before the first, zeros do
    physics-S                  a physical parameter, drawn for each episode with relative spread S

What is masked at one fraction is masked at every higher one, what is dropped at one probability is dropped
at every higher one, and noise only changes its scale.

The behaviour is privileged: it saw everything. Masks, noise and drops are then views of the same
trajectories. With `:masked` at the end the behaviour itself sees only what is shown, hidden coordinates
replaced by their mean in the training data. That, delays and physics change what happens: such sets are
collected anew, as many transitions as the original has. Scores keep the original's anchors, so that what
hiding costs can be read off them.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories
from ablate.envs.base import MaskedEnv, VectorEnv
from ablate.envs.hidden import DelayedEnv, DroppedEnv, NoisyEnv
from ablate.errors import UserError

GRAMMAR = (
    "mask-GROUP, mask-GROUP-0.5, mask-0.5, noise-0.1, drop-0.2, delay-2, physics-0.3, joined by +,"
    " with :masked at the end for a behaviour that sees only what is shown"
)
MASKED = ":masked"
KINDS = ("mask", "noise", "drop", "delay", "physics")  # in the order in which they are written
LONGEST_DELAY = 1000  # steps
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Part:
    """One thing that hides: a kind, its strength, and for a mask the coordinates that it hides."""

    kind: str
    strength: float
    hides: tuple[int, ...] = ()


@dataclass(frozen=True)
class Hiding:
    """A parsed text.

    Attributes:
        text: as it stands behind the `@`. width: N, numbers in the whole observation.
        parts: in order. masked: whether the behaviour sees only what is shown.
    """

    text: str
    width: int
    parts: tuple[Part, ...]
    masked: bool

    @property
    def anew(self) -> bool:
        """Whether the data must be collected anew."""
        return self.masked or self.disturbs

    @property
    def disturbs(self) -> bool:
        """Whether the same actions have other effects, not only what is seen of them."""
        return any(part.kind in ("delay", "physics") for part in self.parts)

    @property
    def masks_only(self) -> bool:
        """Whether all it does is not to show coordinates of the same trajectories."""
        return not self.anew and all(part.kind == "mask" for part in self.parts)

    @property
    def observable(self) -> list[int]:
        """Coordinates that are shown, in order."""
        hidden = {i for part in self.parts for i in part.hides}
        return [i for i in range(self.width) if i not in hidden]

    @property
    def recipe(self) -> dict[str, object]:
        """What it adds to the recipe of the data that it changes."""
        if self.masks_only:
            return {"observable": self.observable}
        return {"hidden": self.text, "hidden_version": 1, "observable": self.observable}

    def wrap(self, env: VectorEnv, std: np.ndarray) -> VectorEnv:
        """The environment with the same things hidden; std (N,) of the training observations."""
        shown = list(range(self.width))
        for part in self.parts:
            if part.kind == "mask":
                kept = [i for i in shown if i not in part.hides]
                env = MaskedEnv(env, [shown.index(i) for i in kept])
                shown = kept
            elif part.kind == "noise":
                env = NoisyEnv(env, part.strength * std[shown])
            elif part.kind == "drop":
                env = DroppedEnv(env, part.strength)
            elif part.kind == "delay":
                env = DelayedEnv(env, int(part.strength))
        return env

    def view(self, base: Trajectories, part_name: str, name: str, std: np.ndarray) -> Trajectories:
        """The same trajectories as they are shown; what is random is a function of (base's name, part)."""
        made, shown = replace(base, name=name), list(range(self.width))
        for part in self.parts:
            key = f"{base.name}/{part_name}/{part.kind}"
            if part.kind == "mask":
                kept = [i for i in shown if i not in part.hides]
                made = made.observe([shown.index(i) for i in kept], name)
                shown = kept
            elif part.kind == "noise":
                made = add_noise(made, part.strength * std, shown, self.width, key)
            elif part.kind == "drop":
                made = drop(made, part.strength, key)
        return made


def add_noise(
    base: Trajectories, std: np.ndarray, shown: list[int], width: int, key: str
) -> Trajectories:
    """Independent noise on every observation; drawn for all `width` coordinates, whatever is shown."""
    rng = stream("data", 0, key)

    def noisy(array: np.ndarray) -> np.ndarray:
        drawn = rng.standard_normal((len(array), width), dtype=np.float32)[:, shown]
        return (array + std[shown].astype(np.float32) * drawn).astype(np.float32)

    last = base.final_observations
    observations = noisy(base.observations)
    return replace(
        base, observations=observations, final_observations=None if last is None else noisy(last)
    )


def drop(base: Trajectories, probability: float, key: str) -> Trajectories:
    """With `probability`, a row shows what the row before it showed; an episode's first is always shown."""
    rng = stream("data", 0, key)
    rows = np.arange(len(base.rewards))
    kept = rng.random(len(rows)) >= probability
    kept[base.episode_starts[:-1]] = True
    source = np.maximum.accumulate(np.where(kept, rows, 0))
    last = base.final_observations
    if last is not None:
        lost = rng.random(len(last)) < probability
        before = base.observations[source[base.episode_starts[1:] - 1]]
        last = np.where(lost[:, None], before, last)
    return replace(base, observations=base.observations[source], final_observations=last)


def parse(text: str, name: str, width: int, groups: dict[str, list[int]]) -> Hiding:
    """What `text` hides of observations with `width` numbers; `name` is the full name, for messages.

    Raises UserError with what is allowed.
    """
    masked = text.endswith(MASKED)
    texts = text.removesuffix(MASKED).split("+")
    parts = tuple(_part(one, name, width, groups) for one in texts)
    found = Hiding(text, width, parts, masked)
    # One way to write a thing, as the name is the identity of the data.
    order = sorted(range(len(parts)), key=lambda i: (KINDS.index(parts[i].kind), texts[i]))
    if order != list(range(len(parts))):
        better = "+".join(texts[i] for i in order) + MASKED * masked
        raise UserError(f"data: '{name}': write it as '{name.partition('@')[0]}@{better}'.")
    for (one, part), (other, after) in itertools.combinations(zip(texts, parts, strict=True), 2):
        again = (
            set(part.hides) & set(after.hides) if part.kind == "mask" else part.kind == after.kind
        )
        if part.kind == after.kind and again:
            raise UserError(f"data: '{name}': '{one}' and '{other}' hide the same; one is allowed.")
    if masked and all(part.kind in ("delay", "physics") for part in parts):
        raise UserError(
            f"data: '{name}': all is shown, so that {MASKED} changes nothing; leave it out."
        )
    if not found.observable:
        raise UserError(f"data: '{name}' hides every coordinate; at least one must be shown.")
    return found


def _part(text: str, name: str, width: int, groups: dict[str, list[int]]) -> Part:
    kind, _, rest = text.partition("-")
    named = ", ".join(f"mask-{group}" for group in groups) or "none with names"
    near = difflib.get_close_matches(text, [f"mask-{group}" for group in groups], n=1)
    hint = f" Did you mean '{name.partition('@')[0]}@{near[0]}'?" if near else ""
    problem = f"data: '{name}': '{text}' hides nothing known; allowed: {GRAMMAR}. Groups here: {named}.{hint}"
    if kind == "mask":
        group, _, number = rest.rpartition("-")
        if rest in groups:
            fraction, coordinates = 1.0, groups[rest]
        elif group in groups:
            fraction, coordinates = _number(number, problem), groups[group]
            if fraction == 1:
                raise UserError(f"data: '{name}': '{text}' is written 'mask-{group}'.")
        else:
            fraction = _number(rest, problem)
            coordinates = sorted({i for each in groups.values() for i in each}) or list(
                range(width)
            )
        if not 0 < fraction <= 1:
            raise UserError(f"data: '{name}': a fraction is {fraction:g}; above 0, at most 1.")
        order = nested_order(coordinates, width)
        return Part("mask", fraction, tuple(sorted(order[: math.ceil(fraction * len(order))])))
    if kind not in KINDS:
        raise UserError(problem)
    strength = _number(rest, problem)
    limits: dict[str, tuple[Callable[[float], bool], str]] = {
        "noise": (lambda s: s > 0, "above 0"),
        "drop": (lambda s: 0 < s < 1, "above 0, below 1"),
        "delay": (
            lambda s: 1 <= s <= LONGEST_DELAY and s == int(s),
            f"a whole number of steps, 1 to {LONGEST_DELAY}",
        ),
        "physics": (lambda s: 0 < s < 1, "above 0, below 1"),
    }
    allowed, said = limits[kind]
    if not allowed(strength):
        raise UserError(f"data: '{name}': {kind} is {rest}; allowed: {said}.")
    return Part(kind, strength)


def nested_order(coordinates: list[int], width: int) -> list[int]:
    """The fixed, random order in which coordinates of an observation of `width` numbers are hidden."""
    order = stream("data", 0, f"mask-order/{width}").permutation(width).tolist()
    return [i for i in order if i in set(coordinates)]


def _number(text: str, problem: str) -> float:
    # One way to write a number, as the name is the identity of the data.
    if not _NUMBER.fullmatch(text) or f"{float(text):g}" != text:
        raise UserError(problem)
    return float(text)
