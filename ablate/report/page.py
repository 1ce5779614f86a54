"""`report.html`: one self-contained page that works from a file, without a network."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from ablate.analyse import table as frame
from ablate.report import provenance, text
from ablate.report.context import Grid
from ablate.report.figures.base import Drawn
from ablate.report.story import Story

_FIRST = ("status", "data", "mixer", "context", "condition", "history", "head", "seed")
_METRICS = (
    *("score", "success", "action_error", "action_error_early", "action_nll", "return_mean"),
    *("return_std", "jerk", "parameters", "parameter_mismatch"),
)


def render(
    story: Story,
    table: pd.DataFrame,
    drawn: Sequence[tuple[Drawn, dict[str, bytes]]],
    audit: Sequence[dict[str, Any]],
    grids: Sequence[Grid] = (),
) -> bytes:
    """The page. Figures are SVG images inside it; the table's rows are JSON that a script shows."""
    environment = Environment(
        loader=PackageLoader("ablate.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    columns, rows = trial_rows(table)
    return (
        environment.get_template("report.html.j2")
        .render(
            story=story,
            figures=[
                {
                    "name": figure.name,
                    "title": figure.title,
                    "caption": figure.caption,
                    "source": "data:image/svg+xml;base64,"
                    + base64.b64encode(files["svg"]).decode("ascii"),
                }
                for figure, files in drawn
            ],
            findings=story.findings,
            grids=grids,
            data_name=text.data,
            audit=[audit_row(record) for record in audit],
            columns=columns,
            rows=_embedded(rows),
            row_count=len(rows),
            p_value=text.p_value,
            number=text.number,
            packages=provenance.packages(),
        )
        .encode()
    )


def trial_rows(table: pd.DataFrame) -> tuple[list[dict[str, str]], list[list[Any]]]:
    """Columns (name, title, kind) and rows for the page; numbers to four digits, nothing for NaN.

    Columns that hold nothing are left out, and so are return_mean and further metrics where a
    score exists.
    """
    names = [name for name in _FIRST if name in table.columns]
    names += [name for name in sorted(table.columns) if "." in name]
    measured = [name for name in _METRICS if name in table.columns]
    measured += [
        name for name in frame.metric_columns(table) if name not in measured and name != "targets"
    ]
    names += [name for name in measured if table[name].notna().any()]
    if "failure" in table.columns and table["failure"].fillna("").astype(str).ne("").any():
        names.append("failure")
    names.append("trial")
    columns = [
        {
            "name": name,
            "title": "K" if name == "context" else name.replace("_", " "),
            "kind": "number" if pd.api.types.is_numeric_dtype(table[name]) else "text",
        }
        for name in names
    ]
    lists = [table[name].tolist() for name in names]
    return columns, [[_short(value) for value in row] for row in zip(*lists, strict=True)]


def _short(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float):
        rounded = float(f"{value:.4g}")
        return int(rounded) if rounded.is_integer() else rounded
    return value


def _embedded(rows: list[list[Any]]) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def audit_row(record: dict[str, Any]) -> dict[str, Any]:
    """One line of the audit table: the configuration, what was seen and what is wrong."""
    lags = record.get("lags", [])
    seen: dict[str, set[int]] = {}
    for by_field in record.get("influence", {}).values():
        for name, values in by_field.items():
            found = {lag for lag, value in zip(lags, values, strict=True) if value > 0}
            seen[name] = seen.get(name, set()) | found
    return {
        "mixer": text.mixer(str(record.get("mixer", ""))),
        "context": record.get("context", ""),
        "history": record.get("history", ""),
        "condition": record.get("condition", ""),
        "head": record.get("head", ""),
        "passed": bool(record.get("passed")),
        "seen": "; ".join(
            f"{name.replace('_', '-')} {_span(found)}" for name, found in seen.items() if found
        ),
        "findings": [str(finding) for finding in record.get("findings", [])],
    }


def _span(lags: set[int]) -> str:
    """`0 to 19`, or the lags one by one when they have gaps."""
    low, high = min(lags), max(lags)
    if low == high:
        return str(low)
    if len(lags) == high - low + 1:
        return f"{low} to {high}"
    return ", ".join(map(str, sorted(lags)))
