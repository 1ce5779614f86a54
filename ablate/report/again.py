"""The verdicts again: at every budget of a study that has several, and under other streams where it was replicated."""

from __future__ import annotations

import math

import pandas as pd

from ablate import words
from ablate.analyse import replication
from ablate.analyse import tidy as frame
from ablate.registry import register
from ablate.report import summaries
from ablate.report.findings import Finding
from ablate.report.grid import Grid
from ablate.report.results import Results


@register("table", "budgets", order=10)
def budgets(results: Results) -> Grid | None:
    """Each hypothesis at every budget; None where no fit was measured at more than one."""
    table = results.budgets
    if not frame.several_budgets(table):
        return None
    found = results.by_budget
    findings = {finding.id: finding for finding in results.findings}
    rows: list[tuple[str, ...]] = []
    for name, group in found.groupby("hypothesis", sort=False):
        finding = findings[str(name)]
        rows.append((finding.id,))
        for row in group.to_dict("records"):
            rows.append(_last(row, finding) if row["last"] else _earlier(row, finding))
    return Grid(
        "budgets",
        "Verdicts by budget",
        "The verdict on each hypothesis at every budget of training, from the same fits: estimates in the unit of its "
        "criterion, with 95 % intervals, corrected by Holm's method within each budget. The study is decided at the "
        "last budget; the others show whether the answer depends on how long the models trained.".replace(
            "95 %", words.percent(1.0 - results.alpha)
        ),
        ("updates", "estimate", "interval", "trials", "verdict"),
        tuple(rows),
        tuple(summaries.finished(table)["trial"].astype(str).tolist()),
        small=True,
    )


def _earlier(row: dict, finding: Finding) -> tuple[str, ...]:
    """A line of a budget at which nothing is decided."""
    response, updates = finding.response, f"{int(row['budget']):,}"
    if math.isnan(row["estimate"]):
        return (updates, "–", "–", "–", str(row["verdict"]))
    return (
        updates,
        response.amount(row["estimate"], sign=not finding.absolute),
        response.span(row["low"], row["high"]),
        f"{row['trials']:,}",
        str(row["verdict"]),
    )


def _last(row: dict, finding: Finding) -> tuple[str, ...]:
    """The line of the last budget: the verdict itself, which an earlier look may have settled."""
    decided = {"estimate": finding.estimate, "low": finding.low, "high": finding.high}
    return _earlier({**row, **decided, "verdict": finding.verdict}, finding)


@register("table", "replications", order=11)
def replications(results: Results) -> Grid | None:
    """How the intervals of replications cover each other's means; None where the study has none."""
    told = {finding.id: finding for finding in results.findings}
    known: pd.DataFrame = results.replications[results.replications["hypothesis"].isin(list(told))]
    if known.empty:
        return None
    rows = []
    for name, parts in replication.coverage(known).groupby("hypothesis", sort=False):
        finding = told[str(name)]
        response, count = finding.response, int(parts["replications"].max())
        verdicts = known[known["hypothesis"] == name].drop_duplicates("streams")["verdict"]
        decided = parts[parts["part"] == finding.decided_by]
        lead = (decided if len(decided) else parts).iloc[0]
        rows.append(
            (
                finding.id,
                str(count),
                f"{(verdicts == finding.verdict).sum()} of {len(verdicts)}",
                f"{parts['covered'].sum()} of {parts['replications'].sum()}" if count > 2 else "–",
                response.amount(lead["estimate"], sign=not finding.absolute),
                response.amount(lead["between"]) if count > 1 else "–",
                response.amount(lead["half_width"]),
            )
        )
    level = words.listing(words.percent(x) for x in sorted(known["confidence"].unique()))
    return Grid(
        "replications",
        "Replications under other streams",
        "The study again under other streams, that is other initial weights, batches and evaluation episodes "
        f"on the same data: how many have the verdict of the study itself, how many of their {level} intervals "
        "(of each part of a claim) cover the mean of the others, the mean of their estimates and its standard "
        "deviation between them, and the mean half width of the intervals; the last three of the part that "
        "decides the study's own verdict. An honest interval covers somewhat less often than its confidence "
        "says, as the mean of the others is itself uncertain.",
        (
            "claim",
            "replications",
            "same verdict",
            "covered",
            "mean estimate",
            "SD between",
            "half width",
        ),
        tuple(rows),
        (),
        small=True,
    )
