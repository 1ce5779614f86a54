"""From a study to its cells, trials and cohorts."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ablate import registry
from ablate.config import (
    FACTORS,
    MEASURED,
    OPTIONAL,
    SECTIONS,
    TOKENS,
    budgets,
    fit_part,
    plain,
    settled,
)
from ablate.data import catalogue
from ablate.errors import UserError, unknown
from ablate.models.tokens import tokens_of
from ablate.study import identity, presets
from ablate.study.contrast import Level, find_level
from ablate.study.schema import Study
from ablate.study.tuning import Arm, arm_of

CELLS = 10_000  # of a study
STACK = (
    10  # seeds of a cohort: a larger stack is hardly faster, and each of its runs is open at once
)


@dataclass(frozen=True, eq=False)
class Cell:
    """One combination of levels on one data set. `designs` are those that ask for it."""

    study: Study
    data: str
    levels: dict[str, Level]
    designs: tuple[str, ...]

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Its resolved configuration; a contrast is taken over cells without it."""
        return config(self.study, self.data, self.levels)


@dataclass(frozen=True, eq=False)
class Fit:
    """One cell's training with one seed. `config` is plain JSON without what is measured; `id` hashes all
    that can change the trained model."""

    streams: str
    seed: int
    config: dict[str, Any]
    data_hash: str
    id: str = field(init=False)

    def __post_init__(self) -> None:
        name = identity.fit_id(self.streams, self.seed, self.config, self.data_hash)
        object.__setattr__(self, "id", name)


@dataclass(frozen=True, eq=False)
class Trial:
    """One fit after `budget` updates under one setting of its measurements: a row of the tidy table.

    config: the fit's, with the options of each measurement. levels: those of its cell, by factor. rows:
    measurement -> the id of what it gives.
    """

    fit: Fit
    config: dict[str, Any]
    budget: int
    levels: Mapping[str, Level] = field(default_factory=dict)
    rows: dict[str, str] = field(init=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        rows = {
            name: identity.row_id(self.fit.id, self.budget, name, options)
            for name, options in self.config["measure"].items()
        }
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "id", identity.trial_id(self.fit.id, self.budget, rows))

    @property
    def seed(self) -> int:
        """The training seed, to which the evaluation episodes belong too."""
        return self.fit.seed

    def level(self, factor: str) -> Any:
        """Its level of a factor, or its value of another setting; a cell may have one that nothing in it reads."""
        return self.levels[factor] if factor in self.levels else lookup(self.config, factor)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Fits that differ only in the seed and may train as one program, with all that is measured of them: the
    unit of execution. At most `STACK` seeds that follow each other, so that further seeds leave it as it is."""

    trials: tuple[Trial, ...]
    id: str = field(init=False)

    def __post_init__(self) -> None:
        fit = self.trials[0].fit
        block = f"-{fit.seed // STACK}" if fit.seed >= STACK else ""
        name = identity.cohort_id(fit.streams, fit.config, fit.data_hash) + block
        object.__setattr__(self, "id", name)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of training that all its fits share."""
        return self.trials[0].fit.config

    @property
    def fits(self) -> dict[int, str]:
        """Seed -> the fit's id, by seed."""
        return {t.seed: t.fit.id for t in sorted(self.trials, key=lambda t: t.seed)}

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(self.fits)


def cells(study: Study) -> list[Cell]:
    """All cells of the study's designs, each once, in the order in which data and levels are
    declared."""
    count = sum(
        len(d.data) * math.prod(len(d.levels.get(f, "1")) for f in study.factors)
        for d in study.designs.values()
    )
    if count > CELLS:
        raise UserError(
            f"study '{study.study}', profile '{study.profile}': its designs have {count:,} cells; allowed: {CELLS:,}."
        )
    asked: dict[tuple[int, ...], list[str]] = {}
    values: dict[tuple[int, ...], tuple[str, dict[str, Level]]] = {}
    for name, design in study.designs.items():
        chosen = [design.levels.get(f, levels[:1]) for f, levels in study.factors.items()]
        for data, *levels in itertools.product(design.data, *chosen):
            named = dict(zip(study.factors, levels, strict=True))
            ranks = tuple(study.factors[f].index(level) for f, level in named.items())
            key = (study.data.index(str(data)), *ranks)
            asked.setdefault(key, []).append(name)
            values[key] = str(data), named
    return [Cell(study, *values[key], tuple(dict.fromkeys(asked[key]))) for key in sorted(asked)]


