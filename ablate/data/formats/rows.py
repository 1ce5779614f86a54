"""From what a file holds to trajectories: where episodes end, in what units actions are.

Every reader of files that others wrote hands over its arrays here, so that the same questions are asked
whatever the format is. What can't be known is refused, with the option that says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ablate import registry
from ablate.data.formats.base import ENVIRONMENT_ID, one_line, printable
from ablate.data.normalise import CONSTANT
from ablate.data.reading import NAMES, Reading
from ablate.data.trajectories import ACTION_TOLERANCE, OPTIONAL, PER_EPISODE, Trajectories
from ablate.errors import UserError, unknown

if TYPE_CHECKING:
    from gymnasium import Space

Timeouts = Literal["auto", "ends", "ignore"]
PER_STEP = [name for name in OPTIONAL if name not in PER_EPISODE]
# What others call them. Of flags the first that is there is taken; of the others there must be only one.
ALIASES = {
    "observations": ("observation", "obs", "states", "state"),
    "actions": ("action", "acts", "act"),
    "rewards": ("reward", "rews", "rew"),
    "terminals": ("terminal", "terminations", "termination", "terminated", "dones", "done"),
    "timeouts": ("timeout", "truncations", "truncation", "truncated"),
    "next_observations": ("next_observation", "next_obs", "next_states", "next_state"),
}
MANY = 0.1  # share of the episodes whose end at the time limit as terminal is no coincidence


@dataclass
class Rows:
    """What a file holds, a row a timestep.

    Attributes:
        arrays: by the names of D4RL's layout and of Trajectories' optional arrays (NAMES).
        lengths: timesteps of each episode where the file keeps them apart; None where flags end them.
        final: (E, N) what was seen after each episode's last action, where it isn't in
            `next_observations`.
        discrete: whether the file itself says that actions are choices.
        scaled: whether actions are in [-1, 1] already, by what the file says of them.
        told: whether the format itself keeps terminals apart from time limits.
    """

    arrays: dict[str, np.ndarray]
    lengths: list[int] | None = None
    final: np.ndarray | None = None
    discrete: bool = False
    scaled: bool = False
    told: bool = False


class Several(list[Any]):
    """Entries of a file that are put side by side."""


class Task:
    """The gymnasium environment of a file, as far as it can be had here.

    Only what the user named may import a package (`package:id`); what a file names must be registered.
    """

    def __init__(self, reading: Reading, named: object = None) -> None:
        self.asked = reading.environment is not None
        name = reading.environment if self.asked else named
        ours = str(name).partition("/")[0] in registry.names("data")
        known = isinstance(name, str) and name and not ours
        safe = self.asked or (known and ENVIRONMENT_ID.fullmatch(str(name)))
        self.name = str(name) if known and safe else None
        self._horizon = reading.horizon

    @cached_property
    def horizon(self) -> int | None:
        """Its time limit in timesteps, or the one that was asked for; None where none is known."""
        if self._horizon is not None or self.name is None:
            return self._horizon
        from ablate.envs.gymnasium_env import time_limit  # needs the simulators

        try:
            return time_limit(self.name)
        except UserError:
            if self.asked:
                raise
            return None

    @cached_property
    def actions(self) -> Space[Any] | None:
        """Its action space; None where it can't be made here."""
        if self.name is None:
            return None
        from ablate.envs.gymnasium_env import action_space

        try:
            return action_space(self.name)
        except UserError:
            if self.asked:
                raise
            return None

    @property
    def whence(self) -> str:
        """What the time limit is, for a message."""
        return "the horizon" if self._horizon is not None else f"the time limit of {self.name}"


