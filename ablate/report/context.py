"""What a longer context changes, group by group, and whether that reproduces an earlier measurement.

A group is a data set with everything but mixer and context held still. Its effect is the mean score
at its longest minus that at its shortest context, averaged with equal weights over the mixers run
at both: the fixed estimand (these mixers, new seeds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.analyse import replication
from ablate.analyse.intervals import interval
from ablate.errors import UserError
from ablate.report import summaries, text
from ablate.report.figures.base import describe

METRICS = ("score", "action_error_early")
COLUMNS = (
    *("source", "data", "mixer", "head", "condition", "metric", "context_low", "context_high"),
    *("value_low", "value_high", "effect", "half_width", "note"),
)
HISTORY = "states+actions"  # what the mixers of an earlier measurement are taken to have seen
SCRIPT = "ablate/report/context.py"


@dataclass(frozen=True)
class Grid:
    """A table in plain text: a row of one cell is a heading; trials: what it was made of."""

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    trials: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """A row of an earlier measurement with ours beside it.

    alike: the effect of the mixer it was made with; average: that of all mixers; None where not
    run. `words` of the two: reproduces, refutes or open, empty where not run.
    """

    earlier: dict[str, Any]
    ends: tuple[int, int] | None
    alike: summaries.Change | None
    average: summaries.Change | None
    alike_word: str
    average_word: str

    @property
    def half_width(self) -> float:
        """Of the earlier 95 % interval; NaN where none is known."""
        return float(self.earlier["half_width"])


def read_reference(path: Path) -> pd.DataFrame | None:
    """An earlier measurement, `studies/<study>.reference.csv`; None where there is no such file.

    Raises UserError when it cannot be read, lacks a column or has text where a number belongs.
    """
    if not path.exists():
        return None
    try:
        found = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of comma-separated values ({error}).") from error
    missing = [name for name in COLUMNS if name not in found.columns]
    if missing:
        raise UserError(
            f"{path}: no column {text.listing(missing)}; allowed: {', '.join(COLUMNS)}."
        )
    for name in ("value_low", "value_high", "effect", "half_width"):
        if not pd.api.types.is_numeric_dtype(found[name]):
            raise UserError(f"{path}: column {name} holds text, where a number belongs.")
    return found


def groups(table: pd.DataFrame) -> list[tuple[str, dict[str, Any], pd.DataFrame]]:
    """(data set, what is held still, its finished rows) of every group run at two contexts."""
    done = summaries.finished(table)
    held = summaries.sliced(done)
    ranks = summaries.PREFERRED
    out = []
    for key, rows in done.groupby(["data", *held], sort=True, dropna=False):
        if rows["context"].nunique() > 1:
            name, *levels = key if isinstance(key, tuple) else (key,)
            out.append((str(name), dict(zip(held, levels, strict=True)), rows))

    def place(group: tuple[str, dict[str, Any], pd.DataFrame]) -> tuple:
        name, levels, _ = group
        order = [ranks["head"], ("none", "time", "return-to-go", "return-to-go+time")]
        found = [str(levels.get("head", "")), str(levels.get("condition", ""))]
        places = [o.index(f) if f in o else len(o) for o, f in zip(order, found, strict=True)]
        return (name, *places, str(levels))

    return sorted(out, key=place)


def effects(table: pd.DataFrame) -> Grid | None:
    """The effect of context in every group; None where no group has two contexts."""
    metrics = [m for m in METRICS if m in table.columns and table[m].notna().any()]
    rows: list[tuple[str, ...]] = []
    trials: list[str] = []
    last = ""
    for name, levels, group in groups(table):
        changes = {m: summaries.context_change(group, m) for m in metrics}
        first = next((c for c in changes.values() if c is not None), None)
        if first is None:
            continue
        if name != last:
            rows.append((text.data(name),))
            last = name
        cells = [_held(levels), f"{first.ends[0]} → {first.ends[1]}", str(len(first.mixers))]
        for metric in metrics:
            cells += _cells(changes[metric], text.digits_for(metric))
        rows.append(tuple(cells))
        trials += [t for c in changes.values() if c is not None for t in c.trials]
    if not rows:
        return None
    head = ["condition, head", "K", "mixers"]
    for metric in metrics:
        brief = text.metric(metric).replace("action ", "")
        head += [f"{brief}: short K", "long K", "change"]
    return Grid(
        "context_effect",
        "Effect of context",
        "Effect of context for every data set, head and condition: mean at the shortest and at the "
        "longest context run there, and their difference with its 95 % Welch–Satterthwaite "
        "interval, averaged with equal weights over all mixers run at both contexts (the placebo "
        "too): the fixed estimand, of new seeds of these mixers. Early action error is that of "
        "the first timesteps of an episode, as a fraction of the variance of the acting "
        "controller's action (0 is perfect; 1 is no better than the mean action, over whole "
        "episodes).",
        tuple(head),
        tuple(rows),
        tuple(dict.fromkeys(trials)),
    )


def _held(levels: dict[str, Any]) -> str:
    return describe(levels) or "as in every trial"


def _cells(change: summaries.Change | None, digits: int) -> list[str]:
    if change is None:
        return ["–"] * 3
    return [
        text.number(change.short, digits),
        text.number(change.long, digits),
        _effect(change, digits),
    ]


def _effect(change: summaries.Change | None, digits: int) -> str:
    if change is None:
        return "not run"
    low, high = interval(change.estimate)
    return plus_minus(change.estimate.value, (high - low) / 2, digits)


def plus_minus(value: float, half: float, digits: int) -> str:
    """`+1.2 ± 0.3`, or the value alone where no interval is known."""
    shown = text.number(value, digits, sign=True)
    return shown if math.isnan(half) else f"{shown} ± {text.number(half, digits)}"


def compare(
    table: pd.DataFrame, reference: pd.DataFrame, margin: float | None, alpha: float
) -> list[Compared]:
    """Each row of `reference` (columns: COLUMNS) with our effect of context in the same group.

    The margin is one of points, so it serves for the score only; for other metrics signs are
    compared.
    """
    done = summaries.finished(table)
    if "history" in done.columns:
        done = done[done["history"] == HISTORY]
    out = []
    for row in reference.to_dict("records"):
        named = {str(name): value for name, value in row.items()}
        keys = [k for k in ("data", "head", "condition") if k in done.columns]
        rows = summaries.at(done, {k: named[k] for k in keys})
        metric = str(named["metric"])
        alike = summaries.context_change(rows, metric, {str(named["mixer"])})
        average = summaries.context_change(rows, metric)
        words = [
            ""
            if change is None
            else replication.judge(
                change.estimate,
                float(named["effect"]),
                float(named["half_width"]),
                margin if metric == "score" else None,
                alpha,
            )
            for change in (alike, average)
        ]
        found = average or alike
        out.append(Compared(named, None if found is None else found.ends, alike, average, *words))
    return out


def comparison(compared: Sequence[Compared], margin: float | None) -> Grid | None:
    """The table of earlier and present effects; None where nothing of it was run."""
    if not any(one.average for one in compared):
        return None
    rows: list[tuple[str, ...]] = []
    last = ""
    for one in compared:
        row = one.earlier
        metric = str(row["metric"])
        digits = 1 if metric == "score" else 2
        if metric != last:
            rows.append((text.axis(metric, change=True),))
            last = metric
        rows.append(
            (
                f"{text.data(str(row['data']))}; {text.condition(str(row['condition']))}; "
                f"{row['head']}",
                plus_minus(float(row["effect"]), one.half_width, digits),
                _effect(one.alike, digits),
                _word(one, one.alike, one.alike_word),
                _effect(one.average, digits),
                _word(one, one.average, one.average_word),
            )
        )
    first = compared[0].earlier
    sources = text.listing(dict.fromkeys(str(one.earlier["source"]) for one in compared))
    ours = text.listing(dict.fromkeys(f"K = {a} → {b}" for a, b in _ends(compared)))
    notes = dict.fromkeys(
        f"{text.metric(str(one.earlier['metric']))}: {one.earlier['note']}"
        for one in compared
        if math.isnan(one.half_width) and isinstance(one.earlier["note"], str)
    )
    rule = (
        f" An effect is none when it is within the margin of {margin:g} points of zero (ours by "
        "TOST; the earlier one when its whole interval is)."
        if margin
        else ""
    )
    shown = text.mixer(str(first["mixer"]))
    return Grid(
        "replication",
        "Beside an earlier measurement",
        f"Effect of context in an earlier measurement ({sources}; one {shown}, "
        f"K = {first['context_low']} → {first['context_high']}) and "
        f"here ({ours}), with 95 % intervals: with the {shown}, and averaged over all mixers run. "
        "Ours reproduces the earlier effect when both are none, or when neither is and both "
        "intervals exclude zero on the same side; it refutes it when neither is none and they exclude "
        "zero on opposite sides, or when one is none and the other's interval lies wholly beyond the margin; "
        f"anything else leaves it open.{rule} An earlier effect without an interval cannot be "
        "judged; of it we say whether the sign agrees."
        + (f" Earlier {text.listing(notes)}." if notes else ""),
        ("data; condition; head", "earlier", f"ours, {shown}", "verdict", "ours, all", "verdict"),
        tuple(rows),
        tuple(
            dict.fromkeys(
                t for one in compared for c in (one.alike, one.average) if c for t in c.trials
            )
        ),
    )


def _ends(compared: Sequence[Compared]) -> list[tuple[int, int]]:
    return [one.ends for one in compared if one.ends is not None]


def _word(one: Compared, change: summaries.Change | None, word: str) -> str:
    if change is None:
        return "–"
    if math.isnan(one.half_width):
        same = change.estimate.value * float(one.earlier["effect"]) > 0
        return "open; same sign" if same else "open; other sign"
    return word
