"""What a study claims before it runs, and which of the claims a set of cells can test."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pandas as pd
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ablate import registry
from ablate.config import Section
from ablate.errors import UserError
from ablate.study.contrast import (
    ACROSS,
    Cells,
    Contrast,
    Level,
    Weights,
    level_text,
    level_texts,
    named,
    parse,
)

_PAIRS = re.compile(r"\s*each pair of ([A-Za-z_][A-Za-z0-9_.-]*)\s*(?::(.*))?", re.DOTALL)


def pairs(contrast: str) -> str | None:
    """The factor of "each pair of FACTOR", with or without a further contrast, else None."""
    match = _PAIRS.fullmatch(contrast)
    return match[1] if match else None


class Hypothesis(Section):
    """One line of the study's claims.

    id: its name. says: the claim, in a sentence.
    contrast: see `ablate.study.contrast`, or "each pair of FACTOR": it must hold for every pair of
        its levels. "each pair of FACTOR : CONTRAST" is about the pair's interaction with another contrast.
    estimator: in place of `contrast`, a registered estimator with its options, e.g.
        {ratio: {of: "...", over: "..."}} (see `ablate.analyse.estimators`).
    where: the levels at which the cells are taken, e.g. {data: lq-mix/single, condition: time}; a
        factor named nowhere is averaged over.
    metric: the response that it is about, by its qualified name such as rollout.score.
    each: a factor; the claim must hold at every level of it (an intersection-union test, which
        needs no correction).
    test: `equivalence`: |contrast - around| < margin. `superiority`: contrast > threshold.
        `difference`: contrast != around. `trend`: the metric rises along the levels that the
        contrast's `trend(...)` lists.
    estimand: `fixed`: about these data sets, for new seeds. `population`: about new data sets, of
        which these are a sample. The verdict rests on this one; the other is reported beside it.
    threshold: of superiority, in the metric's unit. around: what an equivalence or a difference is about.
    primary: whether it is of the family `primary`.
    margin: in units of the metric; the study's when not given, and None for a metric that is not in
        normalised points.
    family: hypotheses of one family are corrected together; by default `primary` and `secondary`.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    says: str = Field(min_length=1)
    contrast: str = ""
    estimator: dict[str, dict[str, Any]] | None = None
    where: dict[str, Level | list[Level]] = Field(default={})
    each: str | None = None
    metric: str = "score"
    test: Literal["equivalence", "superiority", "difference", "trend"]
    estimand: Literal["fixed", "population"] = "fixed"
    margin: float | None = Field(default=None, gt=0)
    threshold: float = 0.0
    around: float = 0.0
    primary: bool = False
    family: str = Field(default="", max_length=100)

    @model_validator(mode="after")
    def _consistent(self) -> Hypothesis:
        """A trend test needs one trend; a population of data sets can't be compared in parts; there is one
        thing to estimate."""
        if (self.estimator is None) == (not self.contrast):
            raise ValueError("give either 'contrast' or 'estimator'")
        if self.estimator is not None:
            if len(self.estimator) != 1:
                raise ValueError("'estimator' names one estimator, with its options")
            if self.test == "trend" or self.estimand == "population":
                raise ValueError(
                    "an estimator is about these data sets; allowed with it: the estimand fixed, the tests"
                    " equivalence, superiority and difference"
                )
            return self
        if self.test != "trend" and self.estimand == "fixed":
            return self
        try:
            contrast = None if self.pairs_of else parse(self.contrast)
        except UserError:
            return self  # refused where the declared levels are known
        if self.estimand == "population" and (
            self.each == "data"
            or self.pairs_of == "data"
            or (contrast and "data" in contrast.factors)
        ):
            raise ValueError(
                "the estimand 'population' asks about new data sets, and this claim is about single"
                " ones; allowed here: fixed"
            )
        if self.test == "trend":
            if contrast is None or not contrast.rises:
                raise ValueError(
                    f"the test 'trend' needs a contrast such as trend(context[1, 5, 20]), found"
                    f" '{self.contrast}'; it may name levels of other factors after ':', not compare"
                    " them"
                )
            if self.threshold or self.around:
                raise ValueError(
                    "the test 'trend' is about any rise: 'threshold' and 'around' don't belong to it"
                )
        return self

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the default estimand and estimator: files from before they existed keep their hash."""
        content: dict[str, Any] = handler(self)
        if content.get("estimand") == "fixed":
            del content["estimand"]
        if content.get("estimator") is None:
            content.pop("estimator", None)
        return content

    @property
    def pairs_of(self) -> str | None:
        """The factor of "each pair of FACTOR", else None."""
        return pairs(self.contrast)

    def pair(self, first: Level, second: Level) -> Contrast:
        """The contrast of one pair of levels of `pairs_of`."""
        match = _PAIRS.fullmatch(self.contrast)
        assert match is not None
        factor, beside = match.groups()
        apart = f"{named(factor, first)} - {named(factor, second)}"
        return parse(f"({apart}) : ({beside})" if beside else apart)

    def levels_at(self, factor: str) -> list[Level] | None:
        """The levels that `where` keeps of a factor, or None when it keeps all."""
        kept = self.where.get(factor)
        if kept is None:
            return None
        return list(kept) if isinstance(kept, list) else [kept]


class Claiming(Protocol):
    """What a study has that claims something, whoever made its runs."""

    @property
    def alpha(self) -> float: ...

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]: ...

    @property
    def levels(self) -> Mapping[str, tuple[Level, ...]]: ...


@dataclass(frozen=True)
class Claim:
    """One contrast on one selection of cells. A hypothesis holds when all its claims hold.

    label: what sets the claim apart within its hypothesis, e.g. "mixer gru"; empty when there is
    only one. estimator: what estimates it, None for the contrast itself (which then only carries the words).
    replicates: finished seeds that a cell needs; one is enough where data sets are the
    sample.
    """

    label: str
    contrast: Contrast
    where: Mapping[str, tuple[str, ...]]
    replicates: int = 2
    estimator: Callable[..., Any] | None = None

    def select(self, cells: pd.DataFrame) -> pd.DataFrame:
        """The rows at which `where` holds, with their index."""
        keep = pd.Series(True, index=cells.index)
        for factor, levels in self.where.items():
            keep &= level_texts(cells[factor]).isin(levels)
        return cells[keep]

    def weights(self, cells: pd.DataFrame | Cells) -> Weights:
        """Weights on the selected cells; see `Contrast.weights`. Other rows carry none."""
        cells = Cells.of(cells)
        return self.contrast.weights(cells.take(cells.at(self.where)))


@dataclass(frozen=True)
class Coverage:
    """What of a hypothesis a set of cells can test: the claims that have their cells, and in words
    what is missing."""

    hypothesis: Hypothesis
    claims: tuple[Claim, ...]
    missing: tuple[str, ...]

    @property
    def tested(self) -> bool:
        """Whether at least one claim has its cells."""
        return bool(self.claims)

    @property
    def words(self) -> str:
        """`tested`, `tested in part (...)` or `not tested at this profile`."""
        if not self.claims:
            return "not tested at this profile"
        if self.missing:
            shown, more = "; ".join(self.missing[:3]), len(self.missing) - 3
            return f"tested in part (not run: {shown}{f' and {more} more' if more > 0 else ''})"
        return "tested"


def claims(hypothesis: Hypothesis, levels: Mapping[str, Sequence[Level]]) -> list[Claim]:
    """All claims of a hypothesis over the declared levels (`levels` holds `data` too)."""
    where = {
        factor: tuple(level_text(level) for level in hypothesis.levels_at(factor) or ())
        for factor in hypothesis.where
    }
    pairs_of = hypothesis.pairs_of
    if hypothesis.estimator is not None:
        asked = _estimated(hypothesis, levels)
    elif pairs_of is None:
        asked = [("", parse(hypothesis.contrast), None)]
    else:
        among = hypothesis.levels_at(pairs_of) or levels[pairs_of]
        where.pop(pairs_of, None)
        asked = [
            (f"{a} - {b}", hypothesis.pair(a, b), None) for a, b in itertools.combinations(among, 2)
        ]
    replicates = 1 if hypothesis.estimand == "population" else 2
    if hypothesis.each is None:
        return [Claim(label, c, where, replicates, how) for label, c, how in asked]
    return [
        Claim(
            ", ".join(filter(None, (f"{hypothesis.each} {level}", label))),
            contrast,
            {**where, hypothesis.each: (level_text(level),)},
            replicates,
            how,
        )
        for level in hypothesis.levels_at(hypothesis.each) or levels[hypothesis.each]
        for label, contrast, how in asked
    ]


def _estimated(
    hypothesis: Hypothesis, levels: Mapping[str, Sequence[Level]]
) -> list[tuple[str, Contrast, Any]]:
    """Label, words and estimator of every claim of a hypothesis with an estimator."""
    assert hypothesis.estimator is not None
    ((name, options),) = hypothesis.estimator.items()
    where = f"hypothesis '{hypothesis.id}': the estimator"
    kind = registry.get("estimator", name, where)
    here = {f: hypothesis.levels_at(f) or levels[f] for f in levels}
    made = [(label, kind(mine, f"{where} '{name}'")) for label, mine in kind.parts(options, here)]
    return [(label, Contrast(f"{name} {one.says}", (), {}), one) for label, one in made]


def coverage(
    hypothesis: Hypothesis, levels: Mapping[str, Sequence[Level]], cells: pd.DataFrame | Cells
) -> Coverage:
    """Which claims of the hypothesis the cells (columns `data` and the factors) can test.

    A claim over several data sets of which only some were run is kept, and what is missing is said;
    one about new data sets needs two.
    """
    kept: list[Claim] = []
    missing: list[str] = []
    for claim in claims(hypothesis, levels):
        strata = claim.weights(cells).strata
        if len(strata) < (2 if hypothesis.estimand == "population" else 1):
            missing.append(claim.label or claim.contrast.text)
            continue
        kept.append(claim)
        wanted = claim.where.get("data", ()) if strata != [ACROSS] else ()
        absent = [data for data in wanted if data not in strata]
        if absent:
            missing.append(f"{claim.label}{' on ' if claim.label else ''}{', '.join(absent)}")
    return Coverage(hypothesis, tuple(kept), tuple(missing))
