"""The language of contrasts: signed combinations of cell means.

    context[20] - context[1]                                  a difference
    algo['A, [b]'] - algo[C]                                  a level of any text, in single quotes
    mixer[attention] - mixer[gru, lstm]                       several levels: their mean
    0.2 context[1] - context[20]                              a coefficient
    (context[20] - context[1]) : (condition[time] - condition[none])      an interaction, of any
    order
    trend(context[1, 5, 20])                                  a trend, linear in rank
    log_trend(context[1, 5, 20])                              a trend, linear in the level's logarithm

`:` binds tighter than `+` and `-`. Every term of a sum names the same factors, else its average
over the other factors would not be over the same cells. `data` may be a factor.

So a main effect is a difference that names one factor (averaged over the others), a simple effect
one that names the level of another (or the hypothesis' `where` does), and coefficients give any
other weights. In a nested or incomplete design a contrast is taken wherever its cells exist.

A trend is the rise of the least-squares line through the listed levels, from the first to the
last: sum_i (x_i - mean x) y_i / sum_i (x_i - mean x)^2 * (x_last - x_first), where x is the rank in
the list or the natural logarithm of the level. Two levels give their difference. All listed levels
must have been run, also one on which the line doesn't lean.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ablate import registry
from ablate.errors import UserError, one_line, unknown

Level = bool | str | int | float
TRUTH = {
    "True": "true",
    "TRUE": "true",
    "False": "false",
    "FALSE": "false",
}  # as programs write them
LONGEST = 20_000  # characters of a contrast
DEEPEST = 32  # parentheses in each other
TERMS = 10_000  # products of levels, written out
LARGEST = 1e12  # a coefficient
SHOWN = 200  # characters of a contrast in a refusal
ACROSS = "across data sets"
TRENDS = ("trend", "log_trend")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*)|(?P<sign>[-+:*()\[\]]))"
)
_LEVEL = re.compile(r"(?P<space>\s*)(?:(?P<quoted>'(?:[^'\\]|\\.)*')\s*|(?P<plain>[^,\]]*))")
_Sum = dict[frozenset[tuple[str, str]], float]  # product of levels -> coefficient


def level_text(value: object) -> str:
    """How a level is compared: numbers by value (`20`, `20.0` and `"20"` are one), true and false however they
    are spelt (`True`, `TRUE`), a sum of registered parts by its canonical spelling (`time+return-to-go` is
    `return-to-go+time`), all else by its text."""
    return _level_text(str(value).strip())


@functools.cache
def _level_text(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return _sum(text) if "+" in text else TRUTH.get(text, text)
    if not math.isfinite(number):
        return text
    return str(int(number)) if number == int(number) else repr(number)


def _sum(text: str) -> str:
    for kind in registry.SUMS:
        with contextlib.suppress(UserError):
            return registry.canonical(kind, text)
    return text


def level_texts(column: pd.Series) -> pd.Series:
    """`level_text` of every cell, asked once for every level."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        texts = np.array(
            [level_text(level) for level in column.cat.categories] + ["nan"], dtype=object
        )
        return pd.Series(texts[column.cat.codes.to_numpy()], index=column.index)
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=False) != "string":
        return column.map(level_text)  # 1 and True would be one
    codes, levels = pd.factorize(column, use_na_sentinel=False)
    texts = np.array([level_text(level) for level in levels], dtype=object)
    return pd.Series(texts[codes], index=column.index)


def named(factor: str, *levels: object) -> str:
    """`factor[level, level]` as a contrast wants it: in quotes, what can't stand without."""
    texts = []
    for level in levels:
        text = level_text(level)
        if not text or re.search(r"[,\[\]']", text) or text != text.strip():
            text = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
        texts.append(text)
    return f"{factor}[{', '.join(texts)}]"


def find_level(value: object, levels: Iterable[Level]) -> Level | None:
    """The declared level that `value` means, or None."""
    text = level_text(value)
    return next((level for level in levels if level_text(level) == text), None)


