"""Ways of scoring a run: where the numbers come from that a hypothesis's runs have in another universe.

`ablate.analyse.multiverse` says what the axes are and crosses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate import words
from ablate.analyse.intervals import Floats
from ablate.analyse.tidy import factor_columns, usable
from ablate.study.contrast import level_texts
from ablate.study.hypotheses import Hypothesis

SCORING = ("checkpoint", "target", "episodes", "list", "anchors")  # axes of a run's number
DECLARED = "as declared"
LAST = "mean of the last 20 %"
BEST = "best checkpoint"
FEWER = "fewer held-out windows"
BEST_TARGET = "best target"
EPISODES = {"score": "mean score", "score_median": "median score", "regret": "capped regret"}
CLONE = "exact clone at 100"

Scoring = tuple[str, ...]  # an option for each axis of SCORING
AS_DECLARED: Scoring = (DECLARED,) * len(SCORING)


class Sources:
    """Where the numbers of a hypothesis's runs come from, one way or another."""

    def __init__(
        self,
        hypothesis: Hypothesis,
        rows: pd.DataFrame,
        whole: pd.DataFrame,
        curves: pd.DataFrame | None,
        clones: Mapping[str, float],
        done: NDArray[np.bool_],
    ) -> None:
        self.unserved: dict[str, str] = {}
        self._of, self._rows, self._whole, self._done = hypothesis, rows, whole, done
        self._metric = metric = hypothesis.metric
        self._head, _, self._tail = metric.rpartition(".")
        self._response = words.response(metric)
        self._points = _points(rows, curves, metric)
        data = rows["data"].astype(str)
        self._factor = 100.0 / data.map(dict(clones)).astype(float).to_numpy()
        self._keys = [f for f in factor_columns(whole) if whole[f].nunique() > 1] or ["data"]
        self._swapped = {  # axis -> the factor that it changes, and what opens the name of an option
            "target": (f"measure.{self._head}.target", "asked for "),
            "list": (f"measure.{self._head}.episodes_of", "of the "),
        }
        self._others: dict[str, list[str]] = {"target": [], "list": []}
        self._budgets: tuple[Any, ...] = ()
        if "budget" in whole.columns:
            least = rows.loc[done, "budget"].min()
            known = sorted(whole["budget"].dropna().unique().tolist())
            self._budgets = tuple(b for b in known if b < least)
        self._place: dict[tuple[Any, ...], int] | None = None

    def options(self, differs: Callable[[], bool]) -> list[tuple[str, ...]]:
        """The options of every axis of SCORING, the declared one first; differs: whether differences alone count."""
        of_acting = (f"{self._dot}{name}" for name in ("return_mean", "score", "success"))
        acting = any(name in self._whole.columns for name in of_acting)
        made = (
            self._checkpoints(),
            self._targets(acting),
            self._episodes(acting, differs),
            self._lists(acting),
            self._anchors(),
        )
        return [(DECLARED, *found) for found in made]

    def values(self, scoring: Scoring) -> Floats:
        """(n,), not finite where there is none."""
        checkpoint, target, episodes, listed, anchors = scoring
        by_curve = self._points is not None and checkpoint in (LAST, BEST, FEWER)
        by_column = target != DECLARED and bool(self._told_targets())
        if (by_curve and (target, episodes, listed) != AS_DECLARED[1:4]) or (
            by_column and (episodes, listed) != AS_DECLARED[2:4]
        ):
            return np.full(len(self._rows), np.nan)
        if by_curve and self._points is not None:
            found = _of_curve(self._points, checkpoint, self._response.lower)
        else:
            column, sign = self._column(episodes)
            column = column if episodes != DECLARED else self._of_target(target) or column
            at = [checkpoint]
            if checkpoint == BEST:
                at = [DECLARED, *map(self._budget, self._budgets)]
            targets = [target]
            if target == BEST_TARGET:
                targets = [DECLARED, *self._others["target"], *self._told_targets()]
            each = [
                sign * self._lookup(self._of_target(t) or column, a, t, listed)
                for a in at
                for t in targets
            ]
            found = (np.min if self._response.lower else np.max)(np.stack(each), axis=0)
        return found * self._factor if anchors == CLONE else found

    def converged(self, checkpoint: str) -> Floats | None:
        """What the table says of it (n,), at the last checkpoint where none is named; None where it says nothing."""
        if "converged" not in self._whole.columns:
            return None
        at = checkpoint if checkpoint.startswith("after ") else DECLARED
        return self._lookup("converged", at, DECLARED, DECLARED)

    def _checkpoints(self) -> list[str]:
        out = [self._budget(b) for b in self._budgets]
        out = [o for o in out if self._complete(o, DECLARED, DECLARED)]
        self._budgets = tuple(b for b in self._budgets if self._budget(b) in out)
        if self._points is not None:
            return [*out, BEST, LAST, FEWER]
        if out:
            return [*out, BEST]
        self._refuse(
            "checkpoint",
            f"the curves hold no {self._metric} for every trial, and it was measured once",
        )
        return []

    def _targets(self, acting: bool) -> list[str]:
        why = "no other return was asked for" if acting else "no return is asked for in it"
        found = self._told_targets() or self._swap("target", "return that is asked for", why)
        return [*found, BEST_TARGET] if found else []

    def _lists(self, acting: bool) -> list[str]:
        why = "each seed has a list of its own, other than the next one's, and no other was run"
        if not acting:
            why = "it isn't measured in evaluation episodes"
        return self._swap("list", "list of episodes", why)

    def _swap(self, axis: str, what: str, why: str) -> list[str]:
        """Options by other levels of a factor of the measurement, unless the hypothesis is about it."""
        name, word = self._swapped[axis]
        if name in self._rows.columns and self._whole[name].nunique() > 1:
            if name in f"{self._of.contrast} {self._of.estimator} {self._of.each}":
                self._refuse(axis, f"the hypothesis is about the {what}")
                return []
            mine = set(level_texts(self._rows[name]))
            known = dict.fromkeys(level_texts(self._whole[name]))
            for option in (f"{word}{x}" for x in known if len(mine) > 1 or x not in mine):
                at = {"target": DECLARED, "list": DECLARED, axis: option}
                if self._complete(DECLARED, at["target"], at["list"]):
                    self._others[axis].append(option)
        if not self._others[axis]:
            self._refuse(axis, why)
        return self._others[axis]

    def _episodes(self, acting: bool, differs: Callable[[], bool]) -> list[str]:
        out = list(self._ways)
        if f"{self._metric}_median" in self._whole.columns and self._tail != "score":
            out.append(EPISODES["score_median"])
        if self._tail in EPISODES:
            other = [t for t in EPISODES if t != self._tail]
            other = [t for t in other if f"{self._dot}{t}" in self._whole.columns]
            crossing = [t for t in other if "regret" in (t, self._tail)]
            if crossing and not differs():
                other = [t for t in other if t not in crossing]
                self._refuse(
                    "regret and score",
                    "the hypothesis is about a level or a ratio, not about differences alone",
                )
            out += [EPISODES[t] for t in other]
        if not acting and not out:
            self._refuse("episodes", "it isn't measured in evaluation episodes")
            return []
        if not out:
            self._refuse("episodes", "the tables hold one way alone to make a number of them")
        if not self._ways:
            self._refuse(
                "number of episodes",
                "the tables hold a number a run, not its single episodes, and none of fewer of them, of another cap or "
                "of their interquartile mean, which earlier code didn't write",
            )
        return out

    @cached_property
    def _ways(self) -> dict[str, str]:
        """Other ways to sum up a run's episodes, in words, that every run has a number of -> the column."""
        prefix = f"{self._metric}_"
        here = [c for c in self._whole.columns if c.startswith(prefix)]
        said = {words.way_said(c.removeprefix(prefix)): c for c in here}
        done = self._rows.loc[self._done]
        return {
            way: column
            for way, column in said.items()
            if way and np.isfinite(done[column].to_numpy(dtype=float)).all()
        }

    def _anchors(self) -> list[str]:
        if not self._response.points or "ratio" in (self._of.estimator or {}):
            why = (
                "its unit isn't points"
                if not self._response.points
                else "the hypothesis is about a ratio, which has none"
            )
            self._refuse("anchors", why)
        elif not (np.isfinite(self._factor) & (self._factor > 0.0)).all():
            self._refuse("anchors", "the exact clone of its behaviour isn't known")
        else:
            return [CLONE]
        return []

    @property
    def _dot(self) -> str:
        return f"{self._head}." if self._head else ""

    def _refuse(self, axis: str, why: str) -> None:
        about = self._of.id if why.startswith("the hypothesis") else self._metric
        self.unserved[f"{axis} of {about}"] = why

    def _column(self, episodes: str) -> tuple[str, float]:
        """The column that a way of summing up episodes stands in, and its sign beside the metric."""
        if episodes == DECLARED:
            return self._metric, 1.0
        if episodes in self._ways:
            return self._ways[episodes], 1.0
        tail = next(t for t, said in EPISODES.items() if said == episodes)
        if self._tail not in EPISODES:
            return f"{self._metric}_median", 1.0
        name = f"{self._dot}{tail}"
        return name, -1.0 if (tail == "regret") != (self._tail == "regret") else 1.0

    def _told_targets(self) -> list[str]:
        """Targets that the table has a column for."""
        head = f"{self._metric}_target_"
        return [f"target {c.removeprefix(head)}" for c in self._whole.columns if c.startswith(head)]

    def _of_target(self, target: str) -> str | None:
        """The column of a target that has one."""
        known = target in self._told_targets()
        return f"{self._metric}_target_{target.removeprefix('target ')}" if known else None

    @staticmethod
    def _budget(budget: float) -> str:
        return f"after {int(budget)} updates"

    def _complete(self, checkpoint: str, target: str, listed: str) -> bool:
        found = self._lookup(self._metric, checkpoint, target, listed)
        return bool(np.isfinite(found[self._done]).all())

    def _lookup(self, column: str, checkpoint: str, target: str, listed: str) -> Floats:
        """A column's values (n,) in the rows that differ from these in nothing but checkpoint, target and list."""
        if checkpoint == target == listed == DECLARED or column not in self._whole.columns:
            found: Floats = (
                self._rows[column].to_numpy(dtype=float)
                if column in self._rows
                else np.full(len(self._rows), np.nan)
            )
            return found
        changed = {}
        for axis, option in (("target", target), ("list", listed)):
            name, word = self._swapped[axis]
            if option.startswith(word):
                changed[name] = option.removeprefix(word)
        budget = None
        if checkpoint.startswith("after "):
            budget = int(checkpoint.split()[1])
        place = self._where()
        there = [place.get(key, -1) for key in self._key(self._rows, changed, budget)]
        values = self._whole[column].to_numpy(dtype=float)
        return np.where(np.array(there) >= 0, values[there], np.nan)

    def _where(self) -> dict[tuple[Any, ...], int]:
        if self._place is None:
            self._place = {key: i for i, key in enumerate(self._key(self._whole, {}, None))}
        return self._place

    def _key(
        self, rows: pd.DataFrame, changed: Mapping[str, str], budget: int | None
    ) -> Iterator[tuple[Any, ...]]:
        """What tells a run at a budget, row by row."""
        parts = [
            [changed[f]] * len(rows) if f in changed else level_texts(rows[f]).tolist()
            for f in self._keys
        ]
        parts.append(rows["seed"].tolist())
        if "budget" in self._whole.columns:
            parts.append([budget] * len(rows) if budget is not None else rows["budget"].tolist())
        return zip(*parts, strict=True)


