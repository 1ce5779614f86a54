"""What determines a policy's shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.config import timesteps
from ablate.models.layouts import Layout

Column = tuple[str, int, bool, bool]  # see `Layout.columns`


@dataclass(frozen=True)
class ModelSpec:
    """Everything that determines a policy's shape.

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
            biases zero.
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

    @classmethod
    def of(cls, config: Mapping[str, Any], layout: Layout) -> ModelSpec:
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

    @property
    def named_columns(self) -> tuple[Column, ...]:
        """`columns`, or the F nameless numbers as one."""
        return self.columns or (("row", self.features, True, True),)