@dataclass(frozen=True)
class Cells:
    """Cells that many claims are asked of: what their levels are compared by is found once.

    labels (C,): what a weight belongs to. levels: `data` and the factors, each with its level in every cell (C,);
    texts: the same by `level_text`.
    """

    labels: Sequence[Any]
    levels: Mapping[str, Sequence[Any]]
    texts: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, frame: pd.DataFrame | Cells) -> Cells:
        """The rows of a frame, labelled by its index."""
        if isinstance(frame, Cells):
            return frame
        levels = {str(name): frame[name].tolist() for name in frame.columns}
        texts = {str(name): level_texts(frame[name]).tolist() for name in frame.columns}
        return cls(frame.index.tolist(), levels, texts)

    def take(self, places: Iterable[int]) -> Cells:
        """The cells at these places, counted from 0."""
        kept = list(places)
        return Cells(
            [self.labels[i] for i in kept],
            {name: [column[i] for i in kept] for name, column in self.levels.items()},
            {name: [column[i] for i in kept] for name, column in self.texts.items()},
        )

    def at(self, where: Mapping[str, Collection[str]]) -> list[int]:
        """The places of the cells at one of these levels of each factor, as `level_text` writes them."""
        kept: Iterable[int] = range(len(self.labels))
        for factor, wanted in where.items():
            column = self.texts[factor]
            kept = [i for i in kept if column[i] in wanted]
        return list(kept)

    def keys(self, factors: Sequence[str]) -> list[tuple[str, ...]]:
        """The levels of these factors in every cell, as texts."""
        columns = [self.texts[name] for name in factors]
        return list(zip(*columns, strict=True)) if columns else [()] * len(self.labels)


@dataclass(frozen=True)
class Weights:
    """What a contrast means on given cells.

    cells, stratum, weight (W,): labels of the cells that carry weight, their data sets, and their weights. The
        estimate within a stratum is the weighted sum of its cell means; the fixed estimand is the
        mean of the strata.
    combinations: for each stratum, the combinations of the other factors that the contrast is
        averaged over.
    incomplete: combinations left out because a needed cell is not there, in words.
    """

    cells: tuple[Any, ...]
    stratum: tuple[str, ...]
    weight: tuple[float, ...]
    combinations: dict[str, list[dict[str, Level]]]
    incomplete: list[str]

    @property
    def strata(self) -> list[str]:
        """Data sets on which the contrast is defined, in the order of the cells."""
        return list(self.combinations)

    @property
    def table(self) -> pd.DataFrame:
        """One row a weight, its index the cell: columns `stratum` and `weight`."""
        columns = {"stratum": self.stratum, "weight": np.array(self.weight, dtype=float)}
        return pd.DataFrame(columns, index=pd.Index(self.cells, name="cell"))


@dataclass(frozen=True)
class Contrast:
    """A parsed contrast.

    terms: one level for each of `factors` (same order) -> its coefficient (0 for a level that only
        a trend needs). ordered: factor -> the levels of its trend, in order.
    """

    text: str
    factors: tuple[str, ...]
    terms: Mapping[tuple[str, ...], float]
    ordered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def rises(self) -> bool:
        """Whether it is one trend, forwards, and merely averages over levels of other factors."""
        if len(self.ordered) != 1:
            return False
        factor, levels = next(iter(self.ordered.items()))
        at = self.factors.index(factor)
        found: dict[tuple[str, ...], list[float]] = {}
        for level in levels:
            for term, coefficient in self.terms.items():
                if term[at] == level:
                    found.setdefault((*term[:at], *term[at + 1 :]), []).append(coefficient)
        return all(
            len(line) == len(levels) and all(a < b for a, b in itertools.pairwise(line))
            for line in found.values()
        )

    def weights(self, cells: pd.DataFrame | Cells) -> Weights:
        """Weights of the cells, one row each, with columns `data` and the factors (and nothing
        else).

        Within a data set the contrast is taken in every combination of the factors it does not
        name for which all the cells it needs exist, and these combinations count equally.

        Raises ValueError when a column is missing or a cell stands twice.
        """
        cells = Cells.of(cells)
        missing = [name for name in ("data", *self.factors) if name not in cells.levels]
        if missing:
            raise ValueError(f"cells lack the columns {missing}")
        others = [name for name in cells.levels if name != "data" and name not in self.factors]
        data = [ACROSS if "data" in self.factors else str(name) for name in cells.levels["data"]]
        groups: dict[tuple[str, ...], dict[tuple[str, ...], object]] = {}
        first: dict[tuple[str, ...], int] = {}
        rows = zip(data, cells.keys(others), cells.keys(self.factors), strict=True)
        for place, (stratum, key, levels) in enumerate(rows):
            group = (stratum, *key)
            found = groups.setdefault(group, {})
            first.setdefault(group, place)
            if levels not in self.terms:
                continue
            if levels in found:
                row = {name: column[place] for name, column in cells.levels.items()}
                raise ValueError(f"the cell {row} stands twice")
            found[levels] = cells.labels[place]
        shown = {
            group: {name: cells.levels[name][place] for name in others}
            for group, place in first.items()
        }
        incomplete = []
        complete: dict[str, list[tuple[str, ...]]] = {}
        for group, found in groups.items():
            if len(found) == len(self.terms):
                complete.setdefault(group[0], []).append(group)
            elif found:
                lacking = [_say(self.factors, t) for t in self.terms if t not in found]
                combination = ", ".join(f"{k} {v}" for k, v in shown[group].items())
                incomplete.append(f"{group[0]} ({combination}) lacks {'; '.join(lacking)}")
        weighted = [
            (groups[group][levels], stratum, float(coefficient / len(members)))
            for stratum, members in complete.items()
            for group in members
            for levels, coefficient in self.terms.items()
        ]
        labels, strata, weights = zip(*weighted, strict=True) if weighted else ((), (), ())
        combinations = {s: [shown[g] for g in m] for s, m in complete.items()}
        return Weights(labels, strata, weights, combinations, incomplete)


