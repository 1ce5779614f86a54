"""What `python -m ablate power` prints and keeps: the forecasts of a study's hypotheses."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analyse import power
from ablate.analyse.descriptive import pairing
from ablate.analyse.power import MOST_DATA_SETS, MOST_SEEDS, POWER, Estimand, Forecast
from ablate.analyse.spreads import PUBLISHED, WORST_CASE, Spreads, from_pilot, published
from ablate.analyse.tidy import check, factor_columns, finished
from ablate.errors import UserError, unknown
from ablate.study import expand
from ablate.study.cost import spell, trial_seconds
from ablate.study.foreign import ForeignStudy
from ablate.study.schema import Study
from ablate.words import p_said, response, significant

SECONDS = "seconds"  # a pilot's column with the measured duration of its trials
REPETITIONS = 1000


@dataclass(frozen=True)
class PowerTable:
    """The forecasts of a study and what they rest on. paired: what pairing by seeds buys."""

    study: str
    profile: str
    seeds: int
    alpha: float
    forecasts: tuple[Forecast, ...]
    sources: tuple[str, ...]
    paired: str
    priced: str

    def text(self) -> str:
        """Both tables and what has to be known to read them, as plain text."""
        at = f", profile {self.profile}" if self.profile else ""
        head = [
            f"{self.study}{at}: what {self.seeds} seeds a cell can show at "
            f"alpha {self.alpha:g} after Holm, by {REPETITIONS} simulated studies of the tests that "
            "give the verdict.",
            "Effects are distances beyond the threshold (superiority, difference, trend) or margins "
            f"(equivalence, with no true difference); detectable: power {POWER:.0%}. In parentheses: "
            "by formula, and at the upper 80 % limit of the pilot's SD, as pilots understate it.",
            "",
        ]
        fixed = [_fixed_row(f) for f in self.forecasts if not f.fixed.reason]
        lines = [*head, "Fixed estimand: these data sets, new seeds"]
        lines += _aligned(
            ["hypothesis", "test", "effect", "power", "detectable", "seeds needed", "cost"], fixed
        )
        drawn = [
            _population_row(f)
            for f in self.forecasts
            if f.population.planned is not None or f.population.needed is not None
        ]
        lines += ["", "Population estimand: new data sets, t over the data sets' contrasts"]
        if drawn:
            lines += _aligned(
                ["hypothesis", "data sets", "power", "detectable", "data sets needed", "cost"],
                drawn,
            )
        lines += _reasons(self.forecasts)
        drawn_from = [f.hypothesis for f in self.forecasts if f.estimand == "population"]
        if drawn_from:
            lines.append(f"  Verdicts rest on the population estimand: {', '.join(drawn_from)}.")
        lines += ["", *(f"Spreads of {source}." for source in self.sources)]
        lines += [line for line in (self.paired, self.priced) if line]
        error = 2.0 * math.sqrt(POWER * (1.0 - POWER) / REPETITIONS)
        lines.append(f"Monte-Carlo error of a power of {POWER:.0%}: {100 * error:.1f} points.")
        return "\n".join(lines)

    def frame(self) -> pd.DataFrame:
        """One row a hypothesis and estimand."""
        rows = []
        for one in self.forecasts:
            shared = {
                name: getattr(one, name)
                for name in (
                    *("hypothesis", "test", "metric", "primary", "family"),
                    *("effect", "data_sets", "cells", "seeds", "source"),
                )
            }
            for estimand in ("fixed", "population"):
                found: Estimand = getattr(one, estimand)
                declared = {"estimand": estimand, "declared": one.estimand == estimand}
                rows.append({**shared, **declared, **dataclasses.asdict(found)})
        return pd.DataFrame(rows)

    def record(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "study": self.study,
            "profile": self.profile,
            "seeds": self.seeds,
            "alpha": self.alpha,
            "sources": list(self.sources),
            "pairing": self.paired,
            "forecasts": [dataclasses.asdict(one) for one in self.forecasts],
        }

    def files(self) -> dict[str, str]:
        """power.csv and power.json: name -> content."""
        return {
            "power.csv": self.frame().to_csv(index=False, lineterminator="\n"),
            "power.json": json.dumps(self.record(), indent=1) + "\n",
        }


def make(
    study: Study | ForeignStudy,
    pilot: pd.DataFrame | None = None,
    *,
    name: str = "the pilot",
    spreads: str | None = None,
    repetitions: int = REPETITIONS,
) -> PowerTable:
    """The power of a study: of one of ours at its profile, of one about somebody else's runs with
    the cells and the usual number of seeds of their table.

    pilot: a tidy table of trials, called `name`; without one, or with `spreads` (a name of
    `spreads.PUBLISHED`), published spreads. Raises UserError for a study without hypotheses, a table that
    cannot be read, or when nothing can be said of any hypothesis.
    """
    if not study.hypotheses:
        raise UserError(f"power: the study '{study.study}' declares no hypotheses.")
    cells = expand.cells(study) if isinstance(study, Study) else []
    if isinstance(study, Study):
        design, seeds = expand.frame(cells, study), study.seeds
    elif pilot is None:
        raise UserError(
            f"power: the study '{study.study}' is about runs from elsewhere, so their table is its "
            "pilot; give it with --pilot TABLE."
        )
    else:
        rows = pilot.loc[finished(pilot)]
        design = rows[factor_columns(pilot)].drop_duplicates().reset_index(drop=True)
        counts = rows.groupby(factor_columns(pilot), observed=True).size()
        seeds = int(counts.median()) if len(counts) else 0
    if spreads is not None or pilot is None:
        pilot, chosen = None, spreads or WORST_CASE
        if chosen not in PUBLISHED:
            raise unknown("published spreads", chosen, PUBLISHED)
    known: dict[str, Spreads | str] = {}
    for metric in dict.fromkeys(h.metric for h in study.hypotheses):
        try:
            if pilot is None:
                known[metric] = published(chosen, design, metric)
            else:
                check(pilot, [metric])
                known[metric] = from_pilot(pilot, design, metric, name)
        except UserError as error:
            known[metric] = str(error).rstrip(".")
    main = next((h.metric for h in study.hypotheses if h.primary), study.hypotheses[0].metric)
    if pilot is not None and isinstance(known[main], str):
        raise UserError(f"{known[main]}.")
    seconds, priced = _seconds(cells, pilot, len(design))
    forecasts = power.forecast(
        study.hypotheses,
        study.levels,
        design,
        known,
        seeds=seeds,
        alpha=study.alpha,
        margin=study.margin,
        seconds=seconds,
        repetitions=repetitions,
        paired=study.paired,
    )
    if pilot is not None:
        forecasts = [
            dataclasses.replace(
                one,
                fixed=Estimand(
                    planned=power.on_pilot(
                        hypothesis,
                        study.levels,
                        pilot,
                        seeds=seeds,
                        alpha=study.alpha,
                        margin=study.margin,
                        paired=study.paired,
                    )
                ),
            )
            if hypothesis.estimator is not None
            else one
            for one, hypothesis in zip(forecasts, study.hypotheses, strict=True)
        ]
    return PowerTable(
        study=study.study,
        profile=study.profile if isinstance(study, Study) else "",
        seeds=seeds,
        alpha=study.alpha,
        forecasts=tuple(forecasts),
        sources=tuple(_source(metric, one) for metric, one in known.items()),
        paired=_paired(pilot, main) if pilot is not None else "",
        priced=priced,
    )


def from_files(
    study: Study | ForeignStudy,
    results: Path,
    pilot: Path | None,
    spreads: str | None,
    read: Callable[[Path], Any],
) -> PowerTable:
    """`make` with the pilot at `pilot`, else the study's own trials under `results`, else published
    spreads; `read` gives a table."""
    own = results / study.study / "trials.csv"
    if pilot is not None and spreads is not None:
        raise UserError("power: found both --pilot and --published; allowed: one of them.")
    path = pilot if pilot is not None else own if own.exists() and spreads is None else None
    if path is None:
        return make(study, spreads=spreads)
    return make(study, read(path), name=str(path))


def _seconds(
    cells: Sequence[expand.Cell], pilot: pd.DataFrame | None, count: int
) -> tuple[list[float] | None, str]:
    """Seconds of a trial of each of `count` cells, and how they are known; None where they aren't."""
    if pilot is not None and SECONDS in pilot.columns and pilot[SECONDS].notna().any():
        mean = float(pilot[SECONDS].mean())
        return [mean] * count, "Costs: at the pilot's mean duration of a trial."
    if not cells:
        return None, f"No costs: the table has no column '{SECONDS}'."
    estimated = [trial_seconds(cell.config) for cell in cells]
    return (
        estimated,
        "Costs: of one worker at the speed this was written on (`run` measures yours).",
    )


