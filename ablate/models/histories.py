"""What of the past is shown: a level of the factor `history` is a sum of these parts, `states+actions`.

The present observation and the present condition always are visible.
"""

from __future__ import annotations

from ablate.registry import register, terms


class History:
    """One kind of thing that stays visible once it is past.

    Attributes:
        shows: of `observation`, `action`, `reward` and `returns`, which conditions ask for (`Condition.stays`).
    """

    shows: frozenset[str] = frozenset()


@register("history", "states", order=1)
class States(History):
    """Past observations."""

    shows = frozenset({"observation"})


@register("history", "actions", order=2)
class Actions(History):
    """Past actions."""

    shows = frozenset({"action"})


@register("history", "rewards", order=3)
class Rewards(History):
    """Past rewards. Past returns-to-go are as good (R_{t-1} - R_t = r_{t-1}), so they are shown as well."""

    shows = frozenset({"reward", "returns"})


@register("history", "returns", order=4)
class Returns(History):
    """Past returns-to-go, and no rewards."""

    shows = frozenset({"returns"})


def past(level: str) -> frozenset[str]:
    """What a level shows of the past. Raises UserError for a part that is not known."""
    return frozenset().union(*(part.value.shows for part in terms("history", level)))
