r"""The LaTeX tables, each a complete `tabular` with booktabs rules, to be `\input` anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.analyse import table as frame
from ablate.report import style, summaries, text
from ablate.report.context import Grid
from ablate.report.figures import levels as factor_figure
from ablate.report.findings import Finding, Part
from ablate.report.story import Story

SCRIPT = "ablate/report/tables.py"


@dataclass(frozen=True)
class Table:
    """A finished table: file stem, LaTeX, caption, the trials it is made of."""

    name: str
    body: str
    caption: str
    trials: tuple[str, ...]


def make(story: Story, table: pd.DataFrame, grids: Sequence[Grid]) -> list[Table]:
    """All tables that have something to show; `grids` are those that the page shows as well."""
    made = [
        verdicts(story),
        *map(plain, grids),
        *scores(table),
        *levels(table, story.findings),
        matching(table),
        failures(table),
    ]
    return [one for one in made if one is not None]


def plain(grid: Grid) -> Table:
    """A table of plain text in LaTeX: the first column left, the others right."""
    widest = len(grid.head)
    rows: list[list[str]] = []
    for row in grid.rows:
        if len(row) == 1:
            rows += [["\\midrule"]] if rows else []
            rows.append([f"\\multicolumn{{{widest}}}{{l}}{{\\emph{{{text.latex(row[0])}}}}}"])
        else:
            rows.append([text.latex(cell) for cell in row])
    head = [text.latex(name) for name in grid.head]
    columns = "l" + "r" * (widest - 1)
    return Table(grid.name, tabular(columns, head, rows), grid.caption, grid.trials)


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
    )


def _interval(part: Part | None, finding: Finding) -> str:
    if part is None:
        return "--"
    return text.math_number(text.interval(part.low, part.high, finding.digits))


def _verdict_row(finding: Finding) -> list[str]:
    marks = [
        *(["\\star"] if finding.primary else []),
        *([] if finding.confirmatory else ["\\dagger"]),
        *(["\\ddagger"] if finding.estimand == "population" else []),
    ]
    mark = f"$^{{{' '.join(marks)}}}$" if marks else ""
    if not finding.tested:
        return [
            text.latex(finding.id) + mark,
            text.latex(finding.criterion),
            *["--"] * 4,
            str(finding.failed),
            "not tested",
        ]
    new = finding.population
    rests = f" ({new.label.split()[0]})" if new is not None else ""
    return [
        text.latex(finding.id) + mark,
        text.latex(finding.criterion),
        text.math_number(finding.shown_estimate),
        _interval(finding.fixed, finding),
        _interval(new, finding) + rests,
        text.math_number(text.p_value(finding.p_corrected)),
        str(finding.failed),
        text.latex(finding.verdict),
    ]


def scores(table: pd.DataFrame, metric: str = "score") -> list[Table]:
    """For each data set the figure's slice: mixers down, contexts across, mean and half-width."""
    done = summaries.finished(table)
    if metric not in done.columns or not {"mixer", "context"} <= set(done.columns):
        return []
    rows: list[list[str]] = []
    widest: list[int] = []
    trials: list[str] = []
    blocks = []
    for name, levels in summaries.core(table).items():
        cells = summaries.by_level(
            summaries.at(done[done["data"] == name], levels), ["mixer", "context"], metric
        )
        if cells:
            blocks.append((name, levels, cells))
            contexts = sorted({context for _, context in cells})
            widest = max(widest, contexts, key=len)
            trials += [trial for cell in cells.values() for trial in cell.trials]
    if not blocks:
        return []
    for name, levels, cells in blocks:
        contexts = sorted({context for _, context in cells})
        note = _describe(levels)
        rows.append(
            [
                f"\\multicolumn{{{len(widest) + 1}}}{{l}}{{\\emph{{{text.latex(text.data(name))}}}{note}}}"
            ]
        )
        rows.append(
            ["", *(f"$K={context}$" for context in contexts), *[""] * (len(widest) - len(contexts))]
        )
        for mixer in style.mixers(mixer for mixer, _ in cells):
            shown = [_cell(cells.get((mixer, context))) for context in contexts]
            rows.append(
                [text.latex(text.mixer(mixer)), *shown, *[""] * (len(widest) - len(contexts))]
            )
        rows.append(["\\midrule"])
    rows.pop()
    return [
        Table(
            "scores",
            tabular("l" + "r" * len(widest), [], rows),
            f"{text.metric(metric).capitalize()} by mixer and context at the slice of the figure: "
            "mean over seeds and half-width of the 95 % Student-t interval; the number of seeds "
            "in brackets where a trial is missing.",
            tuple(trials),
        )
    ]


