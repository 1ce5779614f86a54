"""Minari's sets, where the user has them: `minari/D4RL/door/human-v2` and whatever else is there.

Looked for as Minari does: $MINARI_DATASETS_PATH (default ~/.minari/datasets) / namespace / name-vN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.formats.base import Contents
from ablate.data.formats.minari import (
    DATASET_ID,
    Environment,
    datasets_root,
    environment,
    inspect_minari,
    local_sets,
    read_metadata,
)
from ablate.data.split import HELD_OUT, hold_out
from ablate.data.trajectories import Trajectories
from ablate.envs.base import VectorEnv
from ablate.errors import UserError, unknown
from ablate.registry import register


@register("data", "minari")
class Minari(Family):
    """Local Minari sets, a tenth of the episodes held out; evaluated in the environment they name."""

    def resolve(self, member: str, name: str) -> DataSpec:
        folder = datasets_root() / member
        if not DATASET_ID.fullmatch(member) or not folder.is_dir():
            known = self.names()
            if known:
                raise unknown("data", name, known)
            raise UserError(
                f"data: '{name}' is not there; no Minari set lies in {datasets_root()}. Fetch one"
                " with `python -m ablate data fetch`, or set MINARI_DATASETS_PATH."
            )

        def build(about: dict[str, Any], num_envs: int) -> VectorEnv:
            return made(environment(folder, read_metadata(folder)), num_envs)

        return stored(name, {"file": member}, lambda label: inspect_minari(folder, label), build)

    def names(self) -> list[str]:
        return [f"minari/{found}" for found in local_sets(datasets_root())]


def stored(
    name: str,
    recipe: dict[str, Any],
    inspect: Callable[[str], Contents],
    build: Callable[[dict[str, Any], int], VectorEnv],
    label: str | None = None,
    known: Callable[[dict[str, Any]], Anchors | None] = lambda about: None,
) -> DataSpec:
    """The specification of a set that lies in a file of the user's.

    Args:
        name: the data set's full name.
        recipe: what names the file.
        inspect: reads it, given the name that its trajectories are to have.
        build: the environment of a number of episodes, given what the file says of itself.
        label: what the draw of the held-out episodes goes by, instead of `name`.
        known: anchors that don't come from the file's numbers, or None.
    """
    facts: list[_Facts] = []

    def look() -> Contents:
        found = inspect(label or name)
        data = found.trajectories
        dims = (data.observations.shape[1], data.actions.shape[1])
        ends = (float(data.returns.min()), float(data.returns.max()))
        facts[:] = [_Facts(found.about, dims, ends)]
        return found

    def fact() -> _Facts:
        if not facts:
            look()
        return facts[0]

    def generate() -> tuple[Trajectories, Trajectories]:
        train, held_out = hold_out(look().trajectories)
        return replace(train, name=name), replace(held_out, name=name)

    def make_env(num_envs: int) -> VectorEnv:
        env = build(fact().about, num_envs)
        dims = (env.observation_dim, env.action_dim)
        if dims != fact().dims:
            raise UserError(
                f"{name}: the environment that it names observes {dims[0]} numbers and acts with"
                f" {dims[1]}; the data have {fact().dims[0]} and {fact().dims[1]}."
            )
        return env

    return DataSpec(
        name=name,
        family=name.partition("/")[0],
        recipe={"reader": 1, **recipe, "held_out": HELD_OUT, "seed": 0},
        generate=generate,
        make_env=make_env,
        anchors=lambda: known(fact().about) or _anchors(name, fact()),
        cached=False,
    )


@dataclass(frozen=True)
class _Facts:
    """What is kept of a file that was read: numbers in an observation and an action, lowest and highest return."""

    about: dict[str, Any]
    dims: tuple[int, int]
    returns: tuple[float, float]


def made(found: Environment, num_envs: int) -> VectorEnv:
    """The environment behind the vectorised interface; raises UserError when it can't be made."""
    from ablate.envs.gymnasium_env import Gymnasium  # needs the simulators; only for evaluation

    return Gymnasium(num_envs, found.id, horizon=found.horizon, **found.kwargs)


def _anchors(name: str, facts: _Facts) -> Anchors:
    """The file's reference scores where it has some, else its worst and its best episode."""
    low, high = facts.about.get("anchor_low"), facts.about.get("anchor_high")
    if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
        return Anchors(float(low), float(high), str(facts.about.get("anchor_source", "the file")))
    if facts.returns[0] == facts.returns[1]:
        raise UserError(
            f"{name}: every episode has the return {facts.returns[0]:g} and no reference scores are"
            " recorded, so that scores can't be normalised."
        )
    source = "the lowest and the highest return in the data; no reference scores are recorded"
    return Anchors(*facts.returns, source)
