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
from ablate.data.catalogue import PLAIN, Anchors, DataSpec, Family, Recorded
from ablate.data.formats import files
from ablate.data.formats.base import Contents
from ablate.data.formats.minari import (
    DATASET_ID,
    Environment,
    datasets_root,
    environment,
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

    def resolve(self, member: str, name: str) -> DataSpec:
        """See `Family.resolve`."""
        return self.read_as(member, name, AS_IT_IS)

    def read_as(self, member: str, name: str, reading: Reading) -> DataSpec:
        """See `Family.read_as`."""
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
            return files.inspect(folder, label, reading)

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
    key = (str(path.resolve()), _state(path), reading.model_dump_json())

    def look() -> Contents:
        found = inspect(label or name)
        data = found.trajectories
        dims = (data.observations.shape[1], data.actions.shape[1])
        _seen[key] = _Facts(found.about, dims, int(data.lengths.max()))
        return found

    def fact() -> _Facts:
        if key not in _seen:
            look()
        return _seen[key]

    def generate() -> tuple[Trajectories, Trajectories]:
        train, held_out = hold_out(look().trajectories, reading.held_out)
        return replace(train, name=name), replace(held_out, name=name)

    def lacking() -> str:
        """Why there is no environment, in a sentence; empty where there is one."""
        if fact().about.get("environment") or (
            reading.simulated is None and _specified(metadata())
        ):
            return ""
        if reading.simulated is False:
            return "it is said to have no simulator."
        return "it names no environment; --env ID (`environment: ID` in a study's data entry) does."

    def recorded() -> Recorded:
        horizon = reading.horizon or fact().longest
        return Recorded(*fact().dims, horizon)

    def make_env(num_envs: int) -> VectorEnv:
        if why := lacking():
            raise UserError(f"{name}: no policy can act on it, since {why}")
        base = _ours(fact().about)
        if base is None:
            found = _environment(path, fact().about, metadata(), reading)
            try:
                env = _made(found, num_envs)
            except UserError as error:
                raise UserError(
                    f"{error} --plugin FILE.py may register it, --env ID names another, and --env none trains"
                    " without a simulator."
                ) from error
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
        base = _ours(fact().about) if reading.random is None else None
        return _anchors(fact().about) if base is None else base.anchors()

    return DataSpec(
        name=name,
        family=name.partition("/")[0],
        recipe={"reader": 1, **recipe, "held_out": HELD_OUT, "seed": 0, **reading.said},
        generate=generate,
        make_env=make_env,
        anchors=anchors,
        cached=False,
        recorded=recorded,
        lacking=lacking,
    )


@dataclass(frozen=True)
class _Facts:
    """What is kept of a file that was read: numbers in an observation and an action, the longest episode."""

    about: dict[str, Any]
    dims: tuple[int, int]
    longest: int


# By path, size and time of the file, and how it is read: a study asks once a cell, and files may be large.
_seen: dict[tuple[str, tuple[int, ...], str], _Facts] = {}


def _state(path: Path) -> tuple[int, ...]:
    """What changes when somebody writes to the file, or to those of a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [each.stat() for each in files if each.is_file()]
    return tuple(number for one in stats for number in (one.st_size, one.st_mtime_ns))


def _specified(metadata: dict[str, Any]) -> bool:
    """Whether Minari's description names an environment."""
    return bool(metadata.get("eval_env_spec") or metadata.get("env_spec"))


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
    if _specified(metadata):
        found = environment(path, metadata)
    else:
        found = environment(path, {"env_spec": {"id": name}})
    return found if reading.horizon is None else replace(found, horizon=reading.horizon)


def _made(found: Environment, num_envs: int) -> VectorEnv:
    from ablate.envs.gymnasium_env import Gymnasium  # needs the simulators; only for evaluation

    return Gymnasium(num_envs, found.id, horizon=found.horizon, **found.kwargs)


def _anchors(about: dict[str, Any]) -> Anchors:
    """The file's reference scores where it has some; else scores are plain returns."""
    low, high = about.get("anchor_low"), about.get("anchor_high")
    if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
        return Anchors(float(low), float(high), str(about.get("anchor_source", "the file")))
    return PLAIN