def _say(factors: Sequence[str], levels: Sequence[str]) -> str:
    return " : ".join(f"{named(f, x)}" for f, x in zip(factors, levels, strict=True))


def parse(text: str, levels: Mapping[str, Sequence[Level]] | None = None) -> Contrast:
    """Read a contrast.

    levels: the declared ones (which may hold `data`), to refuse others; None takes any.

    Raises UserError with the position (characters from 1) of what is wrong and the nearest name.
    """
    return _parsed(text) if levels is None else _read(text, levels)


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Contrast:
    return _read(text, None)


def _read(text: str, levels: Mapping[str, Sequence[Level]] | None) -> Contrast:
    parser = _Parser(text, levels)
    total = parser.sum()
    parser.end()
    if any(not abs(c) <= LARGEST for c in total.values()):
        raise parser.wrong(0, f"a coefficient is above {LARGEST:,.0f}")
    if all(abs(c) <= 1e-12 for c in total.values()):
        raise parser.wrong(0, "it is zero whatever the cells are")
    terms = {t: c for t, c in total.items() if parser.ordered or abs(c) > 1e-12}
    factors = tuple(dict.fromkeys(parser.factors))
    sorted_terms = sorted((tuple(dict(t)[f] for f in factors), c) for t, c in terms.items())
    return Contrast(text, factors, dict(sorted_terms), parser.ordered)


