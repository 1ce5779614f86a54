"""One vocabulary: what responses, factors and levels are called, and how numbers are written.

Everything that a person reads takes its words from here: terminal, page, paper, figures, tables. What a response
is called, its measurement declares; what a level is called, the part that is registered under it; what a factor
is called stands at the end of this file, and a plugin adds its own by `declare`.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ablate import registry
from ablate.errors import UserError

Direction = Literal["higher", "lower", "none"]
ABSENT = "n/a"  # where there is no number
LAST = 1_000  # the place of what declares none


# --- numbers


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """`value` with fixed digits and a real minus, never `−0.0`; `n/a` where there is none.

    sign: write the plus of a positive value.
    """
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "infinity" if value > 0 else "−infinity"
    shown = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(shown) == 0.0:
        return f"{0.0:.{digits}f}"
    return shown.replace("-", "−")


def significant(value: float | None) -> str:
    """Three digits that matter, for a number that is no response and has no digits of its own: 12.3, 0.0451."""
    if value is None or not math.isfinite(value):
        return number(value)
    if abs(value) < 5e-7:
        return "0"
    return number(value, min(max(2 - math.floor(math.log10(abs(value))), 0), 6))


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """`low to high`; with one end at infinity `at least low`, `at most high`; with both `unbounded`."""
    if low == -math.inf and high == math.inf:
        return "unbounded"
    if high is not None and high == math.inf:
        return f"at least {number(low, digits)}"
    if low is not None and low == -math.inf:
        return f"at most {number(high, digits)}"
    return f"{number(low, digits)} to {number(high, digits)}"


def p_value(p: float | None) -> str:
    """A p value below the heading "p": three decimals, or `< 0.001`."""
    if p is None or math.isnan(p):
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_relation(p: float | None) -> str:
    """A p value behind the word p: `= 0.014`, `< 0.001`."""
    shown = p_value(p)
    return f"= {shown}" if shown[0].isdigit() else shown


def p_said(p: float | None) -> str:
    """A p value in a sentence: `p = 0.014`, `p < 0.001`."""
    return f"p {p_relation(p)}"


def percent(share: float, digits: int | None = None) -> str:
    """0.95 as `95 %`; with fixed digits where they are given."""
    return f"{share * 100:.3g} %" if digits is None else f"{number(100 * share, digits)} %"


# --- sentences


def listing(words: Iterable[object]) -> str:
    """`a, b and c`."""
    items = [str(word) for word in words]
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def count(n: int, noun: str, plural: str = "") -> str:
    """`1 trial`, `2 trials`, `no trial`."""
    if n == 0:
        return f"no {noun}"
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def capital(text: str) -> str:
    """With a capital first letter; the others stay as they are."""
    return text[:1].upper() + text[1:]


def as_sentence(text: str) -> str:
    """`text` with a capital at its start and a full stop, unless it ends in another mark."""
    text = capital(text.strip())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def plain(name: str) -> str:
    """A name of the code as words: `learning_rate` -> `learning rate`."""
    return name.replace("_", " ")


# --- responses


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
    places: at how many places of a longer index they stand there, the first, the last and others at equal ratios
        between them; 0 for all.
    way: of `WAYS`, how it makes a number of the episodes that another response is made of; its name is the other's and
        this one. Such a response is for the multiverse alone, and the page's table leaves it out.
    """

    name: str
    label: str = ""
    unit: str = ""
    direction: Direction = "none"
    digits: int = 3
    points: bool = False
    index: str = ""
    tabled: bool = True
    places: int = 0
    way: str = ""

    def ways(self, *ways: str) -> tuple[Response, ...]:
        """The responses that make numbers of the same episodes in other ways."""
        return tuple(
            replace(self, name=f"{self.name}_{way}", label=f"{self.said}, {way_said(way)}", way=way)
            for way in ways
        )

    @property
    def said(self) -> str:
        """The label, or the name in words."""
        return self.label or plain(self.name)

    @property
    def lower(self) -> bool:
        """Whether less of it is better."""
        return self.direction == "lower"

    def amount(self, value: float | None, sign: bool = False) -> str:
        """A value without its unit."""
        return number(value, self.digits, sign)

    def quantity(self, value: float | None, sign: bool = False) -> str:
        """A value with its unit: `+12.3 points`."""
        return f"{self.amount(value, sign)} {self.unit}".strip()

    def span(self, low: float | None, high: float | None) -> str:
        """An interval without its unit: `1.2 to 3.4`."""
        return interval(low, high, self.digits)

    def axis(self, before: str = "") -> str:
        """The label of an axis, with the unit: `score (points)`.

        before: words in front, as `change in`.
        """
        shown = f"{before} {self.said}".strip()
        unit = f"fraction {self.unit}" if self.unit.startswith("of ") else self.unit
        return f"{shown} ({unit})" if unit else shown