def named(
    where: object, found: dict[str, Any], reading: Reading, notes: list[str]
) -> dict[str, Any]:
    """The entries that have a name of ours (Several of them where `map` puts them side by side).

    Raises UserError for a `map` of what isn't there, or onto what isn't known, and where two entries
    could be meant.
    """
    taken: dict[str, Any] = {key: found[key] for key in NAMES if key in found}
    given: dict[str, list[Any]] = {}
    renamed = reading.renamed
    for theirs, ours in renamed.items():
        if ours not in NAMES:
            raise unknown(f"{where}: map, {printable(theirs, 40)}", ours, NAMES)
        if theirs not in found:
            raise unknown(f"{where}: map", printable(theirs, 40), [printable(k, 40) for k in found])
        given.setdefault(ours, []).append(found[theirs])
    taken.update({key: each[0] if len(each) == 1 else Several(each) for key, each in given.items()})
    for ours, others in ALIASES.items():
        there = [each for each in others if each in found and each not in renamed]
        if ours in taken or not there:
            continue
        if len(there) > 1 and ours not in ("terminals", "timeouts"):
            raise UserError(
                f"{where}: {' and '.join(repr(each) for each in there)} could both be the {ours}; say"
                f" which, --map {ours}={there[0]} (`map: {{{ours}: {there[0]}}}`)."
            )
        taken[ours] = found[there[0]]
        note = f"'{there[0]}' was read as {ours}"
        if note not in notes:
            notes.append(note)
    return taken


def missing(where: object, key: str, found: list[str]) -> UserError:
    """The refusal of a file that lacks an array."""
    listed = ", ".join(printable(each, 40) for each in found[:12]) or "nothing"
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    return UserError(
        f"{where}: the array '{key}' is missing; found: {listed}{more}. Where it has another name, say"
        f" --map {key}=NAME (`map: {{{key}: NAME}}`)."
    )


def side_by_side(where: object, parts: list[np.ndarray]) -> np.ndarray:
    """(T, ...) arrays as the columns of one; raises UserError where they differ in rows."""
    if len({len(part) if part.ndim else -1 for part in parts}) != 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise UserError(f"{where}: what is put side by side differs in length: {shapes}.")
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def joined(path: Path, parts: dict[str, list[np.ndarray]]) -> Rows:
    """Episodes one after the other; parts: by our names, an array an episode."""
    try:
        arrays = {key: np.concatenate(each) for key, each in parts.items()}
    except ValueError as error:
        raise UserError(f"{path}: episodes differ in shape ({one_line(error)}).") from error
    return Rows(arrays, [len(each) for each in parts["rewards"]])


def assemble(
    path: Path,
    name: str,
    rows: Rows,
    reading: Reading,
    task: Task,
    notes: list[str],
    *,
    timeouts: Timeouts = "auto",
    published: bool = False,
) -> Trajectories:
    """Trajectories, not validated yet.

    Args:
        timeouts: of rows without lengths, see `ablate.data.formats.hdf5.read_hdf5`.
        published: a file of D4RL's own, whose habits are known: where it marks ends they are taken as
            they are, as everybody's results are.

    Raises UserError for what can't be known, or isn't what Trajectories can hold.
    """
    arrays = dict(rows.arrays)
    ends, terminations, truncations = _ends(path, rows, reading, task, notes, timeouts, published)
    last = np.flatnonzero(ends)
    steps = int(last[-1]) + 1
    if steps < len(ends):
        notes.append(f"an unfinished episode of {len(ends) - steps} steps was left out")
    terminations, truncations = terminations[:steps], truncations[:steps]
    starts = np.concatenate([[0], last + 1])
    if not published:
        terminations, truncations = _meant(
            path, rows, starts, terminations, truncations, reading, task, notes
        )
    if arrays["observations"].dtype in (np.float64, np.int64, np.uint64):
        notes.append(f"{arrays['observations'].dtype} numbers were rounded to float32")
        _check_rounding(path, arrays["observations"])
    if not published:
        notes += _still(arrays["observations"])
    extras = {key: arrays[key][:steps] for key in PER_STEP if key in arrays}
    if "next_observations" in arrays:
        extras["final_observations"] = arrays["next_observations"][last]
    elif rows.final is not None:
        after = arrays["observations"][np.minimum(last + 1, len(ends) - 1)]
        after[np.isin(last, np.cumsum(rows.lengths or []) - 1)] = (
            rows.final
        )  # others go on in the next row
        extras["final_observations"] = after
    acted, scale = _actions(path, arrays["actions"][:steps], rows, reading, task, notes)
    if "behaviour_logp" in extras and scale:
        extras["behaviour_logp"] = extras["behaviour_logp"] + scale
    return Trajectories(
        name=name,
        observations=cast(path, "observations", arrays["observations"][:steps], np.float32),
        actions=cast(path, "actions", acted, np.float32),
        rewards=cast(
            path, "rewards", column(path, "rewards", arrays["rewards"])[:steps], np.float32
        ),
        terminations=terminations,
        truncations=truncations,
        episode_starts=starts,
        **{key: cast(path, key, array, OPTIONAL[key][0]) for key, array in extras.items()},
    )


