"""Finding, generating and caching data sets by name: `family/member`, or `family/member@twin`.

A family is one registered class; what it generates is determined by its recipe, and the recipe's
fingerprint is where the result is cached. A twin is the same data with a part of the state hidden
(see `ablate.data.hidden`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ablate import registry
from ablate.data.behaviour import Behaviour
from ablate.data.collect import collect
from ablate.data.formats.hdf5 import read_own, write_hdf5
from ablate.data.hidden import MASKED, Hiding, parse
from ablate.data.reading import AS_IT_IS, Reading, checked
from ablate.data.split import hold_out
from ablate.data.trajectories import Trajectories
from ablate.envs.base import VectorEnv
from ablate.errors import UserError, unknown

FORMAT = 2  # of the cached files
OptimalValues = Callable[[np.ndarray, np.ndarray, int, float], np.ndarray]


@dataclass(frozen=True)
class Anchors:
    """The returns that map to normalised scores 0 and 100, and where they come from."""

    low: float
    high: float
    source: str

    def score(self, returns: Any) -> Any:
        """Normalised score of a return, or of an array of them."""
        return 100.0 * (returns - self.low) / (self.high - self.low)


# Where nobody has said which returns score 0 and 100, a score is the plain return.
PLAIN = Anchors(0.0, 100.0, "no reference returns are known: scores are plain returns")


@dataclass(frozen=True)
class Recorded:
    """What a file of the user's says before it is needed whole.

    observation_dim, action_dim: numbers in each. horizon: the time limit, or the longest episode where none
    is known.
    """

    observation_dim: int
    action_dim: int
    horizon: int


class Law(Protocol):
    """What is known exactly of a data set's behaviour and dynamics."""

    def log_density(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Log-density (...,) of the behaviour's actions (..., M) at observations (..., N)."""

    def plan_value(
        self,
        states: np.ndarray,
        times: np.ndarray,
        ids: np.ndarray,
        actions: np.ndarray,
        discount: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Expected discounted rewards (E,) of doing actions (E, H, M) from simulator states (E, S) at timesteps (E,),
        and of what follows to the episode's end, where the behaviour with these ids (E,) goes on; also discounted to
        the first timestep."""


Yardstick = Callable[["Trajectories", "Anchors", int], dict[str, float] | None]


@dataclass(frozen=True)
class DataSpec:
    """How a data set is made and how policies trained on it are evaluated.

    Attributes:
        name, family: its full name; the part before the first slash.
        recipe: everything that determines the data (parameters, version, generator seed), as JSON.
        generate: makes (train, held-out) trajectories, the same ones every time.
        make_env: the environment of a given number of episodes to evaluate in.
        anchors: computes the returns that score 0 and 100.
        best_policy: the behaviour_id given to a policy conditioned on it, None without ids.
        num_policies: number of behaviour ids, 0 where they aren't known.
        observable: kept coordinates of the full observation; None when all are shown.
        cached: False for data that already lie in a file of the user's.
        yardstick: metrics of the best possible learner that sees K timesteps, where the data's law is
            known: (held-out part, anchors, K) -> numbers by name, or None for that K.
        masked: the same of a twin in which some coordinates, given in order, are all that is shown; None where it isn't
            known, as where the family doesn't say.
        behaviour: makes the policy that the data come from, to act anew where what is hidden changes
            what happens or what it sees; None where it can't be had.
        hiding: for a twin, what it hides of the data set named before the `@`.
        exact: the table of exact values where the data's law is small enough, rows of numbers and
            texts by column; None elsewhere.
        goal: the coordinates of the full observation that the environment's goals are about, if any.
        optimal: returns (E,) of the best policy that sees the whole state, in the episodes of these
            environment seeds: the same starts and the same noise as everybody's. None where no such
            policy is known. Ask for them by `optimal_returns`.
        optimal_values: Q* of the process with its time limit: (observations (R, N), actions (R, M), both raw,
            timestep, discount) -> (R,), zero at what no state looks like, as after an episode's end. None where it
            isn't known, or a part of the state is hidden.
        hidden_physics: the environment of B episodes, each with a hidden physical parameter drawn
            with the given relative spread; None where there is none.
        recorded: what a file says of itself; None where the environment says it.
        law: what is known in closed form of the behaviour and of plans; None elsewhere.
        lacking: why no policy can act on the data, in a sentence, empty where one can; None for data that come with
            their environment.
    """

    name: str
    family: str
    recipe: dict[str, Any]
    generate: Callable[[], tuple[Trajectories, Trajectories]]
    make_env: Callable[[int], VectorEnv]
    anchors: Callable[[], Anchors]
    best_policy: int | None = None
    num_policies: int = 0
    observable: list[int] | None = None
    cached: bool = True
    yardstick: Yardstick | None = None
    masked: Callable[[Sequence[int]], Yardstick | None] | None = None
    behaviour: Callable[[], Behaviour] | None = None
    hidden_physics: Callable[[int, float], VectorEnv] | None = None
    hiding: Hiding | None = None
    exact: Callable[[], list[dict[str, str | float]]] | None = None
    goal: tuple[int, ...] = ()
    optimal: Callable[[Sequence[int]], np.ndarray] | None = None
    optimal_values: OptimalValues | None = None
    recorded: Callable[[], Recorded] | None = None
    lacking: Callable[[], str] | None = None
    law: Law | None = None

    @property
    def lacks_simulator(self) -> str:
        """Why no policy can act on it, in a sentence; empty where the data set has an environment."""
        return "" if self.lacking is None else self.lacking()

    @property
    def plain(self) -> bool:
        """Whether it is in a file for which nobody knows reference returns, so that scores are returns."""
        return self.recorded is not None and self.anchors() == PLAIN

    @property
    def horizon(self) -> int:
        """Timesteps after which an episode ends at the latest; without an environment, the longest on record."""
        if self.recorded is not None and self.lacks_simulator:
            return self.recorded().horizon
        return self.make_env(1).horizon

    @property
    def dimensions(self) -> tuple[int, int]:
        """Numbers of an observation, before anything is hidden, and of an action."""
        if self.recorded is not None:
            return self.recorded().observation_dim, self.recorded().action_dim
        env = self.make_env(1)
        return env.observation_dim, env.action_dim

    def optimal_returns(self, seeds: Sequence[int]) -> np.ndarray | None:
        """`optimal` of these seeds, computed once for each list; None where it isn't known."""
        return None if self.optimal is None else _optimal(self.optimal, tuple(seeds)).copy()

    @property
    def shown_goal(self) -> tuple[int, ...]:
        """`goal` as indices of what is shown; empty where a part of it is hidden."""
        if self.observable is None:
            return self.goal
        if not set(self.goal) <= set(self.observable):
            return ()
        return tuple(self.observable.index(i) for i in self.goal)


@lru_cache(maxsize=256)
def _optimal(returns: Callable[[Sequence[int]], np.ndarray], seeds: tuple[int, ...]) -> np.ndarray:
    return returns(seeds)


def always(best: float) -> Callable[[Sequence[int]], np.ndarray]:
    """`DataSpec.optimal` of a task whose best return, `best`, can be had in every episode."""
    return lambda seeds: np.full(len(seeds), best)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set in memory."""

    spec: DataSpec
    train: Trajectories
    held_out: Trajectories
    anchors: Anchors

    @cached_property
    def content_hash(self) -> str:
        """16 hex digits over both parts' content and the anchors."""
        text = (
            f"{self.train.content_hash}|{self.held_out.content_hash}|"
            f"{self.anchors.low!r}|{self.anchors.high!r}"
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def for_tuning(self) -> DataSet:
        """The training part alone, split once more: what settings are chosen on."""
        train, held_out = hold_out(self.train)
        return replace(self, train=train, held_out=held_out)

    def yardstick(self, context: int) -> dict[str, float] | None:
        """Metrics of the best possible learner that sees `context` timesteps; None where not known."""
        if self.spec.yardstick is None:
            return None
        return self.spec.yardstick(self.held_out, self.anchors, context)


class Family(ABC):
    """A registered kind of data: resolves the part of a name after the first slash.

    words: how people call parts of a member's name, by a pattern of the whole part: {"umaze": "U"}.
    """

    words: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def resolve(self, member: str, name: str) -> DataSpec:
        """The specification of `member`; `name` is the full name, for messages.

        Raises UserError with the nearest known name.
        """

    def read_as(self, member: str, name: str, reading: Reading) -> DataSpec:
        """`resolve` of a set that lies in a file of the user's, to be read as said.

        Raises UserError for a family whose sets are read in one way only.
        """
        told = next(iter(reading.said), "folder")
        raise UserError(
            f"data: '{name}' is read in one way only; '{told}' is for files of your own: file/PATH or minari/ID."
        )

    @abstractmethod
    def names(self) -> list[str]:
        """Well-known members, with the family's name and without twins."""

    def coordinates(self, member: str) -> dict[str, list[int]]:
        """Groups of coordinates of the observation that a twin can hide, e.g. velocity and position."""
        return {}


def known_names() -> list[str]:
    """All well-known data sets, without twins, sorted."""
    return sorted(
        name for family in registry.names("data") for name in registry.get("data", family)().names()
    )


def spec(name: str, reading: Mapping[str, Any] | None = None) -> DataSpec:
    """The specification of a data set, without generating anything.

    reading: how a file of the user's is to be read, keys of `ablate.data.reading.Reading`.

    What a twin adds noise to or fills in needs the data: its environment and generator come with
    `load`. Raises UserError for an unknown family, member or twin, with the nearest known name, and for a
    reading of data that come with their own environment.
    """
    base, at, twin = name.partition("@")
    family, slash, member = base.partition("/")
    if family not in registry.names("data") or not slash:
        # Not Path.exists, which raises for what can't be a path, such as a name that is too long.
        if os.path.exists(name):
            raise UserError(
                f"data: '{name}' is a file or folder, not the name of a data set; of a file of yours the name is"
                f" 'file/{name}'."
            )
        near = difflib.get_close_matches(name, known_names(), n=8, cutoff=0.3)
        raise unknown("data", name, [*near, "another of `python -m ablate data list`", "file/PATH"])
    part: Family = registry.get("data", family)()
    said = checked(reading or {})
    found = part.resolve(member, name) if said == AS_IT_IS else part.read_as(member, name, said)
    if not at:
        return found
    width, _ = found.dimensions
    hiding = parse(twin, name, width, part.coordinates(member))
    _check_twin(hiding, found, name)
    return replace(
        found,
        name=name,
        recipe={**found.recipe, **hiding.recipe},
        generate=_unresolved,
        make_env=_unresolved,
        observable=hiding.observable,
        hiding=hiding,
        yardstick=found.masked(hiding.observable) if found.masked and hiding.masks_only else None,
        masked=None,
        law=None,
        exact=None,
        # What is shown doesn't change what happens; late actions and other physics do.
        optimal=None if hiding.disturbs else found.optimal,
        optimal_values=None,
    )


def dimensions(name: str, reading: Mapping[str, Any] | None = None) -> tuple[int, int]:
    """Numbers of an observation and of an action, a twin's too, without generating anything.

    Raises UserError as `spec` does.
    """
    observation, action = spec(name.partition("@")[0], reading).dimensions
    hiding = spec(name, reading).hiding
    return observation if hiding is None else len(hiding.observable), action


def _unresolved(*_: Any) -> Any:
    raise AssertionError("the environment and the generator of a twin come with `load`")


def fingerprint(name: str) -> str:
    """16 hex digits of everything that determines the data set's content."""
    return _fingerprint(spec(name))


def load(name: str, cache: Path, reading: Mapping[str, Any] | None = None) -> DataSet:
    """The data set, generated on first use and cached as HDF5 under `cache`/<fingerprint>/.

    reading: as of `spec`. Two processes may load at once. Raises UserError when the name isn't known, when a
    cached file is damaged (naming it and the remedy) or when the cache can't be written.
    """
    found = spec(name, reading)
    if found.hiding is not None:
        base = load(name.partition("@")[0], cache, reading)
        resolved = _resolve(found.hiding, found, base)
        cached = found.hiding.anew  # a view is made faster than it is read
        found = replace(resolved, anchors=lambda: base.anchors, cached=cached)
    if not found.cached:
        train, held_out = found.generate()
        return DataSet(found, train.validate(), held_out.validate(), found.anchors())
    folder = Path(cache) / _fingerprint(found)
    paths = [folder / "train.hdf5", folder / "held_out.hdf5"]
    if not all(path.is_file() for path in paths):
        anchors = found.anchors()
        stored: dict[str, Any] = {
            "format": FORMAT,
            "recipe": json.dumps(found.recipe, sort_keys=True),
            "anchor_low": anchors.low,
            "anchor_high": anchors.high,
            "anchor_source": anchors.source,
        }
        for path, part in zip(paths, found.generate(), strict=True):
            write_hdf5(path, part.validate(), stored)
    try:
        train, attributes = read_own(paths[0])
        held_out, _ = read_own(paths[1])
        anchors = Anchors(
            float(attributes["anchor_low"]),
            float(attributes["anchor_high"]),
            str(attributes["anchor_source"]),
        )
    except (UserError, KeyError) as error:
        reason = f"{folder}: no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{reason} Delete the folder {folder} to generate it again.") from error
    return DataSet(found, train, held_out, anchors)


def _fingerprint(found: DataSpec) -> str:
    text = json.dumps({"format": FORMAT, "name": found.name, **found.recipe}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_twin(hiding: Hiding, base: DataSpec, name: str) -> None:
    """Raise UserError for what the data's family can't give."""
    physics = any(part.kind == "physics" for part in hiding.parts)
    if physics and base.hidden_physics is None:
        raise UserError(f"data: '{name}': {base.name} has no physical parameter to hide.")
    if hiding.anew and base.behaviour is None:
        raise UserError(
            f"data: '{name}': must be collected anew, and {base.name} has no behaviour policy to do so;"
            " masks, noise and drops of what a privileged behaviour did are allowed."
        )
    if hiding.masked and base.observable is not None:
        raise UserError(
            f"data: '{name}': {base.name} itself shows a part only; {MASKED} is allowed where all is shown."
        )


def _resolve(hiding: Hiding, found: DataSpec, base: DataSet) -> DataSpec:
    """`found` with an environment, and where needed a generator, that hide as `hiding` says."""
    spec, name = base.spec, found.name
    std = base.train.observations.std(axis=0, dtype=np.float64)
    mean = base.train.observations.mean(axis=0, dtype=np.float64)
    spreads = [part.strength for part in hiding.parts if part.kind == "physics"]

    def make_env(num_envs: int) -> VectorEnv:
        if spreads:
            assert spec.hidden_physics is not None
            return hiding.wrap(spec.hidden_physics(num_envs, spreads[-1]), std)
        return hiding.wrap(spec.make_env(num_envs), std)

    def generate() -> tuple[Trajectories, Trajectories]:
        if not hiding.anew:
            return (
                hiding.view(base.train, "train", name, std),
                hiding.view(base.held_out, "held_out", name, std),
            )
        assert spec.behaviour is not None
        made = []
        for part, original in (("train", base.train), ("held_out", base.held_out)):
            behaviour = spec.behaviour()
            if hiding.masked:
                behaviour = behaviour.shown_only(make_env(1), hiding.observable, mean)
            steps = len(original.rewards)
            made.append(
                collect(name, part, make_env, behaviour, steps, privileged=not hiding.masked)
            )
        return made[0], made[1]

    return replace(found, make_env=make_env, generate=generate)
