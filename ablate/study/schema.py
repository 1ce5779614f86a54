"""What a study file may say, and what is left of it when its levels have been looked up."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from ablate import registry
from ablate.config import MEASURED, ModelSection, TrainSection
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.registry import Section
from ablate.study import presets
from ablate.study.contrast import Level
from ablate.study.hypotheses import Hypothesis
from ablate.study.looks import SEEDS, SequentialSection
from ablate.study.tuning import Chosen, TuneSection

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"  # of a study and of a profile: they name folders
LONGEST = 100  # characters of such a name
RESERVED = ("models",)  # folders of results that are no study's: what `train` trains
Name = Annotated[str, Field(max_length=200)]


class Design(Section):
    """A full crossing of levels on data sets. A factor it doesn't name stays at its first level."""

    data: tuple[str, ...]
    levels: dict[str, tuple[Level, ...]]
    why: str = ""


class Study(Section):
    """A study file with one profile laid over it. Every level is as it was declared in
    `factors`."""

    study: str
    profile: str
    profiles: tuple[str, ...]
    question: str
    factors: dict[str, tuple[Level, ...]]
    data: tuple[str, ...]
    # how files of the user's are read, by the data set's name (`ablate.data.reading`)
    readings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    designs: dict[str, Design]
    model: ModelSection
    train: TrainSection
    measure: dict[str, dict[str, Any]]  # options of each measurement, as far as the file says them
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: int
    margin: float
    alpha: float
    hypotheses: tuple[Hypothesis, ...]
    sequential: SequentialSection | None = None
    notes: tuple[str, ...] = ()
    exploratory: str = ""  # why all of its verdicts are; empty where registration alone decides
    figures: tuple[str, ...] = ()  # empty: those that apply, in their own order
    streams: str = (
        ""  # names all random streams; those of its own unless a replication redraws them
    )
    # what its file names, the study's name where it names none: whose results lie in the study's own folder
    own_streams: str = Field(default="", exclude=True)
    tune: TuneSection | None = None
    tuned: Chosen | None = None  # what tuning found, once it has run
    file: Path | None = None  # where it was read from
    code: tuple[Path, ...] = ()  # its own Python files, in the order in which they are read

    @property
    def levels(self) -> dict[str, tuple[Level, ...]]:
        """Declared levels of every factor, and the data sets under `data`."""
        return {"data": self.data, **self.factors}

    @property
    def folder(self) -> Path:
        """Where the paths that it names begin: that of its file."""
        return self.file.parent if self.file else Path()

    @property
    def paired(self) -> bool:
        """Whether runs of one seed share their streams and evaluation episodes, as all of ours do."""
        return True

    @property
    def responses(self) -> tuple[str, ...]:
        """Qualified names of all responses that its measurements give."""
        return tuple(
            f"{name}.{response.name}"
            for name in self.measured
            for response in registry.get("measurement", name).responses
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """The measurements that its trials have, presets' own included, on one of its data sets at least."""
        found = dict.fromkeys(self.measure or ({} if self.factors.get("preset") else MEASURED))
        for name in map(str, self.factors.get("preset", ())):
            made = presets.configuration(
                name, self.data[0], changes=self.presets.get(name), folder=self.folder
            )
            found |= dict.fromkeys(made["measure"])
        acted_on = [name for name in self.used if name not in self.lacking]
        return tuple(
            name for name in found if acted_on or not registry.get("measurement", name).acts
        )

    @property
    def used(self) -> tuple[str, ...]:
        """The data sets that a design names, in the order in which they are declared."""
        named = {name for design in self.designs.values() for name in design.data}
        return tuple(name for name in self.data if name in named)

    @cached_property
    def lacking(self) -> dict[str, str]:
        """Why no policy can act on a data set, a sentence for each that has no environment."""
        found = {}
        for name in self.used:
            with contextlib.suppress(UserError):  # said where the data set is looked up
                found[name] = catalogue.spec(name, self.readings.get(name)).lacks_simulator
        return {name: why for name, why in found.items() if why}

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What can't be measured, or isn't normalised, and why, a sentence for each data set of the user's."""
        plain = []
        for name in self.used:
            with contextlib.suppress(UserError):  # said where the data set is looked up
                if name not in self.lacking and catalogue.spec(name, self.readings.get(name)).plain:
                    plain.append(name)
        return tuple(
            f"No policy can act on {name}, so that only prediction is measured there: {why}"
            for name, why in self.lacking.items()
        ) + tuple(
            f"Scores on {name} are plain returns, as no reference returns are known."
            for name in plain
        )


class File(Section):
    """The file's shape, before levels are looked up.

    study: its name, which names a folder of results. question: what it asks, as a person would. factors: what is
    varied, each with its levels; the first is the one used wherever nothing else is said. data: the data sets.
    designs: each crosses the levels that it names, on the data sets that it names; `why` says what for. model: size
    and shape of the models. train: their training. measure: options of each measurement, by its name. settings: an
    algorithm's own settings, by its name. presets: what this study changes of a preset, by its name. seeds: fits of
    each cell. margin: the smallest effect of interest, in points of the score. alpha: largest rate of false claims.
    hypotheses: what is claimed, written before any run. sequential: looks before all seeds are there. notes:
    sentences for the paper; what a reader has to know of how the study came about. exploratory: why all of its
    verdicts are exploratory although the hypotheses came first, as where a setting was chosen on its own runs.
    code: a Python file beside this one, or several, with what only this study measures, estimates and draws. figures:
    those that the report draws, in this order; none for all that apply. tune: how the settings of each arm are chosen
    first. streams: what names all random streams; the study's name where it is empty.
    """

    study: str = Field(pattern=NAME, max_length=LONGEST)
    question: str = Field(min_length=1)
    factors: dict[Name, Annotated[list[Level], Field(max_length=1000)]] = Field(
        min_length=1, max_length=50
    )
    data: list[str] = Field(min_length=1, max_length=1000)
    designs: dict[Name, dict[str, Any]] = Field(min_length=1, max_length=200)
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    measure: dict[str, dict[str, Any]] = Field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: int = Field(default=10, ge=1, le=SEEDS)
    margin: float = Field(default=3.0, gt=0)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    hypotheses: list[Hypothesis] = Field(default_factory=list, max_length=500)
    sequential: SequentialSection | None = None
    notes: list[str] = Field(default_factory=list)
    exploratory: str = ""
    code: str | list[str] = ""
    figures: list[str] = Field(default_factory=list)
    tune: TuneSection | None = None
    streams: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]*)?$", max_length=LONGEST)

    @field_validator("study")
    @classmethod
    def _a_folder_of_its_own(cls, name: str) -> str:
        if name.lower() in RESERVED:
            raise ValueError(
                f"that is the folder of what `train` trains; allowed: any name but {', '.join(RESERVED)}"
            )
        return name
