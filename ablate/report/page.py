"""Pages that work from a file, without a network: `report.html` of a study, and the list of all studies."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ablate import words
from ablate.analyse import tidy as frame
from ablate.report import claims, provenance, svg
from ablate.report.figures.base import Drawn
from ablate.report.findings import Finding
from ablate.report.grid import Grid
from ablate.report.results import Results

_MOST_LEVELS = 40  # of a filter
_MOST_ROWS = 20_000  # of the table on the page


@dataclass(frozen=True)
class Line:
    """A study in the list of all: its page's address relative to the list's; findings: `provenance.findings`."""

    study: str
    profile: str
    question: str
    answer: str
    findings: Sequence[Mapping[str, Any]]
    address: str

    @property
    def primary(self) -> list[tuple[Mapping[str, Any], tuple[str, ...]]]:
        """The primary hypotheses, or all where none is, each with how firmly it stands."""
        first = [one for one in self.findings if one["primary"]] or list(self.findings)
        return [(one, claims.firmness(one)) for one in first]


def index(lines: Sequence[Line], claimed: bytes | None = None) -> bytes:
    """The page that leads to the pages of all studies. claimed: the figure of all claims as PNG, where there is one."""
    shown = None if claimed is None else base64.b64encode(claimed).decode()
    return template("index.html.j2", lines=lines, claimed=shown, firmness=claims.FIRMNESS)


def template(name: str, **values: Any) -> bytes:
    """A template of this room, filled in."""
    environment = Environment(
        loader=PackageLoader("ablate.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(**values).encode()


def render(
    results: Results, drawn: Sequence[tuple[Drawn, dict[str, bytes]]], grids: Sequence[Grid]
) -> bytes:
    """A study's page. Figures are SVG images inside it; the table's rows are JSON that a script shows."""
    story, table = results.story, results.rows.head(_MOST_ROWS)
    columns = trial_columns(table, results.metrics)
    ids = {str(name): place for place, name in enumerate(table["trial"])}
    groups = {f"figure {f.name}": f.trials for f, _ in drawn if f.trials}
    groups |= {f"verdict {f.id}": f.trials for f in story.findings if f.trials}
    embedded = {
        "rows": len(table),
        "left": len(results.rows) - len(table),
        "runs": not story.foreign,
        "columns": columns,
        "groups": {
            name: provenance.spans(ids[t] for t in trials if t in ids)
            for name, trials in groups.items()
        },
    }
    return template(
        "report.html.j2",
        story=story,
        figures=[
            {
                "name": figure.name,
                "title": figure.title,
                "caption": figure.caption,
                "source": svg.address(files["svg"]),
                "trials": len(set(figure.trials)),
            }
            for figure, files in drawn
        ],
        findings=story.findings,
        grids=grids,
        data_name=words.data,
        audit=[audit_row(record) for record in results.audit],
        columns=columns,
        embedded=_embedded(embedded),
        row_count=len(results.rows),
        shown=len(table),
        strip=strip,
        p_value=words.p_value,
        packages=provenance.packages(),
    )


def trial_columns(table: pd.DataFrame, first: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The columns of the page's table: name, title, kind, whether one filters by it, and the cells.

    Numbers stand as they are (four digits, nothing for NaN); of text each level stands once, in
    `levels`, and the cells are `codes`. Columns that hold nothing, responses for the multiverse alone,
    and factors that don't vary, are left out. first: the responses that stand before the others.
    """
    factors = [
        name for name in frame.factor_columns(table) if table[name].nunique(dropna=False) > 1
    ]
    if "data" not in factors:
        factors.insert(0, "data")
    measured = dict.fromkeys([*first, *frame.metric_columns(table)])
    names = [name for name in ("status", *factors, "seed") if name in table.columns]
    shown = [name for name in measured if name in first or not words.response(name).way]
    names += [name for name in shown if name in table.columns and table[name].notna().any()]
    if "failure" in table.columns and table["failure"].fillna("").astype(str).ne("").any():
        names.append("failure")
    names.append("trial")
    out = []
    for name in names:
        cells = [_short(value) for value in table[name].tolist()]
        levels = list(dict.fromkeys(cells))
        number = all(value is None or isinstance(value, int | float) for value in levels)
        column: dict[str, Any] = {
            "name": name,
            "title": _title(name, factors),
            "kind": "number" if number else "text",
            "filter": name in ("status", *factors) and 1 < len(levels) <= _MOST_LEVELS,
        }
        if number or len(levels) == len(cells):
            column["values"] = cells
        else:
            known = {level: code for code, level in enumerate(levels)}
            column |= {"levels": levels, "codes": [known[cell] for cell in cells]}
        out.append(column)
    return out


def _title(name: str, factors: Sequence[str]) -> str:
    """The heading of a column."""
    if name in factors:
        return words.factor(name).symbol or words.factor(name).label
    return words.response(name).said


def strip(finding: Finding) -> Markup:
    """A small picture of a verdict: its interval, and below it the other estimand's; the margin or
    threshold; zero. Words beside it say the same, so it is hidden from screen readers."""
    bars = [(finding.estimate, finding.low, finding.high, "var(--bar)", 4.0)]
    if finding.other is not None:
        other = finding.other
        bars.append((other.estimate, other.low, other.high, "var(--soft)", 2.0))
    marks = [] if finding.absolute else [0.0]
    band = None
    if finding.test == "equivalence" and finding.margin is not None:
        band = (finding.around - finding.margin, finding.around + finding.margin)
    elif finding.test == "superiority":
        marks.append(finding.threshold)
    ends = [v for bar in bars for v in bar[:3] if math.isfinite(v)] + marks + list(band or ())
    low, high = min(ends), max(ends)
    unit = 280.0 / (high - low) if high > low else 1.0

    def x(value: float) -> str:
        return f"{10 + unit * (min(max(value, low), high) - low):.1f}"

    parts = []
    if band:
        parts.append(
            f'<rect x="{x(band[0])}" y="2" width="{unit * (band[1] - band[0]):.1f}" height="42" '
            'fill="var(--line)"/>'
        )
    for place, mark in enumerate(marks):
        dash = ' stroke-dasharray="3 3"' if place or finding.absolute else ""
        parts.append(f'<path d="M{x(mark)} 2V44" stroke="var(--ink)" stroke-width="1"{dash}/>')
    for row, (value, left, right, colour, width) in enumerate(bars):
        y = 14 + 18 * row if len(bars) > 1 else 23
        parts.append(
            f'<path d="M{x(left)} {y}H{x(right)}" stroke="{colour}" stroke-width="{width:g}"/>'
        )
        parts.append(f'<circle cx="{x(value)}" cy="{y}" r="{3 + width / 2:g}" fill="{colour}"/>')
    return Markup(
        '<svg class="strip" viewBox="0 0 300 46" aria-hidden="true">' + "".join(parts) + "</svg>"
    )


def _short(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        rounded = float(f"{value:.4g}")
        return int(rounded) if rounded.is_integer() else rounded
    return value


def _embedded(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def audit_row(record: dict[str, Any]) -> dict[str, Any]:
    """One line of the audit table: the configuration, what was seen and what is wrong."""
    lags = record.get("lags", [])
    seen: dict[str, set[int]] = {}
    for by_field in record.get("influence", {}).values():
        for name, values in by_field.items():
            found = {lag for lag, value in zip(lags, values, strict=True) if value > 0}
            seen[name] = seen.get(name, set()) | found
    return {
        "mixer": words.level("mixer", str(record.get("mixer", ""))),
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
