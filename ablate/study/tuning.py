"""`tune:` every arm of a study gets the same draws from the same space, judged on data that nothing else uses.

The draws are a Halton sequence without scrambling (J. H. Halton, Numerische Mathematik 2 (1960) 84-90), so
that they are the same in each arm and the first n of more are the draws of a tuning of n. They are ordinary
fits, under streams and on a split of the training episodes of their own. Each arm then runs with the draw
whose mean judge over the tuning seeds is best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from ablate.registry import Section
from ablate.study.contrast import Level, level_text
from ablate.words import response

Arm = tuple[str, ...]  # one level of each factor of `per`, as text
Scale = Literal["log", "linear"]


class TuneSection(Section):
    """How the settings of each arm are chosen before the study runs.

    draws: settings tried in each arm. space: path -> [low, high, "log" or "linear"], or a list of choices under
    `choices`. judge: the response that decides, by its direction. per: factors whose levels are the arms; what
    else varies is at the first level that the arm's cells have. seeds: tuning seeds, none of which is reported.
    """

    draws: int = Field(ge=1, le=1000)
    space: dict[str, tuple[float, float, Scale] | dict[Literal["choices"], list[Level]]] = Field(
        min_length=1, max_length=50
    )
    judge: str = "held-out.loss"
    per: tuple[str, ...] = Field(min_length=1)
    seeds: int = Field(default=1, ge=1, le=1000)

    @field_validator("space")
    @classmethod
    def _ranges(cls, space: dict[str, Any]) -> dict[str, Any]:
        for path, found in space.items():
            if isinstance(found, dict):
                if len(found.get("choices", ())) < 2:
                    raise ValueError(f"{path}: expected two choices or more")
                continue
            low, high, scale = found
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"{path}: expected [low, high, scale] with low < high")
            if scale == "log" and low <= 0:
                raise ValueError(f"{path}: a logarithmic range starts above 0")
        return space

    def settings(self) -> list[dict[str, Level]]:
        """The draws, in order: path -> value. A range between whole numbers gives whole numbers."""
        from scipy.stats import qmc  # a second to import, and few studies tune

        draws = qmc.Halton(len(self.space), scramble=False).random(self.draws + 1)
        unit = draws[1:]  # the first is a corner
        return [
            {
                path: self._value(found, float(u))
                for (path, found), u in zip(self.space.items(), point, strict=True)
            }
            for point in unit
        ]

    @staticmethod
    def _value(found: Any, u: float) -> Level:
        if isinstance(found, dict):
            choices: list[Level] = found["choices"]
            return choices[min(int(u * len(choices)), len(choices) - 1)]
        low, high, scale = found
        if scale == "log":
            return float(np.format_float_positional(low * (high / low) ** u, 4, fractional=False))
        return float(np.format_float_positional(low + (high - low) * u, 4, fractional=False))


@dataclass(frozen=True)
class Chosen:
    """What tuning found: arm -> the settings that it runs with. arms: the factors that name an arm."""

    per: tuple[str, ...]
    settings: Mapping[Arm, Mapping[str, Level]]

    def of(self, levels: Mapping[str, Level]) -> Mapping[str, Level]:
        """The settings of the arm that a cell belongs to; nothing where it wasn't tuned."""
        return self.settings.get(arm_of(self.per, levels), {})


def arm_of(per: Sequence[str], levels: Mapping[str, Any]) -> Arm:
    """The arm of a cell (`levels` holds `data` too)."""
    return tuple(level_text(levels[name]) for name in per)


def judged(
    table: pd.DataFrame, metric: str, seeds: int, arms: Mapping[str, tuple[Arm, int]]
) -> dict[Arm, dict[int, float]]:
    """Mean of a response over the tuning seeds by arm and draw; a draw of which a seed failed is left out.

    table: the tidy table of tuning trials. arms: trial -> its arm and draw.
    """
    found: dict[Arm, dict[int, list[float]]] = {}
    for row in table.to_dict("records"):
        value = row.get(metric)
        if row["trial"] in arms and row["status"] == "COMPLETED" and value is not None:
            arm, draw = arms[row["trial"]]
            found.setdefault(arm, {}).setdefault(draw, []).append(float(value))
    means = {
        arm: {d: float(np.mean(values)) for d, values in draws.items() if len(values) == seeds}
        for arm, draws in found.items()
    }
    return {
        arm: {d: value for d, value in sorted(draws.items()) if not math.isnan(value)}
        for arm, draws in means.items()
    }


def best(found: Mapping[int, float], judge: str, draws: int) -> int | None:
    """The best of the first `draws` draws, by the judge's direction; None where none of them ended well."""
    sign = 1.0 if response(judge).direction == "higher" else -1.0
    tried = {draw: sign * value for draw, value in found.items() if draw < draws}
    return max(tried, key=lambda draw: tried[draw]) if tried else None


def choose(table: pd.DataFrame, tune: TuneSection, arms: Mapping[str, tuple[Arm, int]]) -> Chosen:
    """The best draw of each arm."""
    settings = tune.settings()
    found = judged(table, tune.judge, tune.seeds, arms)
    chosen = {arm: best(draws, tune.judge, tune.draws) for arm, draws in found.items()}
    return Chosen(
        tune.per, {arm: settings[draw] for arm, draw in chosen.items() if draw is not None}
    )


def by_draws(
    table: pd.DataFrame, tune: TuneSection, arms: Mapping[str, tuple[Arm, int]], metric: str
) -> pd.DataFrame:
    """What the study would have scored with 1, 2, 4, ... draws: columns arm, draws, value.

    value: the mean of `metric` over the tuning seeds of the draw that the judge would have chosen.
    """
    judge = judged(table, tune.judge, tune.seeds, arms)
    scores = judged(table, metric, tune.seeds, arms)
    powers = itertools.takewhile(lambda n: n < tune.draws, (2**k for k in itertools.count()))
    rows = []
    for draws in (*powers, tune.draws):
        for arm, found in judge.items():
            draw = best(found, tune.judge, draws)
            if draw is not None and draw in scores.get(arm, {}):
                rows.append({"arm": " ".join(arm), "draws": draws, "value": scores[arm][draw]})
    return pd.DataFrame(rows, columns=["arm", "draws", "value"])
