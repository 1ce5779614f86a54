"""What a measurement is: a class with options and responses, called with models of one cell.

A user's own is one file::

    @register("measurement", "drift")
    class Drift(Measurement):
        responses = (Response("bias"), Response("error", index="horizon"))

        class Options(Section):
            horizon: int = 5

        def __call__(self, trained, options):
            return {"bias": ..., "error": ..., "horizon": np.arange(options.horizon)}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ablate import registry
from ablate.data.catalogue import DataSpec
from ablate.errors import UserError
from ablate.models.assembly import Model
from ablate.registry import Section
from ablate.systems import System
from ablate.words import Response

Numbers = np.ndarray


@dataclass(frozen=True)
class Trained:
    """Models of one cell after the same number of updates, one for each seed.

    streams: the name from which all random streams of the seeds are derived (the study's, unless a
        replication gives another). budget: updates.
    """

    system: System
    models: Sequence[Model]
    streams: str
    seeds: Sequence[int]
    budget: int


class Measurement(ABC):
    """Measures the S models of a `Trained` under one setting of its options.

    Class attributes:
        Options: the pydantic model of its options; each may be a factor, `measure.NAME.OPTION`.
        responses: what it gives.
        acts: whether the models act, for which the data set has to have an environment.
    """

    class Options(Section):
        """A measurement without options."""

    responses: ClassVar[tuple[Response, ...]] = ()
    acts: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        """One array a response: (S,), or (S, I) where it runs over an index, whose values (I,) stand
        under the index's name."""

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        """Why models of this configuration can't be measured so; empty where they can."""
        return ""

    @classmethod
    def seconds(
        cls, config: Mapping[str, Any], options: Mapping[str, Any], tokens: Callable[[], int]
    ) -> float | None:
        """Estimated seconds of measuring one model of this configuration on one worker; None: by the episodes and the
        search that the options ask for. tokens: how many a timestep takes."""
        return None

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        """Names of the options that change anything for models of this configuration."""
        return frozenset(cls.Options.model_fields)


def needs_joint(config: Mapping[str, Any], name: str, does: str, asks: bool = True) -> str:
    """Why the measurement `name`, which does something with a joint model's predictions, can't be had of models of this
    configuration; empty where it can. asks: whether it can ask for what the condition tells."""
    if registry.get("algorithm", config["algorithm"]).system != "joint":
        return (
            f"the measurement '{name}' {does}, which the algorithm '{config['algorithm']}' doesn't predict;"
            " allowed: joint"
        )
    if not asks and config["condition"] != "none":
        return (
            f"the measurement '{name}' doesn't ask for anything; found the condition '{config['condition']}',"
            " allowed: none"
        )
    return ""


def possible(measure: Mapping[str, Any], spec: DataSpec) -> tuple[dict[str, Any], str]:
    """Of measurements by name, those that can be had on a data set, and in a sentence which can't and why.

    The sentence is empty where nothing is left out.
    """
    acting = [name for name in measure if registry.get("measurement", name).acts]
    if not acting or not (why := spec.lacks_simulator):
        return dict(measure), ""
    made = {name: options for name, options in measure.items() if name not in acting}
    return made, f"{' and '.join(acting)} can't be measured on {spec.name}: {why}"


@dataclass(frozen=True)
class Measured:
    """What a measurement gave for one model: numbers, and values over an index.

    series: response -> (index values (I,), values (I,)).
    """

    values: dict[str, float]
    series: dict[str, tuple[Numbers, Numbers]]


def split(name: str, made: Measurement, found: Mapping[str, Numbers], size: int) -> list[Measured]:
    """The arrays of a measurement, model by model, checked against what it declares.

    A response over an index is also summed up by its mean, under its own name. Raises UserError for a response
    that is missing or has another shape.
    """
    rows: list[Measured] = [Measured({}, {}) for _ in range(size)]
    for response in made.responses:
        where = f"measurement '{name}', response '{response.name}'"
        if response.name not in found:
            raise UserError(f"{where}: it was not given; found: {', '.join(found) or 'nothing'}.")
        values = np.asarray(found[response.name], dtype=np.float64)
        if not response.index:
            if values.shape != (size,):
                raise UserError(f"{where}: found shape {values.shape}; allowed: ({size},).")
            for row, value in zip(rows, values, strict=True):
                row.values[response.name] = float(value)
            continue
        if response.index not in found:
            raise UserError(f"{where}: its index '{response.index}' was not given.")
        index = np.asarray(found[response.index])
        if values.shape != (size, len(index)):
            raise UserError(
                f"{where}: found shape {values.shape}; allowed: ({size}, {len(index)}), a value for each "
                f"'{response.index}'."
            )
        for row, each in zip(rows, values, strict=True):
            row.series[response.name] = (index, each)
    return rows
