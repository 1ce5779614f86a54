"""What an algorithm makes of a configuration: a system, found by the name that the algorithm gives.

A further kind of system is one class with `prepare`, registered with ``@register("system", NAME)``; an algorithm
says ``system = NAME`` to be trained and measured by it. One whose models say what happens next also has
``dynamics(model, sampling, propagation)``, a `plan.futures.Dynamics`; one with models of its own has ``audit(config)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ablate.config import Config, complete
from ablate.data import catalogue
from ablate.data.catalogue import DataSet, DataSpec
from ablate.data.trajectories import Trajectories
from ablate.learn.objective import TrainingData
from ablate.models.agent import Actable
from ablate.models.assembly import Model
from ablate.models.match import Matched
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack
from ablate.registry import get

# Between these, in units of `train.return_scale`, the largest return-to-go of a data set is a number that a model reads
# well: those of the published settings lie between 2 and 14.
FAINT, LOUD = 0.5, 50.0


class Program(Protocol):
    """Models in the shape in which they train."""

    @property
    def stack(self) -> Stack:
        """The S models as one program."""


P = TypeVar("P", bound=Program)
H = TypeVar("H")


class System(Protocol[P, H]):
    """Everything that the seeds of a cell share: data, how they are read, a model of matched size, how it acts."""

    @classmethod
    def prepare(cls, config: Config, data: DataSet, device: str) -> System[P, H]:
        """The system of a complete configuration. Raises UserError for a model that cannot be made."""

    @classmethod
    def shape(
        cls, config: Config, data: DataSpec, observation_dim: int, action_dim: int
    ) -> ModelSpec:
        """The model of a complete configuration, known without its data; width 0 where it is to be solved for."""

    @property
    def config(self) -> Config:
        """The configuration, complete."""

    @property
    def data(self) -> DataSet:
        """Training and held-out episodes, and what is known of them."""

    @property
    def matched(self) -> Matched:
        """The model's width and its number of parameters."""

    @property
    def context(self) -> int:
        """K, in timesteps."""

    @property
    def device(self) -> torch.device:
        """Where it trains and acts."""

    @property
    def stacks(self) -> bool:
        """Whether several seeds can train as one program."""

    def model(self, study: str, seed: int) -> Model:
        """A freshly initialised model; its parameters come from the seed's `init` stream alone."""

    def program(self, models: Sequence[Model]) -> P:
        """The models in the shape in which they train."""

    def actor(self, models: Sequence[Model], options: Mapping[str, Any]) -> Actable:
        """The models as they act.

        options: `context` (K of acting, null: that of training) and `state` of a policy; `plan`, the options of
        a search, of a joint model.
        """

    def rows(self, trajectories: Trajectories) -> tuple[Tensor, Tensor]:
        """Trajectories as the model reads them: rows (T, ...) and timesteps (T,)."""

    def source(self, program: P) -> TrainingData:
        """What the trainer reads."""

    def held(self, study: str, models: Sequence[Model], timesteps: int | None = None) -> H:
        """The held-out targets that every cell of the study is measured on: of so many timesteps, or of all that there
        are; of a number of the system's own where none is given."""

    def predict(self, program: P, held: H, limit: int | None = None) -> dict[str, Tensor]:
        """Prediction on held-out targets, (S,) each; on about `limit` of them."""

    def sizes(self) -> dict[str, float]:
        """What the matching left: width, parameters, their mismatch in percent, operations and targets."""


def remarks(config: Mapping[str, Any], data: DataSet) -> list[str]:
    """What of a complete configuration hardly fits its data though it can be trained, a line each."""
    scale = config["train"]["return_scale"]
    read = get("algorithm", config["algorithm"]).uses(config)
    if scale is None or "train.return_scale" not in read:
        return []
    largest = float(np.abs(data.train.returns_to_go).max())
    if FAINT * scale <= largest <= LOUD * scale:
        return []
    return [
        f"{config['data']}: train.return_scale is {scale:g}, and returns reach {largest:.3g}, so that the model is"
        f" shown numbers up to {largest / scale:.2g} and targets mean little to it; --set train.return_scale=null"
        " scales by the spread of these returns."
    ]


def prepare(config: Config, cache: Path, device: str = "cpu") -> System[Any, Any]:
    """Load the data, lay out the tokens and solve the model's width for the declared parameter count.

    Raises UserError for a data set that cannot be had or a width that cannot be matched.
    """
    config = complete(config)
    data = catalogue.load(config["data"], cache, config["reading"])
    if config["train"]["split"] == "tuning":
        data = data.for_tuning
    algorithm = get("algorithm", config["algorithm"])
    made: System[Any, Any] = get("system", algorithm.system).prepare(config, data, device)
    return made
