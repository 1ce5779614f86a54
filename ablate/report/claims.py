"""What tells of all studies: a figure of what was claimed elsewhere and what was found, and a table of how firm it is.

People write `claims.yaml` beside main.tex: a list, in the order in which it is shown, of claims, of the answers in
words without a number, and of the hypotheses that each answer rests on. Every number comes from these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pydantic import Field

from ablate import yaml_text
from ablate.errors import UserError, quoted, unknown
from ablate.registry import Section, checked
from ablate.report import style, tex, universes
from ablate.report.figures import base
from ablate.report.tables import tabular

FILE = "claims.yaml"
FIGURE, STANDING = "figures/claims", "tables/standing.tex"
REACH = 6.0  # smallest effects that matter, each way, that the axis shows
_LINE = 0.106  # inches of a line of text
_CLAIM, _FOUND, _PANEL = 0.19, 0.225, 0.215  # parts of the width; the rest is the effects' words
_CLAIMS, _ANSWERS, _EFFECTS = 24, 25, 48  # letters of a line
_GAP = 0.35  # lines between two effects
FIRMNESS = ("same verdict", "same sign", "universes", "replications")
_MARKS = {"supported": "o", "equivalent": "s", "refuted": "X"}
_OTHER = "D"  # of a verdict that isn't one of these


class Claim(Section):
    """A claim and its answer.

    claim: what was claimed or asked, in a sentence. found: the answer in words; its numbers are those of the
    hypotheses. rests_on: STUDY/HYPOTHESIS -> what its number is of, in a few words; none where it wasn't asked yet.
    """

    claim: str
    found: str
    rests_on: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A hypothesis as its study's entry in the manifest tells of it (`provenance.findings`), and what its number is
    of."""

    study: str
    id: str
    of: str
    facts: Mapping[str, Any]

    @property
    def tested(self) -> bool:
        """Whether it has an estimate."""
        return self.facts["estimate"] is not None

    @property
    def sure(self) -> str:
        """How sure a verdict is: seeds, and the share of the multiverse in which it is the same."""
        said = f"{self.facts['seeds']} seeds"
        if self.facts["stands"] is not None:
            said += f"; {100 * self.facts['stands']:.0f} % of universes"
        return said

    def scaled(self, value: float) -> float:
        """In smallest effects that matter."""
        return (float(value) - self.facts["around"]) / self.facts["matters"]


def read(folder: Path) -> tuple[Claim, ...]:
    """The claims of the paper in `folder`; none where it has no such file.

    Raises UserError for what isn't a list of claims, and for a digit in an answer.
    """
    path = folder / FILE
    if not path.is_file():
        return ()
    try:
        found = yaml_text.read(path).plain()
    except yaml_text.Unreadable as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(found, list):
        raise UserError(f"{path}: found {quoted(found)}; allowed: a list of claims.")
    claims = tuple(checked(Claim, one, f"{path}: claim {n}") for n, one in enumerate(found, 1))
    for one in claims:
        if number := re.search(r"\d+", one.found):
            raise UserError(
                f"{path}: the answer {quoted(one.found)} has the number {number[0]}; allowed: words, since the numbers "
                "are those of the hypotheses that it rests on."
            )
    return claims