def _points(table: pd.DataFrame, curves: pd.DataFrame | None, metric: str) -> Floats | None:
    """(rows, points) of the metric in order of updates, nan for unfinished trials; None unless every
    finished trial has all points. Curves call a held-out response by its name alone."""
    name = metric.removeprefix("held-out.")
    name = metric if curves is not None and metric in curves else name
    if curves is None or curves.empty or name not in curves or "trial" not in table:
        return None
    done = set(usable(table, metric)["trial"].tolist())
    own = curves[curves["trial"].isin(done) & np.isfinite(curves[name].to_numpy(dtype=float))]
    wide = own.pivot(index="trial", columns="update", values=name).dropna(axis=1)
    if wide.shape[1] < 2 or set(wide.index) != done:
        return None
    return wide.reindex(table["trial"]).to_numpy(dtype=float)


def _of_curve(points: Floats, checkpoint: str, lower: bool) -> Floats:
    """(rows,) what a way of choosing a checkpoint makes of curves (rows, points)."""
    if checkpoint == BEST:
        found: Floats = (points.min if lower else points.max)(axis=1)
        return found
    tail = max(1, math.ceil(0.2 * points.shape[1])) if checkpoint == LAST else 1
    mean: Floats = points[:, -tail:].mean(axis=1)
    return mean
