"""From a study to its cells, trials and cohorts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ablate import presets
from ablate.config import FACTORS, OPTIONAL, SECTIONS, TOKENS
from ablate.data import catalogue
from ablate.errors import UserError, unknown
from ablate.study import identity
from ablate.study.contrast import Level, find_level
from ablate.study.schema import Study


@dataclass(frozen=True, eq=False)
class Cell:
    """One combination of levels on one data set. `designs` are those that ask for it."""

    data: str
    levels: dict[str, Level]
    config: dict[str, Any]
    designs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Trial:
    """One cell with one seed. `config` is plain JSON; `id` hashes all that can change the
    result."""

    study: str
    seed: int
    config: dict[str, Any]
    data_hash: str
    id: str = field(init=False)

    def __post_init__(self) -> None:
        name = identity.trial_id(self.study, self.seed, self.config, self.data_hash)
        object.__setattr__(self, "id", name)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Trials that differ only in the seed and may train as one program: the unit of execution."""

    trials: tuple[Trial, ...]
    id: str = field(init=False)

    def __post_init__(self) -> None:
        first = self.trials[0]
        name = identity.cohort_id(first.study, first.config, first.data_hash)
        object.__setattr__(self, "id", name)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration all its trials share."""
        return self.trials[0].config

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in the order of the trials."""
        return tuple(trial.seed for trial in self.trials)


def cells(study: Study) -> list[Cell]:
    """All cells of the study's designs, each once, in the order in which data and levels are
    declared."""
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
    return [
        Cell(*values[key], config(study, *values[key]), tuple(dict.fromkeys(asked[key])))
        for key in sorted(asked)
    ]


def config(study: Study, data: str, levels: Mapping[str, Level]) -> dict[str, Any]:
    """The resolved configuration of a cell, plain JSON; a level of a dotted factor stands at its
    path. A preset's configuration is changed by what the study itself says, and by nothing else."""
    if "preset" in levels:
        name = str(levels["preset"])
        made = presets.configuration(name, data, changes=study.presets.get(name))
        made |= {name: level for name, level in levels.items() if "." not in name}
        made["settings"] |= study.settings.get(made["algorithm"], {})
    else:
        made = {"data": data, **{name: levels[name] for name in FACTORS}}
        made |= {name: levels.get(name, default) for name, default in OPTIONAL.items()}
        made["settings"] = dict(study.settings.get(made["algorithm"], {}))
    for section in SECTIONS:
        said = getattr(study, section).model_dump(mode="json", exclude_unset="preset" in levels)
        made[section] = made.get(section, {}) | said
    for name, level in levels.items():
        if name not in made:
            section, setting = name.split(".")
            made[section][setting] = level
    made["timesteps"] = 0
    if found := TOKENS.fullmatch(str(made["context"])):
        each = tokens_per_timestep(made)
        if int(found[1]) < each:
            raise UserError(
                f"context '{found[0]}': a timestep of {data} takes {each} tokens in the layout "
                f"'{made['layout']}'; a context holds one at least."
            )
        made["timesteps"] = int(found[1]) // each
    return made


def tokens_per_timestep(config: Mapping[str, Any]) -> int:
    """How many tokens a timestep takes in a configuration's layout and data set."""
    from ablate.models.layouts import Layout
    from ablate.models.spec import ModelSpec
    from ablate.models.tokens import tokenizer
    from ablate.models.trajectory import group_sizes

    observation, action = _sizes(config["data"])
    if config["algorithm"] == "joint":
        return len(group_sizes(config["layout"], observation, action))
    spec = catalogue.spec(config["data"])
    told = (config["history"], config["condition"], spec.shown_goal)
    layout = Layout(observation, action, spec.num_policies, *told)
    one = {**config, "context": 1, "model": {**config["model"], "width": 1}}
    return tokenizer(config["layout"])(ModelSpec.of(one, layout)).per_step


@functools.cache
def _sizes(data: str) -> tuple[int, int]:
    """Numbers of an observation and of an action."""
    env = catalogue.spec(data).make_env(1)
    return env.observation_dim, env.action_dim


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
    """All trials, cell by cell, seeds in order. `data_hashes`: content hash of every data set the
    cells use."""
    return [
        Trial(study.study, seed, cell.config, data_hashes[cell.data])
        for cell in cells(study)
        for seed in range(study.seeds)
    ]


def cohorts(trials: Iterable[Trial]) -> list[Cohort]:
    """The trials grouped by what they share, in the order in which they come."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        key = identity.canonical([trial.study, trial.config, trial.data_hash])
        groups.setdefault(key, []).append(trial)
    return [Cohort(tuple(sorted(group, key=lambda t: t.seed))) for group in groups.values()]


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
    chosen = [t for t in trials if all(lookup(t.config, f) in v for f, v in kept.items())]
    if not chosen:
        raise UserError(
            f"{where}: profile '{study.profile}' has no such cell; `plan` shows which it has."
        )
    return chosen