def _source(metric: str, known: Spreads | str) -> str:
    if isinstance(known, str):
        return f"{metric}: none ({known})"
    notes = f" ({'; '.join(known.notes)})" if known.notes else ""
    return f"{metric}: {known.source}{notes}"


def _paired(pilot: pd.DataFrame, metric: str) -> str:
    """What pairing buys: sqrt(1 - r) of the detectable difference."""
    if metric not in pilot.columns:
        return ""
    found = pairing(pilot, metric).dropna(subset=["correlation"])
    if found.empty:
        return "Pairing by seeds can't be measured: it takes two cells with three equal seeds."
    mean = float(found["correlation"].mean())
    sure = int((found["p"] < 0.05 / len(found)).sum())
    change = math.sqrt(max(1.0 - mean, 0.0)) - 1.0
    effect = (
        f"paired contrasts detect differences {abs(change):.0%} "
        f"{'smaller' if change < 0 else 'larger'} than unpaired ones do"
    )
    worth = (
        f"; on {sure} of {len(found)} data sets it isn't chance."
        if sure
        else f"; on none of {len(found)} data sets is it beyond chance."
    )
    lowest = float(found["p"].min())
    return (
        f"Measured pairing: equal seeds correlate by r = {significant(mean)} (least "
        f"{p_said(lowest)}); {effect}{worth}"
    )


