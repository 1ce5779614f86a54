"""`power` and `report --calibrate`: find a study and its runs, ours or somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ablate.analyse import power_table
from ablate.analyse.calibrate import Calibration, calibrate
from ablate.analyse.power_table import PowerTable
from ablate.analyse.tidy import apart_from_presets, last_budget
from ablate.errors import UserError
from ablate.study.foreign import ForeignStudy, is_foreign, load_foreign, tidy
from ablate.study.load import load
from ablate.study.schema import Study
from ablate.track.files import write_atomic
from ablate.track.foreign import read_foreign
from ablate.track.table import read_table

NEEDED = ("data", "seed")  # columns of a table of runs that we didn't make


def power(
    study: Path,
    results: Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    pilot: Path | None = None,
    published: str | None = None,
) -> PowerTable:
    """The power of a study file of either kind; see `power_table.make`.

    pilot: a table of trials; the study's own under `results` when None, and published spreads when
    there are none or `published` names some.
    """
    loaded = _load(study, profile, overrides)
    return power_table.from_files(
        loaded, results, pilot, published, lambda path: _runs(loaded, path)
    )


def save(made: PowerTable, results: Path) -> list[Path]:
    """Write power.csv and power.json into the study's folder."""
    folder = results / made.study
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in made.files().items():
        write_atomic(folder / name, content)
        written.append(folder / name)
    return written


def calibration(
    study: Path, results: Path, *, table: Path | None = None, metric: str | None = None
) -> Calibration:
    """A/A splits of a study's trials, or of `table`; see `calibrate.calibrate`.

    metric: that of the first hypothesis when None.
    """
    loaded = _load(study, None, ())
    path = table if table is not None else results / loaded.study / "trials.csv"
    if table is None and not path.exists():
        raise UserError(
            f"{path}: there are no results yet; run them first, or name a table with --table FILE."
        )
    claimed = next((hypothesis.metric for hypothesis in loaded.hypotheses), None)
    if metric is None and claimed is None:
        raise UserError(f"{study}: the study declares no hypotheses, so no response to split by.")
    return calibrate(_runs(loaded, path), metric or str(claimed))


def _load(path: Path, profile: str | None, overrides: Sequence[str]) -> Study | ForeignStudy:
    return load_foreign(path) if is_foreign(path) else load(path, profile, overrides)


def _runs(study: Study | ForeignStudy, path: Path) -> pd.DataFrame:
    """The tidy table at `path`, at the last budget of every cell."""
    if isinstance(study, Study):
        rows = last_budget(read_table(path, required=NEEDED, sealed=False))
        return apart_from_presets(rows.reset_index(drop=True), study.factors)
    found = read_foreign(path)
    return tidy(study, found.table, found.file, found.names).table
