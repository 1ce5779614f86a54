"""What `import ablate` offers to a script or a notebook, thin over what the commands use.

    import ablate

    study = ablate.load_study("studies/loss.yaml", profile="quick")
    found = ablate.results("loss")                        # tables of what was run, as DataFrames
    found.trials, found.curves, found.series, found.yardsticks, found.verdicts
    ablate.verdicts(found, [{"id": "mine", ...}])         # one question more, of the same trials
    model = ablate.fit("dt", "tmaze/passive-20", seed=0)  # or of a study, at some of its levels
    model.measure("rollout", episodes=50).values["score"]

What is wrong raises `ablate.UserError`, whose one line says where, what was found and what is allowed. Nothing of this
is imported before it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.analyse.answer import analyse
from ablate.config import Config
from ablate.errors import UserError, quoted, unknown
from ablate.launch import single
from ablate.measure.base import Measured
from ablate.measure.openloop import Futures
from ablate.registry import checked
from ablate.report import commands
from ablate.report.export import verdict_table
from ablate.report.results import Results
from ablate.study import checks, contrast, expand, presets, shipped
from ablate.study.hypotheses import Hypothesis
from ablate.study.load import load
from ablate.study.schema import Study
from ablate.study.source import Source
from ablate.track.kept import cache_folder

__all__ = ["Model", "Tables", "fit", "load_model", "load_study", "results", "verdicts"]
RESULTS = Path("results")


def load_study(
    study: str | Path, *, profile: str | None = None, changes: Mapping[str, Any] | None = None
) -> Study:
    """A study file, read and checked.

    study: its path, or the name of one that comes with `ablate`. profile: `standard` when None. changes: by dotted
    path, what `--set` changes, such as {"train.updates": 1000}. Raises UserError with file and line of what is wrong.
    """
    return load(shipped.find(Path(study)), profile, _texts(changes))


@dataclass(frozen=True)
class Tables:
    """What a study found: each table is a DataFrame, and is read or computed when it is first asked for."""

    found: Results

    @property
    def study(self) -> Study:
        """The study, with the settings that its tuning chose."""
        assert isinstance(self.found.study, Study)
        return self.found.study

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial: ids, factors, budget, seed, and every response by its qualified name."""
        return self.found.budgets

    @property
    def curves(self) -> pd.DataFrame:
        """Learning curves: trial, update and what was recorded then."""
        return self.found.curves

    @property
    def series(self) -> pd.DataFrame:
        """Responses over an index: trial, response, index, value."""
        return self.found.series

    @property
    def yardsticks(self) -> pd.DataFrame:
        """Exact optima by data set and context, where they are known."""
        return self.found.yardsticks

    @property
    def tuning(self) -> pd.DataFrame:
        """The best judged value of each arm after so many draws; empty for a study that tunes nothing."""
        return self.found.tuning

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """One row a hypothesis of the study; what was not tested has no numbers. Columns as
        `ablate.report.export.VERDICT` says."""
        return verdict_table(self.found.analysis.verdicts)

    @property
    def answer(self) -> str:
        """The study's question answered, in words."""
        return self.found.analysis.answer


def results(
    study: str | Path | Study,
    *,
    profile: str | None = None,
    changes: Mapping[str, Any] | None = None,
    folder: str | Path = RESULTS,
) -> Tables:
    """The results of a study below `folder`, checked against their hashes.

    study, profile, changes: as of `load_study`; a loaded study stands for all three. Raises UserError where nothing
    was run, and for a table that isn't as it was written.
    """
    return Tables(commands.ours(_study(study, profile, changes), Path(folder)))


def verdicts(
    study: str | Path | Study | Tables,
    hypotheses: Sequence[Mapping[str, Any]] | None = None,
    *,
    trials: pd.DataFrame | None = None,
    profile: str | None = None,
    folder: str | Path = RESULTS,
) -> pd.DataFrame:
    """One row a hypothesis, as of `Tables.verdicts`: those of the study, or of further ones about the same trials.

    hypotheses: as a study file writes them, {"id": ..., "says": ..., "contrast": ..., "metric": ..., "test": ...};
    they were written after the runs and are exploratory. trials: of `Tables.trials`, the rows that count; all of them
    when None. Raises UserError for a hypothesis that makes no sense.
    """
    found = study if isinstance(study, Tables) else results(study, profile=profile, folder=folder)
    if hypotheses is None and trials is None:
        return found.verdicts
    of, rows = found.study, found.found.rows if trials is None else trials
    if hypotheses is not None:
        ids = [quoted(one.get("id", "")) for one in hypotheses]
        asked = [
            checked(Hypothesis, one, f"hypothesis {name}")
            for one, name in zip(hypotheses, ids, strict=True)
        ]
        of = of.model_copy(update={"hypotheses": tuple(asked)})
        checks.hypotheses(Source("hypotheses", {}, {}), of, of.responses)
    made = analyse(rows, of.hypotheses, of.levels, alpha=of.alpha, margin=of.margin)
    return verdict_table(made.verdicts)