# How the episodes of a run become one number in other ways than their mean, by the end of a column's name.
WAYS = {
    "iqm": "interquartile mean of the episodes",
    "cap_half": "half the cap",
    "cap_double": "twice the cap",
}


def way_said(way: str) -> str:
    """How the episodes become one number, in words; `episodes_10` are the first ten. Empty where it is no such way."""
    head, _, number_of = way.rpartition("_")
    if head == "episodes" and number_of.isdecimal():
        return f"{number_of} episodes"
    return WAYS.get(way, "")


# What a fit has beside what is measured on it; columns of the tidy table under these names.
SIZES = (
    Response("parameters", digits=0),
    Response("parameter_mismatch", unit="%", digits=2),
    Response("width", digits=0),
    Response("targets", "supervised targets", digits=0),
    Response("flops_per_target", "FLOPs per target", digits=0),
)


def response(name: str) -> Response:
    """The response of a column such as `rollout.score`, as its measurement declares it.

    `open-loop.error@5` is the response at one value of its index. A name without a measurement, as in a table from
    elsewhere, is called like the response of that name of the first measurement that has one; what nobody
    declares is a response of that name with nothing known about it.
    """
    column, _, at = name.partition("@")
    measurement, _, own = column.rpartition(".")
    found = _declared(measurement, own)
    if found is None:
        return Response(name, label=plain(own) + (f" at {at}" if at else ""))
    if not at or not found.index:
        return found
    return replace(found, label=f"{found.said} at {found.index} {at}", index="")


def _declared(measurement: str, name: str) -> Response | None:
    if not measurement:
        for size in SIZES:
            if size.name == name:
                return size
    known = registry.names("measurement")
    for one in [measurement] if measurement else known:
        for each in registry.get("measurement", one).responses if one in known else ():
            if each.name == name:
                return each
    return None


# --- factors and their levels


@dataclass(frozen=True)
class Factor:
    """Something that a study varies.

    name: as in a study file and in the tidy table. label: as in a sentence or on an axis. theme: what varying it is
    about ("memory", "architecture", ...); empty where it is about nothing that has a name. order: its place among
    factors, the first one first. symbol: stands before a level, as K in `K = 20`. unit: of levels that are numbers.
    """

    name: str
    label: str
    theme: str = ""
    order: int = 100
    symbol: str = ""
    unit: str = ""


def declare(factor: Factor) -> None:
    """Make the words of a factor known, as a plugin or a study's own file does for its own.

    It is a registered part like any other, forgotten as they are. Raises UserError when the factor is already
    declared otherwise.
    """
    if _factors().get(factor.name, factor) != factor:
        raise UserError(
            f"the factor '{factor.name}' is already declared otherwise; choose another name."
        )
    registry.register("factor", factor.name)(factor)


def _factors() -> dict[str, Factor]:
    return {part.name: part.value for part in registry.parts("factor")}


def factor(name: str) -> Factor:
    """The words of a factor; one that nobody declared is called by the last part of its dotted path.

    `measure.plan.beam` is "beam", of no theme.
    """
    return _factors().get(name) or Factor(name, plain(name.rpartition(".")[2]))


def themes(names: Iterable[str]) -> set[str]:
    """The themes of these factors; "other" for those without one."""
    return {factor(name).theme or "other" for name in names}


def theme_place(theme: str) -> int:
    """Where a theme stands: by the first of its factors."""
    return min((each.order for each in _factors().values() if each.theme == theme), default=LAST)


def level(name: str, value: Any) -> str:
    """A level of the factor `name` as shown: `GRU`, `LQ, mixed by episode`, `20`.

    A registered part says how it is called, a sum of them is `return-to-go + time`; anything else keeps its own name.
    """
    if name == "data":
        return data(str(value))
    if parts := _parts(name, value):
        return " + ".join(part.label or part.name for part in parts)
    return str(value).replace("+", " + ") if isinstance(value, str) else _plain_level(value)


