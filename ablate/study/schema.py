"""What a study file may say, and what is left of it when its levels have been looked up."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ablate.study.contrast import Level
from ablate.study.hypotheses import Hypothesis

FACTORS = ("mixer", "context", "condition", "history", "head")
CONDITIONS = ("none", "time", "return-to-go", "return-to-go+time", "policy-id")
HISTORIES = ("states+actions", "states", "actions", "states+actions+rewards")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """Size of every model; the width is solved for so that the parameters match."""

    parameters: int = Field(default=16_000, gt=0)
    tolerance: float = Field(
        default=0.05, gt=0, lt=1
    )  # largest relative mismatch of the parameter count
    layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class TrainSection(_Section):
    """Training, equal in every cell."""

    updates: int = Field(default=800, gt=0)
    targets_per_update: int = Field(default=128, gt=0)  # supervised actions, whatever the context
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = Field(default=50, ge=0)  # updates
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float = Field(default=1.0, gt=0)  # largest gradient norm
    loss: Literal["last", "all"] = (
        "last"  # the window's last action, or the action at every position
    )
    precision: Literal["float32", "bfloat16"] = "float32"


class EvaluateSection(_Section):
    """Evaluation, equal in every cell."""

    episodes: int = Field(default=50, gt=0)
    # return to ask for: a percentile of the data's returns ("p90"), or a number
    target: str | float = "p90"
    checkpoint: Literal["last"] = "last"
    actions: Literal["sample", "mode"] = "sample"
    points: int = Field(default=8, gt=0)  # of the learning curve

    @field_validator("target")
    @classmethod
    def _known_target(cls, target: str | float) -> str | float:
        if isinstance(target, str) and not re.fullmatch(r"p(100|\d{1,2})", target):
            raise ValueError("expected a percentile of the data's returns such as p90, or a number")
        return target


SECTIONS: dict[str, type[_Section]] = {
    "model": ModelSection,
    "train": TrainSection,
    "evaluate": EvaluateSection,
}


class Design(_Section):
    """A full crossing of levels on data sets. A factor it doesn't name stays at its first level."""

    data: tuple[str, ...]
    levels: dict[str, tuple[Level, ...]]
    why: str = ""


class Study(_Section):
    """A study file with one profile laid over it. Every level is as it was declared in
    `factors`."""

    study: str
    profile: str
    profiles: tuple[str, ...]
    question: str
    factors: dict[str, tuple[Level, ...]]
    data: tuple[str, ...]
    designs: dict[str, Design]
    model: ModelSection
    train: TrainSection
    evaluate: EvaluateSection
    seeds: int
    margin: float
    alpha: float
    hypotheses: tuple[Hypothesis, ...]
    notes: tuple[str, ...] = ()

    @property
    def levels(self) -> dict[str, tuple[Level, ...]]:
        """Declared levels of every factor, and the data sets under `data`."""
        return {"data": self.data, **self.factors}


class File(_Section):
    """The file's shape, before levels are looked up."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    question: str = Field(min_length=1)
    factors: dict[str, list[Level]] = Field(min_length=1)
    data: list[str] = Field(min_length=1)
    designs: dict[str, dict[str, Any]] = Field(min_length=1)
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    seeds: int = Field(default=10, ge=2)
    margin: float = Field(default=3.0, gt=0)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    hypotheses: list[Hypothesis] = []
    notes: list[
        str
    ] = []  # sentences for the paper: what a reader has to know of how the study came about