def levels(
    table: pd.DataFrame, findings: Sequence[Finding] = (), metric: str = "score"
) -> list[Table]:
    """For tables without mixers and contexts: data sets down, the levels of the factor in question
    across (on their side where they are many); the last line is the mean over data sets."""
    done = summaries.finished(table)
    if {"mixer", "context"} <= set(done.columns) or metric not in done.columns:
        return []
    varied = factor_figure.factors(done, findings)
    if not varied:
        return []
    across = factor_figure.levels_of(done[varied[0]])
    names = factor_figure.levels_of(done["data"])
    found = {
        (name, level): factor_figure.mean(
            done[(done["data"].astype(str) == name) & (done[varied[0]].astype(str) == level)],
            metric,
        )
        for name in names
        for level in across
    }
    head = [f"\\rotatebox{{60}}{{{text.latex(level)}}}" for level in across]
    rows = []
    for name in names:
        means = {level: cell for level in across if (cell := found[name, level]) is not None}
        best = max((cell.mean for cell in means.values()), default=float("nan"))
        rows.append([text.latex(text.data(name)), *(_small(found[name, x], best) for x in across)])
    mean = []
    for level in across:
        there = [cell.mean for name in names if (cell := found[name, level]) is not None]
        mean.append(f"${np.mean(there):.1f}$" if len(there) == len(names) else "--")
    rows += [["\\midrule"], ["mean", *mean]]
    trials = tuple(dict.fromkeys(t for cell in found.values() if cell for t in cell.trials))
    return [
        Table(
            "scores",
            tabular("l" + "r" * len(across), ["", *head], rows),
            f"{text.metric(metric).capitalize()} by {text.plain(varied[0])} and data set: mean over "
            "trials and, small, half of its 95 % Student-t interval; bold: the highest mean of a "
            "line, which says nothing of whether it differs from the next.",
            trials,
        )
    ]


def _small(cell: summaries.Interval | None, best: float) -> str:
    """A mean with its half-width as an index; bold when it is the best."""
    if cell is None:
        return "--"
    shown = text.number(cell.mean).replace("−", "-")
    half = cell.high - cell.mean
    width = f"_{{\\pm {half:.1f}}}" if np.isfinite(half) else ""
    return f"$\\mathbf{{{shown}}}{width}$" if cell.mean == best else f"${shown}{width}$"


def _describe(levels: dict[str, object]) -> str:
    from ablate.report.figures.base import describe

    words = describe(levels)
    return f" ({text.latex(words)})" if words else ""


def _cell(cell: summaries.Interval | None) -> str:
    if cell is None or cell.n == 0:
        return "--"
    half = cell.high - cell.mean
    width = f" \\pm {half:.1f}" if np.isfinite(half) else ""
    return f"${text.number(cell.mean)}{width}$" + (f" ({cell.n})" if cell.n < 2 else "")


def matching(table: pd.DataFrame) -> Table | None:
    """Parameters and residual mismatch by mixer, over all cells."""
    if "parameters" not in table.columns or "mixer" not in table.columns:
        return None
    rows = []
    shown = table[table["parameters"].notna()]
    if shown.empty:
        return None
    groups = {str(name): group for name, group in shown.groupby("mixer", sort=True)}
    for name in style.mixers(groups):
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
                text.latex(text.mixer(name)),
                f"{low:,}" if low == high else f"{low:,}--{high:,}",
                "--" if np.isnan(worst) else f"{worst:.2f}\\,\\%",
                text.listing(f"{t:,}" for t in targets) if targets else "--",
                str(len(group[frame.factor_columns(group)].drop_duplicates())),
            ]
        )
    return Table(
        "matching",
        tabular(
            "lrrrr",
            ["mixer", "parameters", "largest mismatch", "supervised targets", "cells"],
            rows,
        ),
        "Matching: trainable parameters over all cells of a mixer, the largest relative distance "
        "to the size asked for, and the supervised targets that each model was trained on.",
        tuple(shown["trial"]),
    )


def failures(table: pd.DataFrame) -> Table | None:
    """Trials finished, failed and unfinished by data set, always shown, also when nothing
    failed."""
    done, failed = frame.finished(table), frame.failed(table)
    rows = []
    for name in sorted(table["data"].unique()):
        here = (table["data"] == name).to_numpy()
        reasons = _reasons(table[here & failed])
        n = [int((here & part).sum()) for part in (done, failed, ~done & ~failed)]
        rows.append([text.latex(text.data(name)), *map(str, n), text.latex(reasons) or "--"])
    total = [int(part.sum()) for part in (done, failed, ~done & ~failed)]
    rows += [["\\midrule"], ["all", *map(str, total), ""]]
    return Table(
        "failures",
        tabular(
            "lrrr>{\\raggedright\\arraybackslash}p{2.2in}",
            ["data set", "finished", "failed", "not finished", "most frequent reason"],
            rows,
        ),
        "Trials by data set. Failed trials are left out of every mean and counted beside every "
        "verdict.",
        tuple(table["trial"]),
    )


def _reasons(rows: pd.DataFrame) -> str:
    if "failure" not in rows.columns or rows.empty:
        return ""
    counted = rows["failure"].fillna("").astype(str).value_counts()
    top = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[0]
    return f"{str(top[0])[:80]} ({top[1]})" if top[0] else ""


def tabular(columns: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A `tabular`; a row of the single cell `\\midrule` is a rule. Cells are LaTeX already."""
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    if head:
        lines += [" & ".join(head) + r" \\", "\\midrule"]
    for row in rows:
        lines.append(row[0] if row == ["\\midrule"] else " & ".join(row) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])