def _fixed_row(one: Forecast) -> list[str]:
    found = one.fixed
    return [
        _name(one),
        one.test,
        _number(one.effect),
        _percent(found.planned),
        _detectable(found),
        _needed(found, MOST_SEEDS, one.effect),
        spell(found.cost) if found.cost is not None else "-",
    ]


def _population_row(one: Forecast) -> list[str]:
    found = one.population
    return [
        _name(one),
        str(one.data_sets),
        _percent(found.planned),
        _detectable(found),
        _needed(found, MOST_DATA_SETS, one.effect),
        spell(found.cost) if found.cost is not None else "-",
    ]


def _name(one: Forecast) -> str:
    mark = "*" if one.primary else " "
    return f"{mark} {one.hypothesis}" + ("" if response(one.metric).points else f" [{one.metric}]")


def _detectable(found: Estimand) -> str:
    if found.detectable is None:
        return "-"
    return f"{significant(found.detectable)} ({_number(found.formula)}, {_number(found.upper)})"


def _needed(found: Estimand, most: int, effect: float | None) -> str:
    if effect is None:
        return "no margin"
    first = str(found.needed) if found.needed is not None else f"> {most}"
    second = str(found.needed_upper) if found.needed_upper is not None else f"> {most}"
    return first if first == second else f"{first} ({second})"


def _number(value: float | None) -> str:
    return "-" if value is None else significant(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _reasons(forecasts: Sequence[Forecast]) -> list[str]:
    """Why hypotheses are missing from the tables, those of one reason together."""
    found: dict[str, list[str]] = {}
    for one in forecasts:
        if one.fixed.reason:
            found.setdefault(one.fixed.reason, []).append(one.hypothesis)
        elif one.population.reason:
            reason = f"no population estimate: {one.population.reason}"
            found.setdefault(reason, []).append(one.hypothesis)
    return [f"  {', '.join(names)}: {reason}." for reason, names in found.items()]


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, the first flush left."""
    everything = [list(head), *map(list, rows)]
    widths = np.array([[len(cell) for cell in row] for row in everything]).max(axis=0)
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths.tolist(), strict=True))
        ).rstrip()
        for row in everything
    ]
