r"""The LaTeX tables, each a complete `tabular` with booktabs rules, to be `\input` anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate import registry, words
from ablate.analyse import tidy as frame
from ablate.report import again, further, headroom, summaries, tex  # noqa: F401 (two register their tables)
from ablate.report.findings import Finding, Part
from ablate.report.grid import Grid
from ablate.report.results import Results
from ablate.report.story import Story
from ablate.report.summaries import Interval, View

SCRIPT = "ablate/report/tables.py"
LINE = 100  # letters of a table's size that a line of the paper holds, about
LONG = 26  # letters, beyond which a cell of text is broken into lines


@dataclass(frozen=True)
class Table:
    """A finished table: file stem, LaTeX, caption, the trials it is made of.

    small: in small letters; appended: it stands in the paper's appendix.
    """

    name: str
    body: str
    caption: str
    trials: tuple[str, ...]
    small: bool = False
    appended: bool = False


def grids(results: Results) -> list[Grid]:
    """The tables that the page shows as well: the registered ones in their order, then what goes beyond the
    verdicts."""
    names = words.levels("table", registry.names("table"))
    made = [registry.get("table", name)(results) for name in names]
    return [grid for grid in (*made, *further.grids(results.further)) if grid is not None]


def make(results: Results, grids: Sequence[Grid]) -> list[Table]:
    """All tables that have something to show; `grids` are those that the page shows as well."""
    made = [
        verdicts(results.story),
        *map(plain, grids),
        scores(results),
        matching(results.rows),
        failures(results.rows),
    ]
    return [one for one in made if one is not None]


def plain(grid: Grid) -> Table:
    """A table of plain text in LaTeX: the first column left, the others right."""
    rows: list[list[str]] = []
    for row in grid.rows:
        if len(row) == 1:
            rows += [["\\midrule"]] if rows else []
            rows.append([spanning(len(grid.head), f"\\emph{{{tex.latex(row[0])}}}", len(row[0]))])
        else:
            rows.append([tex.latex(cell) for cell in row])
    head = [tex.latex(name) for name in grid.head]
    whole = [grid.head, *(row for row in grid.rows if len(row) > 1)]
    body = tabular(alignments(whole), head, rows)
    return Table(grid.name, body, grid.caption, grid.trials, grid.small, grid.appended)


def alignments(rows: Sequence[Sequence[str]]) -> str:
    """Columns for rows of plain text: the first to the left and others to the right, but that columns of long texts
    share what the others leave of a line, by their lengths, and break their cells."""
    most = [max(map(len, column)) for column in zip(*rows, strict=True)]
    long = [i for i, length in enumerate(most) if length > LONG]
    if sum(most) + 2 * len(most) <= LINE or not long:
        return "l" + "r" * (len(most) - 1)
    left = max(LINE - sum(most[i] + 2 for i in range(len(most)) if i not in long), LINE // 2)
    wants = {i: most[i] ** 0.5 for i in long}
    found = ["l" if not i else "r" for i in range(len(most))]
    for i, want in wants.items():
        share = left / LINE * want / sum(wants.values())
        found[i] = f">{{\\raggedright\\arraybackslash}}p{{{share - 0.02:.2f}\\linewidth}}"
    return "".join(found)


def spanning(columns: int, cell: str, length: int) -> str:
    """A LaTeX cell over all columns, broken into lines where its text of `length` letters is longer than one."""
    broken = ">{\\raggedright\\arraybackslash}p{0.97\\linewidth}"
    return f"\\multicolumn{{{columns}}}{{{broken if length > 0.9 * LINE else 'l'}}}{{{cell}}}"


def verdicts(story: Story) -> Table | None:
    """One row a hypothesis: criterion, estimate, interval, p, corrected p, failed trials,
    verdict."""
    if not story.findings:
        return None
    rows = [_verdict_row(finding) for finding in story.findings]
    head = [
        "",
        "criterion",
        "estimate",
        "these data sets",
        "new data sets",
        "$p$",
        "failed",
        "verdict",
    ]
    if all(finding.population is None for finding in story.findings):  # nothing over data sets
        head.remove("new data sets")
        for row in rows:
            del row[4]
    columns = "l>{\\raggedright\\arraybackslash}p{1.15in}" + "r" * (len(head) - 3) + "l"
    return Table(
        "verdicts",
        tabular(columns, head, rows),
        "Verdicts. Estimates, in the unit of the criterion, with intervals of the fixed estimand "
        "(these data sets, new seeds) and, where a contrast is there on several data sets, of the "
        "population estimand (new data sets; in brackets the number that it rests on). A hypothesis "
        "is decided for new seeds unless a double dagger says that it is for new data sets. p is of "
        "what the verdict says, corrected by Holm's method within the declared family; `failed' "
        "counts failed trials among those the contrast needs. A star marks primary hypotheses, a "
        "dagger exploratory ones.",
        tuple(trial for finding in story.findings for trial in finding.trials),
        small=True,
    )


def _interval(part: Part | None, finding: Finding) -> str:
    if part is None:
        return "--"
    return tex.math_number(finding.response.span(part.low, part.high))


def _verdict_row(finding: Finding) -> list[str]:
    marks = [
        *(["\\star"] if finding.primary else []),
        *([] if finding.confirmatory else ["\\dagger"]),
        *(["\\ddagger"] if finding.estimand == "population" else []),
    ]
    mark = f"$^{{{' '.join(marks)}}}$" if marks else ""
    if not finding.tested:
        return [
            tex.latex(finding.id) + mark,
            tex.latex(finding.criterion),
            *["--"] * 4,
            str(finding.failed),
            "not tested",
        ]
    new = finding.population
    rests = f" ({new.label.split()[0]})" if new is not None else ""
    return [
        tex.latex(finding.id) + mark,
        tex.latex(finding.criterion),
        tex.math_number(finding.shown_estimate),
        _interval(finding.fixed, finding),
        _interval(new, finding) + rests,
        tex.math_number(words.p_value(finding.p_corrected)),
        str(finding.failed),
        tex.latex(finding.verdict),
    ]


def scores(results: Results) -> Table | None:
    """The first response at the slice of its figure, mean and half-width; None where nothing varies.

    Of two factors a block a data set, the factor along the figure's axis across where its levels are numbers; of one
    factor a line a data set.
    """
    view = summaries.view(results.rows, results.metric, results.study.hypotheses)
    if view is None:
        return None
    return _blocks(view, results.metric) if view.series else _rows(view, results.metric)


def _blocks(view: View, metric: str) -> Table:
    response = words.response(metric)
    down, across = (view.series, view.across) if view.ordered else (view.across, view.series)
    found = {name: view.cells(name, metric) for name in view.panels}
    if not view.ordered:
        found = {
            name: {(b, a): cell for (a, b), cell in cells.items()} for name, cells in found.items()
        }
    width = max(len({x for x, _ in cells}) for cells in found.values())
    rows: list[list[str]] = []
    for name, cells in found.items():
        columns = words.levels(across, (x for x, _ in cells))
        rest = [""] * (width - len(columns))
        held = words.held(view.panels[name][0])
        note = f" ({tex.latex(held)})" if held else ""
        shown = f"\\emph{{{tex.latex(words.data(name))}}}{note}"
        rows += [["\\midrule"]] if rows else []
        rows.append([spanning(width + 1, shown, len(words.data(name)) + len(held) + 3)])
        rows.append(["", *(tex.latex(words.setting(across, x)) for x in columns), *rest])
        for level in words.levels(down, (y for _, y in cells)):
            line = [_cell(cells.get((x, level)), response) for x in columns]
            rows.append([tex.latex(words.level(down, level)), *line, *rest])
    return Table(
        "scores",
        tabular("l" + "r" * width, [], rows),
        f"{words.capital(response.said)} by {words.factor(down).label} and {words.factor(across).label} at the "
        "slice of the figure: mean over seeds and half-width of the 95 % Student-t interval; a single seed is marked "
        "by a one in brackets.",
        tuple(
            trial for cells in found.values() for cell in cells.values() for trial in cell.trials
        ),
        appended=True,
    )


def _rows(view: View, metric: str) -> Table:
    response = words.response(metric)
    levels = view.levels(view.across)
    head = [f"\\rotatebox{{60}}{{{tex.latex(words.level(view.across, x))}}}" for x in levels]
    found = {name: {x: c for (x, _), c in view.cells(name, metric).items()} for name in view.panels}
    rows = []
    for name, cells in found.items():
        means = [cell.mean for cell in cells.values()]
        best = (min if response.lower else max)(means, default=float("nan"))
        line = [_small(cells.get(x), best, response) for x in levels]
        rows.append([tex.latex(words.data(name)), *line])
    if response.points and len(found) > 1:
        mean = []
        for x in levels:
            there = [cells[x].mean for cells in found.values() if x in cells]
            mean.append(f"${np.mean(there):.1f}$" if len(there) == len(found) else "--")
        rows += [["\\midrule"], ["mean", *mean]]
    return Table(
        "scores",
        tabular("l" + "r" * len(levels), ["", *head], rows),
        f"{words.capital(response.said)} by {words.factor(view.across).label} and data set: mean over "
        "trials and, small, half of its 95 % Student-t interval; bold: the best mean of a "
        "line, which says nothing of whether it differs from the next.",
        tuple(
            dict.fromkeys(t for cells in found.values() for c in cells.values() for t in c.trials)
        ),
        appended=True,
    )


def _small(cell: Interval | None, best: float, response: words.Response) -> str:
    """A mean with its half-width as an index; bold when it is the best."""
    if cell is None:
        return "--"
    shown = response.amount(cell.mean).replace("−", "-")
    half = cell.high - cell.mean
    width = f"_{{\\pm {response.amount(half)}}}" if np.isfinite(half) else ""
    return f"$\\mathbf{{{shown}}}{width}$" if cell.mean == best else f"${shown}{width}$"


def _cell(cell: Interval | None, response: words.Response) -> str:
    if cell is None or cell.n == 0:
        return "--"
    half = cell.high - cell.mean
    width = f" \\pm {response.amount(half)}" if np.isfinite(half) else ""
    shown = response.amount(cell.mean).replace("−", "-")
    return f"${shown}{width}$" + (f" ({cell.n})" if cell.n < 2 else "")


def matching(table: pd.DataFrame) -> Table | None:
    """Parameters and residual mismatch by mixer, over all cells."""
    if "parameters" not in table.columns or "mixer" not in table.columns:
        return None
    rows = []
    shown = table[table["parameters"].notna()]
    if shown.empty:
        return None
    groups = {str(name): group for name, group in shown.groupby("mixer", sort=True, observed=True)}
    for name in words.levels("mixer", groups):
        group = groups[name]
        low, high = int(group["parameters"].min()), int(group["parameters"].max())
        worst = (
            group["parameter_mismatch"].abs().max()
            if "parameter_mismatch" in group
            else float("nan")
        )
        targets = sorted({int(t) for t in group.get("targets", pd.Series(dtype=float)).dropna()})
        rows.append(
            [
                tex.latex(words.level("mixer", name)),
                f"{low:,}" if low == high else f"{low:,}--{high:,}",
                "--" if np.isnan(worst) else f"{worst:.2f}\\,\\%",
                words.listing(f"{t:,}" for t in targets) if targets else "--",
                _operations(group),
                str(len(group[frame.factor_columns(group)].drop_duplicates())),
            ]
        )
    return Table(
        "matching",
        tabular(
            "lrr>{\\raggedright\\arraybackslash}p{0.3\\linewidth}rr",
            [
                "mixer",
                "parameters",
                "largest mismatch",
                "supervised targets",
                "operations",
                "cells",
            ],
            rows,
        ),
        "Matching: trainable parameters over all cells of a mixer, the largest relative distance "
        "to the size asked for, the supervised targets that each model was trained on, and the "
        "floating-point operations of one target, in thousands.",
        tuple(shown["trial"].tolist()),
    )


def _operations(rows: pd.DataFrame) -> str:
    """The least and the most operations of a target, in thousands."""
    found = rows.get("flops_per_target", pd.Series(dtype=float)).dropna()
    if found.empty:
        return "--"
    low, high = (f"{value / 1000:,.0f}" for value in (found.min(), found.max()))
    return low if low == high else f"{low}--{high}"


def failures(table: pd.DataFrame) -> Table | None:
    """Trials finished, failed and unfinished by data set, always shown, also when nothing
    failed."""
    done, failed = frame.finished(table), frame.failed(table)
    rows = []
    for name in sorted(table["data"].unique()):
        here = (table["data"] == name).to_numpy()
        reasons = _reasons(table[here & failed])
        n = [int((here & part).sum()) for part in (done, failed, ~done & ~failed)]
        rows.append([tex.latex(words.data(name)), *map(str, n), tex.latex(reasons) or "--"])
    total = [int(part.sum()) for part in (done, failed, ~done & ~failed)]
    rows += [["\\midrule"], ["all", *map(str, total), ""]]
    return Table(
        "failures",
        tabular(
            "lrrr>{\\raggedright\\arraybackslash}p{0.25\\linewidth}",
            ["data set", "finished", "failed", "not finished", "most frequent reason"],
            rows,
        ),
        "Trials by data set. Failed trials are left out of every mean and counted beside every "
        "verdict.",
        tuple(table["trial"].tolist()),
    )


def _reasons(rows: pd.DataFrame) -> str:
    if "failure" not in rows.columns or rows.empty:
        return ""
    counted = rows["failure"].fillna("").astype(str).value_counts()
    top = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[0]
    return f"{str(top[0])[:80]} ({top[1]})" if top[0] else ""


def tabular(columns: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A `tabular`, made smaller where it is wider than a line; a row of the single cell `\\midrule` is a rule.
    Cells are LaTeX already."""
    fitted = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    lines = [fitted, f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    if head:
        lines += [" & ".join(head) + r" \\", "\\midrule"]
    for row in rows:
        lines.append(row[0] if row == ["\\midrule"] else " & ".join(row) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", ""])