def levels(name: str, values: Iterable[Any]) -> list[Any]:
    """Levels in the order in which people read them: as their parts are registered, numbers by size, the rest by
    name."""
    return sorted(set(values), key=lambda value: place(name, value))


def place(name: str, value: Any) -> tuple[int, float, str]:
    """What to sort the levels of a factor by."""
    if isinstance(value, str):  # a sum stands behind the last of its parts
        parts = _parts(name, value)
        return (
            max((part.order or LAST for part in parts), default=LAST),
            max(1, len(parts)),
            value,
        )
    return (0, float(value), "")


def setting(name: str, value: Any) -> str:
    """A factor at one level, in words: `GRU`, `K = 20`, `categorical head`, `beam 8`."""
    known = factor(name)
    shown = level(name, value)
    if known.symbol:
        return f"{known.symbol} = {shown}"
    parts = _parts(name, value)
    if name == "data" or (len(parts) == 1 and parts[0].label):
        return shown
    if isinstance(value, str) and not name.startswith(
        ("model.", "train.", "measure.", "settings.")
    ):
        return f"{shown} {known.label}"
    return f"{known.label} {shown}"


def held(at: dict[str, Any]) -> str:
    """Several factors at their levels, for the small line under a panel: `time, mse head`."""
    return ", ".join(setting(name, value) for name, value in at.items() if value == value)


def _parts(name: str, value: Any) -> tuple[registry.Part, ...]:
    """The registered part that a level names, or those it is a sum of; none where one isn't known."""
    if not isinstance(value, str):
        return ()
    if name in registry.SUMS:
        with contextlib.suppress(UserError):
            return registry.terms(name, value)
    return (registry.part(name, value),) if value in registry.names(name) else ()


def _plain_level(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def data(name: str) -> str:
    """A data set as shown: `lq-mix/episode` -> `LQ, mixed by episode`.

    The family says how it and its members are called; versions are left out, and a twin (`@mask-velocity`) comes
    last.
    """
    whole, _, twin = name.partition("@")
    family, _, member = whole.partition("/")
    first, between = family, " "
    words: Mapping[str, str] = {}
    if family in registry.names("data"):
        part = registry.part("data", family)
        first, words = part.label or family, getattr(part.value, "words", {})
        between = ", "
    rest = re.sub(r"-v\d+$", "", member)
    said = " ".join(_told(piece, words) for piece in rest.split("/"))
    shown = between.join(piece for piece in (first, said) if piece)
    return f"{shown}, {re.sub('^mask-', 'no ', twin)}" if twin else shown


def _told(piece: str, words: Mapping[str, str]) -> str:
    """A piece of a member's name by the family's words: pattern -> what stands for it."""
    for pattern, said in words.items():
        found = re.fullmatch(pattern, piece)
        if found:
            return found.expand(said)
    return piece


def claim(label: str) -> str:
    """The label of a claim as shown: `mixer gru` -> `GRU`, `attention - gru` -> `attention − GRU`."""
    out = []
    for part in label.split(", "):
        name, _, value = part.partition(" ")
        if name in _factors() and value and " - " not in value:
            out.append(setting(name, value))
        else:
            out.append(" ".join("−" if word == "-" else _anybody(word) for word in part.split(" ")))
    return ": ".join(out)


def _anybody(word: str) -> str:
    """A level whose factor isn't known: called like the first part of that name that says how."""
    for kind in _factors():
        parts = _parts(kind, word)
        if parts and all(part.label for part in parts):
            return level(kind, word)
    return word


for _each in (
    Factor("data", "data set", "data", 1),
    Factor("context", "context", "memory", 10, symbol="K", unit="timesteps"),
    Factor("history", "history", "memory", 11),
    Factor("mixer", "mixer", "architecture", 20),
    Factor("layout", "layout", "architecture", 21),
    Factor("input", "input", "architecture", 22),
    Factor("condition", "condition", "conditioning", 30),
    Factor("algorithm", "algorithm", "objective", 40),
    Factor("head", "head", "objective", 41),
    Factor("preset", "preset", "", 50),
):
    registry.register("factor", _each.name, order=_each.order)(_each)
