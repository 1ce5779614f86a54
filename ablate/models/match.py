"""Parameter matching: the width at which a model has as many parameters as it should."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ablate.config import WIDEST
from ablate.errors import UserError
from ablate.models.assembly import count_parameters
from ablate.models.spec import ModelSpec
from ablate.registry import get

LARGEST = 10**10  # parameters of a model


@dataclass(frozen=True)
class Matched:
    """The solution: width, parameters there, and (parameters - wanted) / wanted; 0 for a given width."""

    width: int
    parameters: int
    mismatch: float


def parameters_at(spec: ModelSpec, width: int) -> int:
    """Number of parameters of `spec` at `width`, counted without allocating any."""
    with torch.device("meta"):
        return count_parameters(spec.at(width).build())


def width_multiple(spec: ModelSpec) -> int:
    """Widths are multiples of what the mixer asks for and of the number of heads."""
    return math.lcm(get("mixer", spec.mixer, "mixer").width_multiple, spec.heads)


def match(spec: ModelSpec, section: Mapping[str, Any]) -> Matched:
    """The width that the section `model` of a configuration gives, or the one with the parameters that it asks for."""
    if spec.width:
        return given_width(spec)
    return solve_width(spec, section["parameters"], section["tolerance"])


def given_width(spec: ModelSpec) -> Matched:
    """The spec's own width, not solved for. Raises UserError where the mixer cannot have it, or the model would have
    more parameters than `LARGEST`."""
    multiple = width_multiple(spec)
    if spec.width % multiple:
        raise UserError(
            f"model.width: found {spec.width}; with mixer '{spec.mixer}' and {spec.heads} heads "
            f"multiples of {multiple} are allowed."
        )
    count = parameters_at(spec, spec.width)
    if count > LARGEST:
        raise UserError(
            f"model.width: with width {spec.width} and the rest of its settings the model has {count:,} parameters; "
            f"allowed: {LARGEST:,} at most."
        )
    return Matched(spec.width, count, 0.0)


@lru_cache(maxsize=4096)
def solve_width(spec: ModelSpec, parameters: int, tolerance: float = 0.05) -> Matched:
    """The width with the nearest number of parameters; the spec's own width is ignored.

    Assumes that parameters grow with the width. Raises UserError when the nearest is off by more
    than `tolerance` (a fraction), naming what can be had.
    """
    multiple = width_multiple(spec)

    def count(units: int) -> int:
        return parameters_at(spec, units * multiple)

    # Nearly every model is a quadratic function of its width, which three counts tell; else all are counted.
    first, second, third = count(1), count(2), count(3)
    bend = third - 2 * second + first

    def told(units: int) -> int:
        return first + (units - 1) * (second - first) + (units - 1) * (units - 2) // 2 * bend

    low, high = _around(told, parameters, WIDEST // multiple)
    found = {units * multiple: count(units) for units in (low, high)}
    if any(number != told(width // multiple) for width, number in found.items()):
        low, high = _around(count, parameters, WIDEST // multiple)
        found = {units * multiple: count(units) for units in (low, high)}
    width = min(found, key=lambda w: abs(found[w] - parameters))
    mismatch = (found[width] - parameters) / parameters
    if abs(mismatch) > tolerance:
        near = " or ".join(f"{count} (width {w})" for w, count in found.items())
        head = f"head '{spec.head}'"
        raise UserError(
            f"model.parameters: mixer '{spec.mixer}' with context {spec.context} and {head} "
            f"cannot have {parameters} parameters to within {tolerance:.1%}; nearest: {near}."
        )
    return Matched(width, found[width], mismatch)


def _around(count: Callable[[int], int], wanted: int, most: int) -> tuple[int, int]:
    """Two neighbours, 1 or more, of which the first counts less than what is wanted (or is 1) and the second as much,
    or more than `most` of them stand for."""
    low, high = 1, 2
    while count(high) < wanted and high < most:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle) < wanted:
            low = middle
        else:
            high = middle
    return low, high