def column(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """(T,) of an array that may have been written as (T, 1)."""
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise UserError(f"{path}: '{key}' has shape {array.shape}; one number a row is needed.")
    return array


def flags(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """(T,) bool; a column of zeros and ones of any type."""
    found = np.ascontiguousarray(column(path, key, array))
    if found.dtype == np.bool_:
        return found
    strange = np.flatnonzero((found != 0) & (found != 1))
    if len(strange):
        row = int(strange[0])
        raise UserError(f"{path}: {key} row {row} is {found[row]}; only 0 and 1 are allowed.")
    return found.astype(bool)


def cast(path: Path, key: str, array: np.ndarray, dtype: type) -> np.ndarray:
    """Contiguous, of the type that Trajectories holds; validate() finds what doesn't fit into it."""
    if dtype is np.int64 and array.dtype.kind not in "iub":
        raise UserError(f"{path}: '{key}' has type {array.dtype}; whole numbers are needed.")
    with np.errstate(over="ignore"):  # becomes infinite, which validate() refuses
        return np.ascontiguousarray(array, dtype=dtype)


def _ends(
    path: Path,
    rows: Rows,
    reading: Reading,
    task: Task,
    notes: list[str],
    timeouts: Timeouts,
    published: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T,) bool each: where an episode ends, where it does as terminal, where it was cut."""
    arrays, steps = rows.arrays, len(rows.arrays["rewards"])
    none = np.zeros(steps, dtype=bool)
    terminations = flags(path, "terminals", arrays["terminals"]) if "terminals" in arrays else none
    truncations = flags(path, "timeouts", arrays["timeouts"]) if "timeouts" in arrays else none
    marked = "timeouts" in arrays
    if "terminals" not in arrays:
        notes.append("no terminals: every episode counts as cut")
    if rows.lengths is not None:
        ends = none.copy()
        ends[np.cumsum(rows.lengths) - 1] = True
        if not marked:
            notes.append("no timeouts: episodes whose last step isn't terminal count as cut")
            truncations = ends & ~terminations
    else:
        observations = arrays["observations"]
        if timeouts == "ignore":
            truncations = none
        elif timeouts == "auto" and _demonstrations(observations, terminations, truncations):
            notes.append(
                f"{truncations.sum()} timeouts inside demonstrations that go on until their terminal"
                " were dropped"
            )
            truncations = none
        if not marked and task.horizon is None and not published:
            truncations = _jumps(path, arrays, notes)
        truncations = truncations & ~terminations
        ends = terminations | truncations
    horizon = task.horizon
    if horizon is not None and not (published and marked):
        cuts = _cuts(ends, horizon) & ~ends
        if rows.lengths is None and not marked:
            notes.append(
                f"no timeouts: episodes were cut after {horizon} steps"
                + ("" if published else f", {task.whence}")
            )
        elif cuts.any():
            notes.append(
                f"episodes longer than {horizon} steps, {task.whence}, were cut there"
                f" ({cuts.sum()} cuts)"
            )
        truncations, ends = truncations | cuts, ends | cuts
    elif not marked and rows.lengths is None and published:
        notes.append("no timeouts: episodes end at terminals only")
    if not ends.any():
        raise UserError(
            f"{path}: neither 'terminals' nor 'timeouts' marks the end of an episode; say after how"
            " many steps one ends, --horizon N (`horizon: N`)."
        )
    return ends, terminations, truncations


def _jumps(path: Path, arrays: dict[str, np.ndarray], notes: list[str]) -> np.ndarray:
    """(T,) bool, true where the next row isn't what was seen next; refused where that isn't known."""
    after = arrays.get("next_observations")
    if after is None:
        raise UserError(
            f"{path}: it has no 'timeouts', so that episodes which the time limit ended run on into the"
            " next one; say the limit, --horizon N (`horizon: N`; a number above every length where"
            " there is none), or the environment that has one, --env ID."
        )
    here, then = arrays["observations"][1:], after[:-1]
    apart = (here != then).reshape(len(here), -1).any(axis=1)
    found = np.append(apart, False)
    if len(apart) and apart.mean() > 0.5:
        raise UserError(
            f"{path}: in {apart.mean():.0%} of the rows the next row isn't what was seen next"
            " ('next_observations'): its rows aren't in the order of time, which sequence models need."
        )
    notes.append(
        f"no timeouts: an episode ends where the next row isn't what was seen next ({apart.sum()} places)"
    )
    return found


def _demonstrations(
    observations: np.ndarray, terminations: np.ndarray, truncations: np.ndarray
) -> bool:
    """Whether timeouts lie inside demonstrations that go on behind them, one in each."""
    ends, limits = np.flatnonzero(terminations), np.flatnonzero(truncations & ~terminations)
    inside = len(ends) >= 2 and np.array_equal(np.searchsorted(ends, limits), np.arange(len(ends)))
    if not inside:
        return False
    rows = observations.reshape(len(observations), -1).astype(np.float64)
    jump = np.linalg.norm(np.diff(rows, axis=0), axis=1)  # (T - 1,)
    return bool(jump[limits].max() < jump[ends[:-1]].min())


def _cuts(ends: np.ndarray, horizon: int) -> np.ndarray:
    """(T,) bool, true `horizon` steps after each start where no end came before."""
    at = np.flatnonzero(ends)
    starts = np.concatenate([[0], at + 1])  # of the pieces between ends
    piece = np.searchsorted(at, np.arange(len(ends)))
    return (np.arange(len(ends)) - starts[piece]) % horizon == horizon - 1


def _meant(
    path: Path,
    rows: Rows,
    starts: np.ndarray,
    terminations: np.ndarray,
    truncations: np.ndarray,
    reading: Reading,
    task: Task,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Terminations and truncations, where an end at the time limit is what the reading says it is."""
    lengths, last = np.diff(starts), starts[1:] - 1
    limit = int(lengths.max()) if task.horizon is None else task.horizon
    ended = terminations[last] & ~truncations[last] & (lengths == limit)
    count, episodes = int(ended.sum()), len(last)
    if reading.terminals == "time-limit":
        cut = last[ended]
        terminations, truncations = terminations.copy(), truncations.copy()
        terminations[cut], truncations[cut] = False, True
        notes.append(f"{count} terminals at step {limit} were read as the time limit")
        return terminations, truncations
    if reading.terminals == "as-is" or count < 2:
        return terminations, truncations
    alike = count == episodes
    if not rows.told and (alike or (task.horizon is not None and count > MANY * episodes)):
        which = "every one of the" if alike else f"{count} of the"
        at = f", {task.whence}" if task.horizon == limit else ""
        raise UserError(
            f"{path}: {which} {episodes} episodes ends as terminal after {limit} steps{at}; say whether the"
            " time limit cut them, --terminals time-limit (`terminals: time-limit`), or they truly end"
            " there, --terminals as-is (`terminals: as-is`)."
        )
    if count > MANY * episodes:
        notes.append(
            f"{count} of {episodes} episodes end as terminal after {limit} steps, the longest there are: if"
            " that is a time limit, say --terminals time-limit (`terminals: time-limit`)"
        )
    return terminations, truncations


def _check_rounding(path: Path, observations: np.ndarray) -> None:
    """Raises UserError where float32 can't tell apart what a column's values tell apart."""
    wide = observations.reshape(len(observations), -1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # validate() finds what isn't finite
        spread, size = wide.std(axis=0), np.abs(wide).max(axis=0, initial=0.0)
        lost = spread < 10 * np.finfo(np.float32).eps * size
    # A constant has a deviation of the rounding of float64.
    lost = np.flatnonzero(lost & (spread > 1e-12 * size) & (size < np.finfo(np.float32).max))
    if len(lost):
        at = int(lost[0])
        raise UserError(
            f"{path}: observations, column {at} lies around {wide[:, at].mean():.6g} with a deviation of"
            f" {spread[at]:.3g}, which float32 can't resolve; subtract an offset from it, in the data"
            " and in the environment."
        )


def _still(observations: np.ndarray) -> list[str]:
    """What is said of columns that vary by so little that they aren't scaled."""
    if observations.ndim != 2 or not np.isfinite(observations).all():
        return []
    least, most = observations.min(axis=0), observations.max(axis=0)
    still = np.flatnonzero((most > least) & (most.astype(np.float64) - least < CONSTANT))
    if not len(still):
        return []
    which = "columns" if len(still) > 1 else "column"
    return [
        f"observations, {which} {', '.join(map(str, still[:12]))} varies by less than {CONSTANT:g} and counts as"
        " constant; if it means something, give it other units"
    ]


def _actions(
    path: Path, array: np.ndarray, rows: Rows, reading: Reading, task: Task, notes: list[str]
) -> tuple[np.ndarray, float]:
    """(T, M) in [-1, 1], and what a log density of them gains by the change of units."""
    if array.ndim > 2 or not np.isfinite(array).all():
        return array, 0.0  # validate() says what is wrong
    wide = array[:, None] if array.ndim == 1 else array
    space = None if rows.scaled else task.actions
    counts = _counts(path, wide, rows, reading, space)
    if counts is not None:
        return _choices(path, wide, *counts, notes), 0.0
    low, high = _bounds(path, wide, space, reading, rows, task, notes)
    gain = 0.0
    if low is not None and high is not None and reading.rescale_actions:
        half = (high - low) / 2
        wide = (wide - (low + high) / 2) / half
        gain = float(np.log(half).sum())
        rounded = (np.abs(wide) > 1) & (np.abs(wide) <= 1 + ACTION_TOLERANCE)
        wide = np.where(rounded, np.sign(wide), wide)
        notes.append(f"actions were rescaled from {_interval(low, high)} to [-1, 1]")
    elif low is not None and high is not None and not ((low == -1) & (high == 1)).all():
        notes.append(
            f"actions were taken as fractions of the bounds {_interval(low, high)} of {task.name}; in its own"
            " units: --rescale-actions (`rescale_actions: true`)"
        )
    outside = np.abs(wide) > 1 + ACTION_TOLERANCE
    if not outside.any():
        return wide, gain
    if reading.clip_actions:
        notes.append(f"{outside.sum()} numbers of actions beyond [-1, 1] were put onto the bound")
        return np.clip(wide, -1.0, 1.0), gain
    row, at = (int(each) for each in np.argwhere(outside)[0])
    raise UserError(
        f"{path}: actions row {row}, column {at} is {wide[row, at]}; actions must lie in [-1, 1]."
        f" {_remedy(wide, low, high, reading, rows, task)}"
    )


def _remedy(
    wide: np.ndarray,
    low: np.ndarray | None,
    high: np.ndarray | None,
    reading: Reading,
    rows: Rows,
    task: Task,
) -> str:
    clip = "put them onto the bound by --clip-actions (`clip_actions: true`)"
    if reading.rescale_actions or rows.scaled:
        return f"Beyond their own bounds: {clip}."
    rescale = "--rescale-actions (`rescale_actions: true`)"
    if low is not None and high is not None and ((wide >= low) & (wide <= high)).all():
        units = f"Where they are in the units of {task.name}, {_interval(low, high)}, say {rescale}"
        return f"{units}; else {clip}."
    units = "" if task.name else " and the environment, --env ID"
    return f"Where they are in units of their own, say {rescale}{units}; else {clip}."


def _interval(low: np.ndarray, high: np.ndarray) -> str:
    if (low == low[0]).all() and (high == high[0]).all():
        return f"[{low[0]:g}, {high[0]:g}]"
    return f"[{low.min():g}, {high.max():g}] (each of its own)"


def _bounds(
    path: Path,
    wide: np.ndarray,
    space: Any,
    reading: Reading,
    rows: Rows,
    task: Task,
    notes: list[str],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(M,) lowest and highest action in the file's units, where they are known."""
    if rows.scaled:
        if reading.rescale_actions:
            notes.append("actions were rescaled by the bounds that the file gives them")
        return None, None
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if low is not None and high is not None and low.size == wide.shape[1]:
        low, high = (each.ravel().astype(np.float64) for each in (low, high))
        if np.isfinite(low).all() and np.isfinite(high).all():
            return low, high
    if not reading.rescale_actions:
        return None, None
    if task.name is not None:
        raise UserError(
            f"{path}: {wide.shape[1]} numbers an action can't be rescaled by the bounds of {task.name}:"
            f" {'it cannot be made here' if space is None else printable(str(space))}."
        )
    notes.append("no environment: the data's own extremes are taken as the bounds of actions")
    low, high = wide.min(axis=0).astype(np.float64), wide.max(axis=0).astype(np.float64)
    still = low == high
    return np.where(still, low - 1, low), np.where(still, high + 1, high)


def _counts(
    path: Path, wide: np.ndarray, rows: Rows, reading: Reading, space: Any
) -> tuple[np.ndarray, np.ndarray] | None:
    """Choices of each discrete coordinate and the number of the first one; None for magnitudes.

    Raises UserError where whole numbers could be either.
    """
    if rows.scaled or reading.choices == 0:
        return None
    if hasattr(space, "nvec"):
        counts = np.asarray(space.nvec).ravel().astype(np.int64)
        return counts, np.asarray(space.start).ravel().astype(np.int64)
    if hasattr(space, "n") and hasattr(space, "start"):
        return np.array([int(space.n)]), np.array([int(space.start)])
    if space is not None:
        return None
    integers, whole = wide.dtype.kind in "iub", bool((wide == np.rint(wide)).all())
    single = wide.shape[1] == 1
    if not single and _one_hot(wide, 0.0):
        return np.array([wide.shape[1]]), np.array([0])
    if single and whole and wide.min() >= 0:
        if reading.choices is not None:
            return np.array([reading.choices]), np.array([0])
        if integers or rows.discrete:
            return np.array([max(2, int(wide.max()) + 1)]), np.array([0])
    elif reading.choices is not None:
        raise UserError(
            f"{path}: {reading.choices} choices were asked for; actions must then be whole numbers from 0,"
            f" one a row, or one-hot. They have shape {wide.shape} and go from {wide.min():g} to"
            f" {wide.max():g}."
        )
    ambiguous = single and whole and wide.min() >= 0 and wide.max() > wide.min()
    if integers or ambiguous:
        raise UserError(
            f"{path}: actions are whole numbers from {wide.min():g} to {wide.max():g} (type {wide.dtype},"
            f" {wide.shape[1]} a row), which may be choices or magnitudes; say the environment, --env ID,"
            " or how many choices there are, --choices N (`choices: N`; 0 for magnitudes)."
        )
    return None


def _one_hot(wide: np.ndarray, off: float) -> bool:
    """Whether every row has one 1 and else `off`, not the same one throughout."""
    on = wide == 1
    return bool(
        (on.sum(axis=1) == 1).all() and (on | (wide == off)).all() and not on.all(axis=0).any()
    )


def _choices(
    path: Path, wide: np.ndarray, counts: np.ndarray, first: np.ndarray, notes: list[str]
) -> np.ndarray:
    """(T, sum of counts) of -1 and 1, a group of columns a choice.

    wide: a number a choice, or the columns already, as 0 and 1 or as -1 and 1.
    """
    ends = np.cumsum(counts)
    if wide.shape[1] == ends[-1] and ends[-1] != len(counts):
        groups = np.split(wide, ends[:-1], axis=1)
        for group in groups:
            on = (group == 1).sum(axis=1) == 1
            rest = (group == 1) | (group == group.min(axis=1, keepdims=True))
            bad = np.flatnonzero(~(on & rest.all(axis=1) & np.isin(group.min(axis=1), (0, -1))))
            if len(bad):
                raise UserError(
                    f"{path}: actions row {bad[0]} is no choice: one of its {group.shape[1]} numbers must"
                    " be 1 and the others 0, or -1."
                )
        return np.where(wide == 1, 1.0, -1.0)
    if wide.shape[1] != len(counts):
        raise UserError(
            f"{path}: actions have {wide.shape[1]} numbers a row; the environment takes {len(counts)}"
            f" choices of {', '.join(map(str, counts[:8]))}."
        )
    chosen = np.rint(wide).astype(np.int64) - first
    outside = (chosen < 0) | (chosen >= counts) | (wide != np.rint(wide))
    if outside.any():
        row, at = np.argwhere(outside)[0]
        last = first[at] + counts[at] - 1
        raise UserError(
            f"{path}: actions row {row} is {wide[row, at]}, none of the choices {first[at]} to {last}."
        )
    notes.append(
        f"actions are choices of {', '.join(map(str, counts[:8]))}, made one-hot as -1 and 1"
    )
    hot = np.full((len(wide), int(ends[-1])), -1.0, dtype=np.float32)
    hot[np.arange(len(wide))[:, None], chosen + (ends - counts)] = 1.0
    return hot