def rows(claim: Claim, entries: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The hypotheses that a claim rests on. entries: by study, as in the manifest.

    Raises UserError for a study or a hypothesis that the paper doesn't have.
    """
    out = []
    for name, of in claim.rests_on.items():
        study, _, hypothesis = name.partition("/")
        if study not in entries:
            raise unknown(f"{FILE}: rests_on '{name}': the study", study, entries)
        findings = {one["id"]: one for one in entries[study]["findings"]}
        if hypothesis not in findings:
            raise unknown(f"{FILE}: rests_on '{name}': the hypothesis", hypothesis, findings)
        out.append(Row(study, hypothesis, of, findings[hypothesis]))
    return out


def draw(
    claims: Sequence[Claim], entries: Mapping[str, Mapping[str, Any]], venue: str
) -> dict[str, bytes]:
    """The figure by kind of file: a row a claim with its answer, and beside it the effects that it rests on, in
    multiples of the smallest that matters."""
    with style.paper_style(venue):
        made = style.files(_figure(claims, entries))
    return {kind: made[kind] for kind in ("pdf", "png")}


def _figure(claims: Sequence[Claim], entries: Mapping[str, Mapping[str, Any]]) -> Figure:
    told = [
        (base.wrap(one.claim, _CLAIMS), base.wrap(one.found, _ANSWERS), rows(one, entries))
        for one in claims
    ]
    beside = [[_beside(effect) for effect in effects] for _, _, effects in told]
    sizes = [sum(map(len, texts)) + _GAP * (len(texts) - 1) for texts in beside]
    heights = [max(len(a), len(b), size) + 0.8 for (a, b, _), size in zip(told, sizes, strict=True)]
    whole = (sum(heights) + 6.6) * _LINE
    figure = Figure(figsize=(style.width(), whole))
    figure.set_layout_engine("none")  # its columns have the places that they are given
    bottom, top = 4.9 * _LINE / whole, 1 - 1.6 * _LINE / whole
    panel = figure.add_axes((_CLAIM + _FOUND, bottom, _PANEL, top - bottom))
    panel.set(xlim=(-REACH, REACH), ylim=(sum(heights), 0), yticks=[], xticks=[-5, -1, 0, 1, 5])
    panel.tick_params(axis="x", labelsize=style.SMALL)
    panel.spines["left"].set_visible(False)
    panel.axvline(0, color="#b0b0b0", linewidth=0.8, zorder=0.5)
    style.shade(panel, -1, 1)
    panel.set_xlabel("in multiples of the\nsmallest that matters", fontsize=style.SMALL)

    def write(x: float, line: float, text: str, **options: Any) -> None:
        y = top - (top - bottom) * line / sum(heights)
        figure.text(x, y, text, fontsize=style.SMALL, linespacing=1.0, va="center", **options)

    right = _CLAIM + _FOUND + _PANEL + 0.02
    for x, head in ((0.0, "claimed or asked"), (_CLAIM, "found"), (right, "effect")):
        write(x, -0.8, head, color=base.GREY)
    line = 0.0
    for (said, found, effects), texts, size, height in zip(
        told, beside, sizes, heights, strict=True
    ):
        middle = line + height / 2
        write(0.0, middle, "\n".join(said))
        write(_CLAIM, middle, "\n".join(found), weight="bold" if effects else "normal")
        place = middle - size / 2
        for effect, text in zip(effects, texts, strict=True):
            _effect(panel, effect, place + len(text) / 2)
            write(right, place + len(text) / 2, "\n".join(text))
            place += len(text) + _GAP
        line += height
        panel.axhline(
            line, color="#dddddd", linewidth=0.4, zorder=0, xmin=-4, xmax=4, clip_on=False
        )
    return figure


def _beside(effect: Row) -> list[str]:
    """What is written beside an effect, in lines."""
    facts = effect.facts
    lines = base.wrap(f"{effect.of}:", _EFFECTS)
    if not effect.tested:
        return [*lines, facts["verdict"]]
    return [*lines, *base.wrap(f"{facts['shown']}; {facts['verdict']}; {effect.sure}", _EFFECTS)]


def _effect(panel: Any, effect: Row, place: float) -> None:
    """The interval, cut off where the axis ends, and the estimate; an arrow where that lies beyond."""
    facts = effect.facts
    if not effect.tested or facts["matters"] is None:
        return
    colour = style.VERDICTS.get(facts["verdict"], style.UNDECIDED)
    bounds = (
        (facts["low"], -REACH),
        (facts["high"], REACH),
    )  # an end that isn't there lies beyond the axis
    ends = [end if bound is None else effect.scaled(bound) for bound, end in bounds]
    ends = [min(max(end, -REACH), REACH) for end in ends]
    panel.plot(ends, [place] * 2, color=colour, linewidth=1.5, solid_capstyle="butt", zorder=3)
    middle = effect.scaled(facts["estimate"])
    beyond = abs(middle) > REACH
    panel.plot(
        math.copysign(REACH, middle) if beyond else middle,
        place,
        (">" if middle > 0 else "<") if beyond else _MARKS.get(facts["verdict"], _OTHER),
        color=colour,
        markersize=5.0,
        markeredgewidth=0,
        clip_on=False,
        zorder=4,
    )


def standing(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """A LaTeX table of the primary hypotheses of all studies: how often their verdict and their sign stay the same
    where the same runs are judged otherwise, and the verdict in replications; with each study's planted control."""
    lines: list[list[str]] = []
    for study, entry in sorted(entries.items()):
        for facts in entry["findings"]:
            if facts["primary"]:
                cells = (study, facts["id"], facts["verdict"], facts["shown"], *firmness(facts))
                lines.append([tex.latex(cell) for cell in cells])
        told = universes.control_words(entry["control"])
        lines.append([tex.latex(cell) for cell in (study, "control: halves", "", told, *[""] * 4)])
    head = ["study", "primary hypothesis", "verdict", "effect", *FIRMNESS]
    return tabular(r"@{}lllp{0.3\linewidth}rrrr@{}", head, lines)


def firmness(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """How firmly a hypothesis stands, under the heads of `FIRMNESS`; empty where it can't be told."""
    shares = (
        "" if facts[s] is None else f"{100 * facts[s]:.0f} %" for s in ("stands", "same_sign")
    )
    same, all_of = facts["replications"]
    size = "" if facts["universes"] is None else str(facts["universes"])
    return *shares, size, f"{same} of {all_of}" if all_of else ""