def config(study: Study, data: str, levels: Mapping[str, Level]) -> dict[str, Any]:
    """The resolved configuration of a cell, plain JSON; a level of a dotted factor stands at its
    path. A preset's configuration is changed by what the study itself says, and by nothing else."""
    if "preset" in levels:
        name = str(levels["preset"])
        made = presets.configuration(
            name, data, changes=study.presets.get(name), folder=study.folder
        )
        made |= {name: level for name, level in levels.items() if "." not in name}
        made["settings"] |= study.settings.get(made["algorithm"], {})
    else:
        made = {"data": data, **{name: levels[name] for name in FACTORS}}
        made |= {name: levels.get(name, default) for name, default in OPTIONAL.items()}
        made["settings"] = dict(study.settings.get(made["algorithm"], {}))
    for section in SECTIONS:
        said = getattr(study, section).model_dump(mode="json", exclude_unset="preset" in levels)
        made[section] = made.get(section, {}) | said
    made["reading"] = study.readings.get(data, {})
    measured = made.get("measure") or {name: {} for name in study.measure or MEASURED}
    for name, options in study.measure.items():
        measured[name] = measured.get(name, {}) | options
    made["measure"] = {
        name: options
        for name, options in measured.items()
        if data not in study.lacking or not registry.get("measurement", name).acts
    }
    tuned = {} if study.tuned is None else study.tuned.of({"data": data, **levels})
    for name, level in (*tuned.items(), *levels.items()):
        if name not in made and _has(made, name):
            put(made, name, level)
    made["measure"] = {
        name: registry.get("measurement", name)
        .Options.model_validate(options)
        .model_dump(mode="json")
        for name, options in made["measure"].items()
    }
    return in_timesteps(made)


