"""What the report is about: one of our studies at its profile, or a study of somebody else's runs.

Both kinds come out the same here, so that nothing behind this door asks which it is; where words
must differ, `foreign` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablate import registry, words
from ablate.analyse import tidy as frame
from ablate.config import SECTIONS, STANDARD
from ablate.errors import UserError
from ablate.report import rows
from ablate.study import expand, foreign, identity
from ablate.study.aliasing import Aliasing, aliasing
from ablate.study.foreign import ForeignStudy
from ablate.study.registration import Standing, declared, standing
from ablate.study.schema import Study

ELSEWHERE = (
    "the runs come from elsewhere, and nothing shows that the hypotheses were written before them"
)
Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Subject:
    """A study with the trials that count.

    table: one row a trial, each with an id. hash: of what was run, or of how the table is read.
    registered: when the first hypotheses were kept, empty when never; standing: which of them, and of the seeds, are as
    they were declared before any result. planned: trials at the last budget of their fits. designs: (name, why,
    cells). settings: (name, value) of what the file says holds in every trial. reading: how a table from elsewhere was
    read, in words.
    """

    study: Study | ForeignStudy
    table: pd.DataFrame
    hash: str
    profile: str
    foreign: bool
    registered: str
    standing: Standing
    hashes: Mapping[str, str]
    planned: int
    fraction: Aliasing
    designs: tuple[tuple[str, str, int], ...] = ()
    settings: Settings = ()
    size: str = ""
    reading: tuple[str, ...] = ()

    @property
    def before(self) -> dict[str, bool]:
        """Hypothesis id -> whether it was declared before any result."""
        return {h.id: self.standing.before(h.id) for h in self.study.hypotheses}

    @property
    def hypotheses_hash(self) -> str:
        """Hash of what the study claims."""
        return identity.hypotheses_hash(self.study)


def of(
    study: Study | ForeignStudy,
    table: pd.DataFrame,
    registration: Mapping[str, Any],
    reading: Sequence[str] = (),
) -> Subject:
    """The subject of a report.

    registration: content of study.json, empty for a table that `ablate` did not write. Raises
    UserError when no trial that counts has finished.
    """
    if isinstance(study, ForeignStudy):
        return _elsewhere(study, table, reading)
    hashes = {str(k): str(v) for k, v in (registration.get("data") or {}).items()}
    cells = expand.cells(study)
    asked = expand.trials(study, {**dict.fromkeys(study.data, ""), **hashes})
    mine = rows.of_profile(study, table, {one.id for one in asked} if hashes else None)
    return Subject(
        study=study,
        table=mine,
        hash=identity.study_hash(study),
        profile=study.profile,
        foreign=not registration,
        registered=str(registration.get("registered", "")),
        standing=(
            standing(registration, declared(study)) if registration else Standing(ELSEWHERE, {})
        ),
        hashes=hashes,
        planned=max(_at_the_end(asked), len(frame.last_budget(mine))),
        fraction=aliasing(expand.frame(cells, study), study.levels),
        designs=tuple(
            (name, design.why, sum(name in cell.designs for cell in cells))
            for name, design in study.designs.items()
        ),
        settings=_settings(study, cells),
        size=_size(study, mine, cells) if registration else "",
        reading=tuple(reading),
    )


def _at_the_end(trials: Sequence[expand.Trial]) -> int:
    """How many trials are at the last budget of their fit."""
    last: dict[str, int] = {}
    for trial in trials:
        last[trial.fit.id] = max(trial.budget, last.get(trial.fit.id, 0))
    return sum(trial.budget == last[trial.fit.id] for trial in trials)


def _flat(changes: Mapping[str, Any], path: str = "") -> list[str]:
    """`train.updates 5000` for each leaf."""
    out = []
    for name, value in changes.items():
        if isinstance(value, Mapping):
            out += _flat(value, f"{path}{name}.")
        else:
            out.append(f"{path}{name} {value}")
    return out


def _elsewhere(study: ForeignStudy, table: pd.DataFrame, reading: Sequence[str]) -> Subject:
    if not frame.finished(table).any():
        n = int(frame.failed(table).sum())
        raise UserError(
            f"study '{study.study}': cannot decide anything, because none of the {len(table):,} "
            f"trials of the table has finished ({n:,} failed)."
        )
    cells = foreign.cells(study, table)
    names = [name for name in study.data if name in set(cells["data"])]
    return Subject(
        study=study,
        table=table,
        hash=study.hash,
        profile=STANDARD,
        foreign=True,
        registered="",
        standing=Standing(ELSEWHERE, {}),
        hashes={},
        planned=len(table),
        fraction=aliasing(cells, {**study.levels, "data": tuple(names)}),
        reading=tuple(reading),
    )


def _size(study: Study, table: pd.DataFrame, cells: Sequence[expand.Cell]) -> str:
    """`models of about 16,000 parameters trained for 600 updates`, save what is a factor.

    Where presets say it: what the models have and how long they were trained, from least to most.
    """
    words = []
    if "preset" in study.factors:
        if "parameters" in table.columns and table["parameters"].notna().any():
            words.append(f"models of {_span(table['parameters'].dropna())} parameters")
        updates = [cell.config["train"]["updates"] for cell in cells]
        return " ".join([*words, f"trained for {_span(updates)} updates"])
    if "model.parameters" not in study.factors:
        words.append(f"models of about {study.model.parameters:,} parameters")
    if "train.updates" not in study.factors:
        words.append(f"trained for {study.train.updates:,} updates")
    return " ".join(words)


def _span(values: Iterable[float]) -> str:
    """`5,000`, or `5,000 to 20,000`."""
    low, high = round(min(values := list(values))), round(max(values))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _settings(study: Study, cells: Sequence[expand.Cell]) -> Settings:
    """What the file says of model, training and measurements, save what is a factor.

    Of presets: what the study changes of each, as everything else stands in the preset.
    """
    if "preset" in study.factors:
        changed = [
            (f"preset {name}", "; ".join(_flat(study.presets.get(str(name), {}))) or "as published")
            for name in study.factors["preset"]
        ]
        said = {s: getattr(study, s).model_dump(mode="json", exclude_unset=True) for s in SECTIONS}
        said["measure"] = study.measure
        return (*changed, ("all presets", "; ".join(_flat(said)) or "as published"))
    sections = {name: getattr(study, name) for name in SECTIONS}
    for name in study.measured:
        options = registry.get("measurement", name).Options
        sections[f"measure.{name}"] = options.model_validate(study.measure.get(name, {}))
    return tuple(
        (f"{path.removeprefix('measure.')}: {words.plain(name)}", str(value))
        for path, section in sections.items()
        for name, value in section.model_dump(mode="json").items()
        if f"{path}.{name}" not in study.factors
    )
