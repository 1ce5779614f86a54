"""Numbers in strict JSON, which knows neither NaN nor infinity: null and the words inf and -inf."""

from __future__ import annotations

import math
from collections.abc import Mapping

Plain = float | str | None


def encode(value: object) -> Plain:
    """A finite Python float as it is; NaN as None; infinities as 'inf' and '-inf'.

    Takes whatever `float()` takes (NumPy scalars, one-element tensors); raises TypeError or
    ValueError for anything else.
    """
    number = float(value)  # type: ignore[arg-type]
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else repr(number)


def decode(value: object) -> float:
    """The inverse of `encode`; raises ValueError for what `encode` doesn't write."""
    if value is None:
        return math.nan
    if value in ("inf", "-inf"):
        return float(str(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def encode_all(values: Mapping[str, object]) -> dict[str, Plain]:
    """`encode` over a flat mapping; raises TypeError naming the key whose value is not a number."""
    plain: dict[str, Plain] = {}
    for name, value in values.items():
        try:
            plain[str(name)] = encode(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"metric '{name}' is not a number: {value!r}") from error
    return plain