def in_timesteps(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the timesteps of a context that is given in tokens.

    Raises UserError where they hold none.
    """
    made = {**config, "timesteps": 0}
    if found := TOKENS.fullmatch(str(made["context"])):
        each = tokens_per_timestep(made)
        if int(found[1]) < each:
            raise UserError(
                f"context '{found[0]}': a timestep of {made['data']} takes {each} tokens in the layout "
                f"'{made['layout']}'; a context holds one at least."
            )
        made["timesteps"] = int(found[1]) // each
    return made


def _has(made: Mapping[str, Any], path: str) -> bool:
    """Whether a configuration has what a path names: no option of what it doesn't measure, and no setting of
    another algorithm."""
    section, _, rest = path.partition(".")
    if section == "measure":
        return rest.rpartition(".")[0] in made["measure"]
    if section == "settings":
        return rest in registry.get("algorithm", made["algorithm"]).Settings.model_fields
    return True


def put(made: dict[str, Any], path: str, value: Any) -> None:
    """Lay a value at a dotted path."""
    *sections, last = path.split(".")
    inner = made
    for part in sections:
        inner = inner.setdefault(part, {})
    inner[last] = value


def tuning(study: Study, data_hashes: Mapping[str, str]) -> dict[tuple[Arm, int], list[Trial]]:
    """The tuning's trials by arm and draw, one a tuning seed.

    An arm is tried at the first of its cells, under streams and on a split of its own; a study without tuning
    has none.
    """
    tune = study.tune
    if tune is None:
        return {}
    first: dict[Arm, Cell] = {}
    for cell in cells(study.model_copy(update={"tuned": None})):
        first.setdefault(arm_of(tune.per, {"data": cell.data, **cell.levels}), cell)
    found: dict[tuple[Arm, int], list[Trial]] = {}
    for arm, cell in first.items():
        for draw, settings in enumerate(tune.settings()):
            made = copy.deepcopy(cell.config)
            made["train"] |= {"split": "tuning", "checkpoints": []}
            for path, value in settings.items():
                put(made, path, value)
            for section in SECTIONS:
                where = f"{study.study}: {section}"
                made[section] = plain(SECTIONS[section], made[section], where)
            for seed in range(tune.seeds):
                fit = Fit(f"{study.streams}/tune", seed, fit_part(made), data_hashes[cell.data])
                found.setdefault((arm, draw), []).append(
                    Trial(fit, made, made["train"]["updates"], cell.levels)
                )
    return found


def tokens_per_timestep(config: Mapping[str, Any]) -> int:
    """How many tokens a timestep takes in a configuration's layout and data set."""
    system = registry.get("system", registry.get("algorithm", config["algorithm"]).system)
    one = {**config, "context": 1, "model": {**config["model"], "width": 1}}
    name, reading = config["data"], config["reading"]
    sizes = dimensions(name, reading)
    return len(tokens_of(system.shape(one, catalogue.spec(name, reading), *sizes)))


def dimensions(name: str, reading: Mapping[str, Any]) -> tuple[int, int]:
    """`catalogue.dimensions`, looked up once."""
    return _dimensions(name, identity.canonical(reading))


@functools.cache
def _dimensions(name: str, reading: str) -> tuple[int, int]:
    return catalogue.dimensions(name, json.loads(reading))


def lookup(config: Mapping[str, Any], factor: str) -> Any:
    """The value of a factor or dotted setting (`mixer`, `train.updates`, `data`) in a
    configuration."""
    value: Any = config
    for name in factor.split("."):
        value = value[name]
    return value


def frame(cells: Iterable[Cell], study: Study) -> pd.DataFrame:
    """One row a cell, columns `data` and the study's factors: what contrasts and the aliasing
    analysis take."""
    rows = [{"data": cell.data, **cell.levels} for cell in cells]
    return pd.DataFrame(rows, columns=["data", *study.factors])


def trials(study: Study, data_hashes: Mapping[str, str]) -> list[Trial]:
    """All trials, cell by cell, seeds in order, budgets within a seed. `data_hashes`: content hash of every
    data set the cells use."""
    fits: dict[str, Fit] = {}
    found = []
    for cell in cells(study):
        trained, measured = fit_part(cell.config), budgets(cell.config)
        for seed in range(study.seeds):
            fit = Fit(study.streams, seed, trained, data_hashes[cell.data])
            fit = fits.setdefault(fit.id, fit)
            found += [Trial(fit, cell.config, budget, cell.levels) for budget in measured]
    return found


def cohorts(trials: Iterable[Trial]) -> list[Cohort]:
    """The trials grouped by the training that their fits share, `STACK` seeds each, in the order in which they
    come."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        fit = trial.fit
        groups.setdefault(
            identity.canonical(
                [fit.streams, settled(fit.config), fit.data_hash, fit.seed // STACK]
            ),
            [],
        ).append(trial)
    return [Cohort(tuple(group)) for group in groups.values()]


def only(study: Study, trials: Iterable[Trial], text: str) -> list[Trial]:
    """The trials that `--only` keeps: "mixer=gru,data=lq-mix/single"; one factor named twice keeps
    either level.

    Raises UserError for a factor or level the study doesn't have, and when nothing is left.
    """
    where = f"--only {text}"
    kept: dict[str, list[Level]] = {}
    for part in text.split(","):
        factor, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UserError(
                f"{where}: expected FACTOR=LEVEL[,FACTOR=LEVEL], e.g. mixer=gru,context=20."
            )
        if factor not in study.levels:
            raise unknown(f"{where}: the factor", factor, study.levels)
        level = find_level(value, study.levels[factor])
        if level is None:
            raise unknown(f"{where}: the {factor}", value, study.levels[factor])
        kept.setdefault(factor, []).append(level)
    chosen = [t for t in trials if all(t.level(f) in v for f, v in kept.items())]
    if not chosen:
        raise UserError(
            f"{where}: profile '{study.profile}' has no such cell; `plan` shows which it has."
        )
    return chosen
