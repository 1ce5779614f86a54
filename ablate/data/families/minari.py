"""Minari's sets, where the user has them: `minari/D4RL/door/human-v2` and whatever else is there.

Looked for as Minari does: $MINARI_DATASETS_PATH (default ~/.minari/datasets) / namespace / name-vN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablate import registry
from ablate.data import catalogue
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
from ablate.data.reading import AS_IT_IS, Reading
from ablate.data.split import HELD_OUT, hold_out
from ablate.data.trajectories import Trajectories
from ablate.envs.base import VectorEnv
from ablate.errors import UserError, unknown
from ablate.registry import register


@register("data", "minari", label="Minari")
class Minari(Family):
    """Local Minari sets, a tenth of the episodes held out; evaluated in the environment they name."""

    def resolve(self, member: str, name: str, reading: Reading = AS_IT_IS) -> DataSpec:
        folder = datasets_root() / member
        if not DATASET_ID.fullmatch(member) or not folder.is_dir():
            known = self.names()
            if known:
                raise unknown("data", name, known)
            raise UserError(
                f"data: '{name}' is not there; no Minari set lies in {datasets_root()}. Fetch one"
                " with `python -m ablate data fetch`, or set MINARI_DATASETS_PATH."
            )

        def read(label: str) -> Contents:
            return inspect_minari(folder, label, reading)

        def metadata() -> dict[str, Any]:
            return read_metadata(folder)

        return stored(name, {"file": member}, folder, read, metadata, reading)

    def names(self) -> list[str]:
        return [f"minari/{found}" for found in local_sets(datasets_root())]


def stored(
    name: str,
    recipe: dict[str, Any],
    path: Path,
    inspect: Callable[[str], Contents],
    metadata: Callable[[], dict[str, Any]],
    reading: Reading = AS_IT_IS,
    label: str | None = None,
) -> DataSpec:
    """The specification of a set that lies in a file of the user's.

    Its environment is one of our data sets', where the file names one (its anchors are then used
    too), else gymnasium's.

    Args:
        name: the data set's full name.
        recipe: what names the file.
        path: where it lies, for messages.
        inspect: reads it, given the name that its trajectories are to have.
        metadata: Minari's, empty for other formats.
        reading: what the file leaves open.
        label: what the draw of the held-out episodes goes by, instead of `name`.
    """
    facts: list[_Facts] = []

    def look() -> Contents:
        found = inspect(label or name)
        if reading.environment is not None:
            found.about["environment"] = reading.environment
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
        train, held_out = hold_out(look().trajectories, reading.held_out)
        return replace(train, name=name), replace(held_out, name=name)

    def make_env(num_envs: int) -> VectorEnv:
        base = _ours(fact().about)
        if base is None:
            found = _environment(path, fact().about, metadata(), reading)
            env = _made(found, num_envs)
        else:
            env = base.make_env(num_envs)
        dims = (env.observation_dim, env.action_dim)
        if dims != fact().dims:
            raise UserError(
                f"{name}: the environment that it names observes {dims[0]} numbers and acts with"
                f" {dims[1]}; the data have {fact().dims[0]} and {fact().dims[1]}."
            )
        return env

    def anchors() -> Anchors:
        base = _ours(fact().about)
        return _anchors(name, fact()) if base is None else base.anchors()

    return DataSpec(
        name=name,
        family=name.partition("/")[0],
        recipe={"reader": 1, **recipe, "held_out": HELD_OUT, "seed": 0, **reading.said},
        generate=generate,
        make_env=make_env,
        anchors=anchors,
        cached=False,
    )


@dataclass(frozen=True)
class _Facts:
    """What is kept of a file that was read: numbers in an observation and an action, lowest and highest return."""

    about: dict[str, Any]
    dims: tuple[int, int]
    returns: tuple[float, float]


def _ours(about: dict[str, Any]) -> DataSpec | None:
    """The data set of ours that a file names as its environment; None where it names none."""
    name = str(about.get("environment", ""))
    family = name.partition("/")[0]
    if family in ("file", "minari") or family not in registry.names("data"):
        return None
    return catalogue.spec(name)


def _environment(
    path: Path, about: dict[str, Any], metadata: dict[str, Any], reading: Reading
) -> Environment:
    """The one that was asked for, else as Minari specifies it, else by the name in the file's attributes."""
    if reading.environment is not None:
        return Environment(reading.environment, horizon=reading.horizon)
    name = about.get("environment")
    if metadata.get("eval_env_spec") or metadata.get("env_spec"):
        found = environment(path, metadata)
    elif isinstance(name, str) and name:
        found = environment(path, {"env_spec": {"id": name}})
    else:
        raise UserError(
            f"{path}: it names no environment, so that nothing can be evaluated; name one, --env ID"
            " (a study's `environment: ID`): a gymnasium id, or the name of a data set."
        )
    return found if reading.horizon is None else replace(found, horizon=reading.horizon)


def _made(found: Environment, num_envs: int) -> VectorEnv:
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
