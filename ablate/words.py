"""One vocabulary: what a response or a factor is called, its unit, and how numbers are written.

Everything that a person reads takes its words from here: terminal, page, paper, figures, tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ablate import registry

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Response:
    """A named number that a measurement gives.

    name: as in a study file and in the tidy table, where it stands behind its measurement's name:
        `rollout.score`.
    label: as in a sentence or on an axis; the name with spaces when empty.
    unit: as in "12.3 points"; empty where it has none.
    direction: whether more is better; `none` where neither is.
    digits: decimals that are shown.
    points: it is in normalised points, so that a study's `margin` holds for it.
    index: what it runs over (`horizon`, `timestep`), one value each; empty for a single number.
    tabled: whether its values over the index stand in series.csv too, not in the record of the run alone.
    """

    name: str
    label: str = ""
    unit: str = ""
    direction: Direction = "none"
    digits: int = 3
    points: bool = False
    index: str = ""
    tabled: bool = True

    @property
    def said(self) -> str:
        """The label, or the name in words."""
        return self.label or self.name.replace("_", " ")


def response(name: str) -> Response:
    """The response of a qualified name such as `rollout.score`, as its measurement declares it.

    A column that no measurement declares (a table from elsewhere) is a response of that name with nothing
    known about it.
    """
    measurement, _, own = name.rpartition(".")
    if measurement in registry.names("measurement"):
        own = own.partition("@")[0]  # `open-loop.error@5` is the response at one value of its index
        for each in registry.get("measurement", measurement).responses:
            if each.name == own:
                return each
    return Response(name)
