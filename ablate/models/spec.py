"""What determines a model's shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ablate.config import timesteps
from ablate.errors import UserError
from ablate.models.layouts import Layout

BINS = 100  # of an input column: the Trajectory Transformer's
Column = tuple[str, int, bool, bool]  # see `Layout.columns`


@dataclass(frozen=True)
class Rows:
    """What the rows of a joint model hold, in the words of `Layout`."""

    features: int
    action_dim: int
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class ModelSpec:
    """Everything that determines a model's shape.

    Attributes:
        mixer, head: registered names.
        context: K, visible timesteps.
        features: F, numbers that describe a timestep.
        action_dim: M.
        width: D; 0 where it is still to be solved for (see `ablate.models.match`).
        layers: depth of the mixer.
        dropout: probability.
        columns: what the F numbers are, `Layout.columns`; empty for F nameless ones.
        layout: how a timestep becomes tokens: a registered name, or `chunk-G` for G in 1, 2, ...
        input: "continuous", or "discretised": each number enters as the embedding of its bin.
        heads, activation, positions: of attention; heads, "gelu" or "relu", "learned", "rotary" or
            "none".
        window: timesteps that sliding-window attention sees; 0 for all.
        timesteps: rows of a learned table of absolute timesteps that is added to every token; 0 for
            no table. The last column then is the timestep.
        timestep_std: standard deviation of the table's initial entries; None: 1, as PyTorch's.
        token_norm: a LayerNorm over the embedded tokens, before the mixer.
        embedding_dropout: probability of dropping an entry of an embedded token; None: as the mixer
            does by itself.
        auxiliary: the Decision Transformer's state and return heads and GPT-2's word embedding of
            one word: counted as released, never used.
        initialisation: of the mixer: "torch", each layer's own, or "gpt2": weights N(0, 0.02^2),
            biases zero; "mingpt": the same, and learned positions zero.
        predicts: "action", a policy; or "all" of a row (s_1..s_N, a_1..a_M, r, V), a joint model.
        bins: of each number of discretised input, and of a joint model's heads that have bins.
        value_mask: whether a joint model predicts the value V and never reads it.
        prefix: (name, numbers) of what a joint model is told once, before the sequence; a token each.
        only: slots that a joint model predicts, heads of which it has; empty for all.
        stopped: slots of a joint model that are read from its features without training them.
    """

    mixer: str
    head: str
    context: int
    features: int
    action_dim: int
    width: int = 0
    layers: int = 2
    dropout: float = 0.0
    columns: tuple[Column, ...] = ()
    layout: str = "step"
    input: str = "continuous"
    heads: int = 1
    activation: str = "gelu"
    positions: str = "learned"
    window: int = 0
    timesteps: int = 0
    timestep_std: float | None = None
    token_norm: bool = False
    embedding_dropout: float | None = None
    auxiliary: bool = False
    initialisation: str = "torch"
    predicts: str = "action"
    bins: int = BINS
    value_mask: bool = True
    prefix: tuple[tuple[str, int], ...] = ()
    only: tuple[int, ...] = ()
    stopped: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any], layout: Layout | Rows) -> ModelSpec:
        """The spec of a cell's configuration (see `ablate.config`) on rows laid out by `layout`.

        The width is the given one, or 0 where it is to be solved for.
        """
        model = config["model"]
        known = {field.name for field in dataclasses.fields(cls)}
        options = {name: value for name, value in model.items() if name in known}
        return cls(
            mixer=config["mixer"],
            head=config["head"],
            context=timesteps(config),
            features=layout.features,
            action_dim=layout.action_dim,
            columns=tuple(layout.columns),
            layout=config.get("layout", "step"),
            input=config.get("input", "continuous"),
            **{**options, "width": options.get("width") or 0},
        )

    def at(self, width: int) -> ModelSpec:
        """The same shape at another width."""
        return dataclasses.replace(self, width=width)

    @classmethod
    def joint(
        cls, config: Mapping[str, Any], observation_dim: int, action_dim: int, **options: Any
    ) -> ModelSpec:
        """The spec of a joint model of rows (s, a, r, V), D = N + M + 2 numbers; `options` as the fields are named.

        Raises UserError for parts that only policies have.
        """
        for name in ("timesteps", "auxiliary"):
            if config["model"].get(name):
                raise UserError(
                    f"model.{name}: found {config['model'][name]}; a joint model has none."
                )
        columns = (
            *(("observation", observation_dim, True, True), ("action", action_dim, False, True)),
            *(("reward", 1, False, True), ("value", 1, False, True)),
        )
        rows = Rows(observation_dim + action_dim + 2, action_dim, columns)
        return dataclasses.replace(cls.of(config, rows), predicts="all", **options)

    def build(self, *adapted: Any) -> nn.Module:
        """A model of this shape; `ablate.models.assembly.build` says from which initial weights. adapted: what it
        adapts to, see `ablate.models.assembly.Model`; nothing where it is only counted."""
        from ablate.models.assembly import Model  # late: it is made of specs

        return Model(self, *adapted)

    @property
    def nets(self) -> int:
        """How many nets carry information across time."""
        return 1

    @property
    def slots(self) -> int:
        """D, numbers in a row of a joint model."""
        return self.features

    @property
    def observation_dim(self) -> int:
        """N, of a joint model."""
        return self.columns[0][1]

    @property
    def named_columns(self) -> tuple[Column, ...]:
        """`columns`, or the F nameless numbers as one."""
        return self.columns or (("row", self.features, True, True),)