@dataclass(frozen=True)
class Model:
    """A trained model: where its checkpoint lies, and what was measured of it when it was trained.

    metrics: sizes of the fit, and each response by its qualified name; empty for a checkpoint that was only opened.
    """

    checkpoint: Path
    metrics: Mapping[str, float]
    cache: Path
    device: str = "cpu"

    def measure(self, name: str, **options: Any) -> Measured:
        """One registered measurement: its responses in `values`, those over an index in `series`.

        options: of the measurement, laid over those that the model was trained with. Raises UserError for what the
        measurement doesn't have, or for a model that can't be measured so.
        """
        return single.measure(self.checkpoint, self.cache, name, options, device=self.device)

    def imagine(self, **options: Any) -> Futures:
        """What the model imagines after moments of held-out episodes, beside what happens: states, raw.

        options: of the measurement `open-loop`, which sums up the same futures, laid over those that the model was
        trained with. Raises UserError as `measure` does.
        """
        return single.imagine(self.checkpoint, self.cache, options, device=self.device)


def fit(
    of: str | Study,
    data: str | None = None,
    *,
    levels: Mapping[str, contrast.Level] | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    folder: str | Path = RESULTS,
    device: str = "cpu",
) -> Model:
    """Train one model, audit and measure it, and keep it below `folder`/models; what is there is not trained again.

    of: a preset, by its name or path, or a loaded study. data: the data set; of a study the first one when None.
    levels: of a study, the levels of its factors; the first of each when none is given. A study's model learns from
    the study's own random streams. changes: of a preset, by dotted path, {"train.updates": 1000}; a study is changed
    by `load_study`. Raises UserError for a part or a level that isn't known, for a model that fails its audit, and
    for one that diverges.
    """
    place = Path(folder)
    cache = cache_folder(place)
    streams = single.STUDY
    if isinstance(of, Study):
        if changes:
            raise UserError("fit: changes are for presets; those of a study go to load_study.")
        config = _cell(of, data, levels or {})
        streams = of.streams
    else:
        if data is None:
            raise UserError(f"fit: the preset {quoted(of)} needs a data set: fit({of!r}, DATA).")
        if levels:
            raise UserError(
                "fit: levels are those of a study; a preset is changed by changes={...}."
            )
        config = presets.configuration(of, data, _texts(changes))
    made = single.train(config, seed, place, cache, device=device, streams=streams)
    return Model(made.checkpoint, made.metrics, cache, device)


def load_model(
    checkpoint: str | Path, *, folder: str | Path = RESULTS, device: str = "cpu"
) -> Model:
    """The model of a checkpoint, or of the last one in a folder, such as results/STUDY/checkpoints/FIT.

    folder: of the results, below which generated data are kept. Raises UserError where there is none.
    """
    return Model(single.checkpoint(Path(checkpoint)), {}, cache_folder(Path(folder)), device)


def _study(
    study: str | Path | Study, profile: str | None, changes: Mapping[str, Any] | None
) -> Study:
    """A study by its name or path, or one that is loaded."""
    if not isinstance(study, Study):
        return load_study(study, profile=profile, changes=changes)
    if profile is not None or changes:
        raise UserError("results: a loaded study has its profile and its changes already.")
    return study


def _cell(study: Study, data: str | None, levels: Mapping[str, contrast.Level]) -> Config:
    """The configuration of one cell of a study."""
    where = f"study '{study.study}'"
    for name, level in levels.items():
        if name not in study.factors:
            raise unknown(f"{where}: the factor", name, study.factors)
        if level not in study.factors[name]:
            raise unknown(f"{where}: the level of {name}", level, study.factors[name])
    if data is not None and data not in study.data:
        raise unknown(f"{where}: the data set", data, study.data)
    first = {name: declared[0] for name, declared in study.factors.items()}
    return expand.config(study, data or study.data[0], {**first, **levels})


def _texts(changes: Mapping[str, Any] | None) -> list[str]:
    """Changes as `--set` has them; JSON is YAML."""
    return [f"{name}={json.dumps(value)}" for name, value in (changes or {}).items()]
