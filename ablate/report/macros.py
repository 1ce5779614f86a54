r"""Every number in the paper's text as a LaTeX command, so that no number is typed by hand.

All studies share one file, so every name begins with its study's: `\MemoryVsArchPoneEstimate`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from ablate.report import tex
from ablate.report.findings import Finding
from ablate.report.story import Story

SCRIPT = "ablate/report/macros.py"


def make(story: Story) -> dict[str, str]:
    r"""Name (letters only) -> LaTeX text. For hypothesis `P1` of the study `small`:
    `\SmallPoneEstimate`, `\SmallPoneInterval`, ..."""
    return {name: value for name, (_, value) in _named(story).items()}


def names(story: Story) -> dict[tuple[str, str], str]:
    """("", kind of value) of the study, (hypothesis id, kind of value), ("design", its name), ("data",
    its name) or ("further", its heading) -> the macro's name, as `make` gives it."""
    return {key: name for name, (key, _) in _named(story).items()}


def behind(story: Story) -> dict[str, str]:
    """Of every macro about a hypothesis, the hypothesis whose trials it was made of; of all others
    the whole table is."""
    ids = {finding.id for finding in story.findings}
    return {name: key[0] for name, (key, _) in _named(story).items() if key[0] in ids}


def _named(story: Story) -> dict[str, tuple[tuple[str, str], str]]:
    """Name -> (what it is, LaTeX text), each name once."""
    values: list[tuple[tuple[str, str], str, tuple[str, ...]]] = []
    values += [(("", name), value, (name,)) for name, value in _general(story).items()]
    values += [(("further", h), tex.latex(said), (h,)) for h, said in story.further]
    values += [(("further", name), value, (name,)) for name, value in story.numbers.items()]
    values += [
        (("design", name), f"{cells:,}", ("design", name, "cells"))
        for name, _, cells in story.designs
    ]
    values += [
        (("data", one.name), f"{one.trials:,}", ("data", one.name, "trials")) for one in story.data
    ]
    values += [
        ((finding.id, kind), value, (finding.id, kind))
        for finding in story.findings
        for kind, value in _of(finding).items()
    ]
    out: dict[str, tuple[tuple[str, str], str]] = {}
    for key, value, words in values:
        out[_free(out, tex.macro_name(story.study, *words))] = (key, value)
    return out


def _general(story: Story) -> dict[str, str]:
    return {
        "Name": tex.latex(story.study),
        "Hash": tex.latex(story.study_hash[:12]),
        "HypothesesHash": tex.latex(story.hypotheses_hash[:12] or "none"),
        "Profile": tex.latex(story.profile),
        "SeedCount": f"{story.seeds:,}",
        "PlannedCount": f"{story.planned:,}",
        "Answer": tex.latex(story.answer),
        "Scale": tex.latex(story.scale),
        "RegisteredAt": tex.latex(story.registered or "unknown"),
        "FinishedCount": f"{story.finished:,}",
        "FailedCount": f"{story.failed:,}",
        "UnfinishedCount": f"{story.unfinished:,}",
        "CellCount": f"{story.cells:,}",
        "PossibleCellCount": f"{story.possible_cells:,}",
        "DataSetCount": str(len(story.data)),
        "HypothesisCount": str(len(story.findings)),
        "TestedCount": str(len(story.tested)),
        "Alpha": f"{story.alpha:g}",
        "Margin": "none" if story.margin is None else f"{story.margin:g}",
    }


def _of(finding: Finding) -> dict[str, str]:
    values = {
        "Verdict": tex.latex(finding.verdict),
        "Criterion": tex.latex(finding.criterion),
        "Failed": str(finding.failed),
        "Missing": str(finding.missing),
        "Trials": f"{len(finding.trials):,}",
        "Sentence": tex.latex(finding.sentence),
    }
    if finding.tested:
        values |= {
            "Estimate": tex.math_number(finding.shown_estimate),
            "Interval": tex.math_number(finding.shown_interval),
            "Result": tex.latex(finding.brief),
            "Amount": tex.latex(finding.amount),
            "Level": tex.latex(finding.level),
            "CorrectedP": tex.math_number(finding.p_relation),
        }
    if finding.tested and finding.fixed is not None:
        shown = finding.response.span(finding.fixed.low, finding.fixed.high)
        values["FixedInterval"] = tex.math_number(shown)
    if finding.tested and finding.population is not None:
        part = finding.population
        values |= {
            "PopulationEstimate": tex.math_number(
                finding.response.amount(part.estimate, sign=True)
            ),
            "PopulationInterval": tex.math_number(finding.response.span(part.low, part.high)),
        }
    return values


def _free(taken: Container[str], name: str) -> str:
    """`name`, or `name` with x's added until nothing else has it."""
    while name in taken:
        name += "x"
    return name


def render(values: Mapping[str, str]) -> str:
    r"""Lines of `\newcommand`s."""
    return "".join(f"\\newcommand{{\\{name}}}{{{value}}}\n" for name, value in values.items())
