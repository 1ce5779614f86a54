"""When a study may look at its runs before all seeds are there."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import Field, field_validator

from ablate.registry import Section

SEEDS = 10_000  # of a study at most


class SequentialSection(Section):
    """Declared looks, for `run --until-decided`; see `ablate.analyse.sequential`.

    looks: seeds a cell at each look. spending: how the error rate is shared out over the looks;
    bound: how a look's level follows from what it may spend.
    """

    looks: tuple[int, ...] = Field(max_length=100)
    spending: Literal["obrien-fleming", "pocock"] = "obrien-fleming"
    bound: Literal["union", "normal"] = "union"

    @field_validator("looks")
    @classmethod
    def _increasing(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        shown = ", ".join(map(str, looks))
        if not looks:
            raise ValueError("found no looks; allowed: numbers of seeds such as [4, 6, 8, 10]")
        if looks[0] < 2:
            raise ValueError(
                f"found {shown}; allowed: two seeds or more at the first look, as one shows no spread"
            )
        if any(later <= earlier for earlier, later in itertools.pairwise(looks)):
            raise ValueError(f"found {shown}; allowed: numbers of seeds that increase")
        if looks[-1] > SEEDS:
            raise ValueError(f"found {shown}; allowed: {SEEDS:,} seeds at most")
        return looks
