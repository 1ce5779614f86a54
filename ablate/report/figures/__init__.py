"""The figures: each one a file and one registration.

A figure is a function of `Results` that gives a `Drawn`, or None where it has nothing to show::

    @register("figure", "collapse", order=25)
    def draw(results: Results) -> Drawn | None: ...

A study names the figures it wants (`figures: [forest, collapse]`); of one that names none, all that have something to
show are drawn in their order. What a study's own file or a plugin registers stands in page and paper like ours.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import ablate
from ablate import registry, words
from ablate.report import style
from ablate.report.figures import (  # noqa: F401 (each registers itself)
    attribution,
    audit,
    budget,
    calibration,
    curves,
    forest,
    levels,
    lines,
    profiles,
    series,
    specification,
    variance,
)
from ablate.report.figures.base import Drawn

if TYPE_CHECKING:
    from ablate.report.results import Results


def chosen(results: Results) -> list[str]:
    """The names of the figures to draw: those of the study file, or all in their order."""
    named = tuple(getattr(results.study, "figures", ()))
    for name in named:
        registry.part("figure", name, f"study '{results.study.study}': the figure")
    return list(named) or words.levels("figure", registry.names("figure"))


def draw(results: Results, venue: str = style.DEFAULT) -> list[tuple[Drawn, dict[str, bytes]]]:
    """Each chosen figure that has something to show, with its bytes by kind (pdf, png, svg).

    Raises UserError for the name of a figure that nobody registered.
    """
    out = []
    with style.paper_style(venue):
        for name in chosen(results):
            function = registry.get("figure", name)
            drawn = function(results)
            if drawn is not None:
                drawn = replace(drawn, name=name, script=_script(function))
                out.append((drawn, style.files(drawn.figure)))
    return out


def _script(function: object) -> str:
    """The file that draws a figure, from the root of the project."""
    path = Path(inspect.getsourcefile(function) or "").resolve()  # type: ignore[arg-type]
    root = Path(ablate.__file__).resolve().parents[1]
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name