class _Parser:
    """Recursive descent: sum = product {(+|-) product}; product = scaled {: scaled}."""

    def __init__(self, text: str, levels: Mapping[str, Sequence[Level]] | None) -> None:
        self.text = text
        self.levels = levels
        self.at = 0
        self.depth = 0
        if len(text) > LONGEST:
            raise self.wrong(LONGEST, f"it is longer than {LONGEST:,} characters")
        self.factors: list[str] = []  # in the order in which they are named
        self.ordered: dict[str, tuple[str, ...]] = {}  # the levels of each trend

    def wrong(self, position: int, message: str) -> UserError:
        shown = one_line(self.text, SHOWN)
        return UserError(f"contrast '{shown}', position {position + 1}: {message}.")

    def peek(self) -> tuple[str, str, int, int]:
        """Kind, text, start and end of the next token; kind is empty at the end."""
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            rest = self.text[self.at :]
            if not rest.strip():
                return "", "", len(self.text), len(self.text)
            start = self.at + len(rest) - len(rest.lstrip())
            raise self.wrong(start, f"'{self.text[start]}' has no meaning here")
        kind = str(match.lastgroup)
        return kind, match[kind], match.start(kind), match.end(kind)

    def take(self, *signs: str) -> str | None:
        kind, token, _, end = self.peek()
        if kind == "sign" and token in signs:
            self.at = end
            return token
        return None

    def known(self, factor: str, start: int, level: str, position: int) -> None:
        """Refuse a factor or level that is not declared."""
        if self.levels is None:
            return
        where = f"contrast '{one_line(self.text, SHOWN)}', position"
        if factor not in self.levels:
            raise unknown(f"{where} {start + 1}: the factor", factor, self.levels)
        if find_level(level, self.levels[factor]) is None:
            raise unknown(f"{where} {position + 1}: the {factor}", level, self.levels[factor])

    def end(self) -> None:
        kind, token, start, _ = self.peek()
        if kind:
            raise self.wrong(start, f"'{token}' is not expected; terms are joined by +, - or :")

    def sum(self) -> _Sum:
        total: _Sum = {}
        sign = self.take("+", "-") or "+"
        while True:
            start = self.peek()[2]
            for term, coefficient in self.product().items():
                known = next(iter(total), term)
                if {f for f, _ in known} != {f for f, _ in term}:
                    here, there = ", ".join(sorted(dict(term))), ", ".join(sorted(dict(known)))
                    raise self.wrong(
                        start,
                        f"this term names {here} and an earlier one {there}; all terms of a sum "
                        "name the same factors (are parentheses missing?)",
                    )
                total[term] = total.get(term, 0.0) + (coefficient if sign == "+" else -coefficient)
            found = self.take("+", "-")
            if found is None:
                return total
            sign = found

    def product(self) -> _Sum:
        result = self.scaled()
        while True:
            start = self.peek()[2]
            if self.take(":") is None:
                return result
            other = self.scaled()
            shared = {f for t in result for f, _ in t} & {f for t in other for f, _ in t}
            if shared:
                raise self.wrong(start, f"both sides of ':' name {', '.join(sorted(shared))}")
            if len(result) * len(other) > TERMS:
                raise self.wrong(start, f"it has more than {TERMS:,} products of levels")
            result = {a | b: x * y for a, x in result.items() for b, y in other.items()}

    def scaled(self) -> _Sum:
        kind, token, start, end = self.peek()
        scale = 1.0
        if kind == "number":
            scale = float(token)
            if scale > LARGEST:
                raise self.wrong(start, f"a coefficient is above {LARGEST:,.0f}")
            self.at = end
            self.take("*")
            kind, token, start, end = self.peek()
        if kind == "name" and token in TRENDS and self.text[end:].lstrip().startswith("("):
            inner = self.trend()
        elif kind == "name":
            inner = self.level_mean()
        elif self.take("("):
            self.depth += 1
            if self.depth > DEEPEST:
                raise self.wrong(start, f"more than {DEEPEST} parentheses in each other")
            inner = self.sum()
            self.depth -= 1
            if self.take(")") is None:
                raise self.wrong(self.peek()[2], "a ')' is missing")
        else:
            found = f"'{token}'" if kind else "the end"
            raise self.wrong(start, f"expected factor[level], a number or '(', found {found}")
        return {term: scale * coefficient for term, coefficient in inner.items()}

    def level_mean(self) -> _Sum:
        """`factor[level, level]`: the mean over the levels. A level is any text without comma and
        bracket, or any at all in single quotes."""
        factor, levels = self.listed()
        return {frozenset({(factor, level)}): 1.0 / len(levels) for level in levels}

    def trend(self) -> _Sum:
        """`trend(factor[level, level, ...])` or `log_trend(...)`: the rise of the fitted line."""
        _, name, _, end = self.peek()
        self.at = end
        self.take("(")
        inside, kind = self.peek()[2], self.peek()[0]
        if kind != "name":
            raise self.wrong(inside, f"'{name}(' takes one factor with its levels in order")
        factor, levels = self.listed()
        if self.take(")") is None:
            raise self.wrong(self.peek()[2], f"expected the ')' of '{name}('")
        if len(levels) < 2:
            raise self.wrong(inside, "a trend needs two levels or more")
        if self.ordered.get(factor, tuple(levels)) != tuple(levels):
            raise self.wrong(inside, f"another trend lists other levels of '{factor}'")
        self.ordered[factor] = tuple(levels)
        places = [float(i) for i in range(len(levels))]
        if name == "log_trend":
            places = [self.log_of(level, inside) for level in levels]
            steps = [b - a for a, b in itertools.pairwise(places)]
            if not (all(s > 0 for s in steps) or all(s < 0 for s in steps)):
                raise self.wrong(inside, "the levels of a log_trend rise or fall throughout")
        centre = math.fsum(places) / len(places)
        squares = math.fsum((x - centre) ** 2 for x in places)
        rise = (places[-1] - places[0]) / squares
        weights = [rise * (x - centre) for x in places]
        return {
            frozenset({(factor, level)}): weight if abs(weight) > 1e-12 else 0.0
            for level, weight in zip(levels, weights, strict=True)
        }

    def log_of(self, level: str, position: int) -> float:
        try:
            value = float(level)
        except ValueError:
            value = math.nan
        if not value > 0.0 or math.isinf(value):
            raise self.wrong(position, f"the logarithm of the level '{level}' doesn't exist")
        return math.log(value)

    def listed(self) -> tuple[str, list[str]]:
        """`factor[level, level]`: the factor and its levels, as texts."""
        _, factor, start, end = self.peek()
        self.at = end
        if self.take("[") is None:
            raise self.wrong(self.peek()[2], f"expected '[' and a level after '{factor}'")
        self.factors.append(factor)
        levels: list[str] = []
        opened = self.at
        while True:
            match = _LEVEL.match(self.text, self.at)
            assert match is not None  # it matches nothing at all, too
            position, end = match.end("space"), match.end()
            quoted = match["quoted"]
            level = level_text(
                match["plain"]
                if quoted is None
                else quoted[1:-1].replace("\\'", "'").replace("\\\\", "\\")
            )
            if not level or (quoted is None and "[" in level):
                raise self.wrong(position, f"a level of '{factor}' is missing")
            if level in levels:
                raise self.wrong(position, f"'{level}' stands twice")
            after = self.text[end : end + 1]
            if not after:
                raise self.wrong(opened, f"the ']' of '{factor}[' is missing")
            if after not in ",]":
                raise self.wrong(end, f"expected ',' or ']', found '{after}'")
            levels.append(level)
            self.known(factor, start, level, position)
            self.at = end + 1
            if after == "]":
                return factor, levels
