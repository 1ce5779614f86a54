"""`export`: a study's tables as parquet, its learning curves as event files of TensorBoard."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from ablate.analyse.tidy import factor_columns
from ablate.analyse.verdict import Verdict
from ablate.errors import UserError, unknown
from ablate.report.results import Results
from ablate.study.contrast import level_text
from ablate.track.files import write_atomic

# The numbers of a verdict, in the metric's unit.
NUMBERS = ("estimate", "low", "high", "confidence", "margin", "threshold", "around", "p", "p_holm")
VERDICT = (
    *("hypothesis", "says", "verdict", "metric", "unit", "test", "contrast", "estimator"),
    *NUMBERS,
    *("estimand", "primary", "status", "n_trials", "n_failed", "n_missing", "sentence"),
)


def verdict_table(found: Sequence[Verdict]) -> pd.DataFrame:
    """Verdicts as a table, columns `VERDICT`; numbers of what was not tested are NaN."""
    rows = []
    for verdict in found:
        row = {one.name: getattr(verdict, one.name) for one in dataclasses.fields(verdict)}
        rows.append({**row, "unit": verdict.response.unit})
    return pd.DataFrame(rows, columns=list(VERDICT)).astype(dict.fromkeys(NUMBERS, "float64"))


def export(results: Results, kind: str, into: Path) -> list[Path]:
    """Write the results in another format; the files, or for event files their folders, that were written.

    Raises UserError for an unknown format, one whose package isn't installed, and where event files lie already.
    """
    if kind not in FORMATS:
        raise unknown("export: the format", kind, FORMATS)
    return FORMATS[kind](results, into)


def _parquet(results: Results, into: Path) -> list[Path]:
    """One file a table; one without rows isn't written."""
    tables = {
        "trials": results.budgets,
        "curves": results.curves,
        "series": results.series,
        "yardsticks": results.yardsticks,
        "tuning": results.tuning,
        "verdicts": verdict_table(results.analysis.verdicts),
    }
    made = {}
    for name, table in tables.items():
        if table.empty:
            continue
        buffer = io.BytesIO()
        try:
            table.to_parquet(buffer, index=False)
        except ImportError:
            raise UserError(
                "export: parquet needs a package that is not installed: pip install 'ablate-sequence-rl[parquet]'."
            ) from None
        made[into / f"{name}.parquet"] = buffer.getvalue()
    for path, content in made.items():
        write_atomic(path, content)
    return list(made)


def _tensorboard(results: Results, into: Path) -> list[Path]:
    """The learning curve of each fit, in a folder named after the levels that vary and the seed.

    Events carry no time of day, as the tables have none: TensorBoard shows them by update.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "export: tensorboard needs a package that is not installed: pip install 'ablate-sequence-rl[tensorboard]'."
        ) from None
    if results.curves.empty:
        raise UserError(f"export: the study '{results.study.study}' has no learning curves.")
    if any(into.rglob("events.out.tfevents.*")):
        raise UserError(f"{into}: it holds event files already; name another folder by --to.")
    fits = results.budgets.drop_duplicates("fit")
    shown = [
        name
        for name in factor_columns(fits)
        if fits[name].nunique() > 1 and not name.startswith("measure.")
    ]
    curves = dict(list(results.curves.groupby("trial")))
    folders = []
    for row in fits.to_dict("records"):
        if row["trial"] not in curves:
            continue
        cell = ",".join(f"{name}={level_text(row[name])}" for name in shown).replace("/", "-")
        folders.append(into / (cell or results.study.study) / f"seed={row['seed']}")
        with SummaryWriter(folders[-1]) as writer:
            for point in curves[row["trial"]].drop(columns="trial").to_dict("records"):
                update = int(point.pop("update"))
                for name, value in point.items():
                    if value == value:
                        writer.add_scalar(str(name), value, update, walltime=0.0)
    return folders


FORMATS: dict[str, Callable[[Results, Path], list[Path]]] = {
    "parquet": _parquet,
    "tensorboard": _tensorboard,
}
