"""Assembly: rows of timesteps -> tokens -> mixer -> norm -> head."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.models.discretise import Discretiser
from ablate.models.heads import Head
from ablate.models.mixer import Mixer, State
from ablate.models.spec import ModelSpec
from ablate.models.tokens import Tokenizer, tokenizer
from ablate.registry import get

METHODS = ("last", "everywhere", "step")
HEAD_METHODS = ("loss", "log_prob", "mean", "mode", "sample")


# Options that only some mixers know, and the value at which they aren't passed on.
OPTIONS = {
    "heads": 1,
    "activation": "gelu",
    "positions": "learned",
    "window": 0,
    "embedding_dropout": None,
}


class Policy(nn.Module):
    """A sequence policy. `forward` is the one entry, so that `torch.func` reaches every path.

    actions: training actions (T, M), for heads that adapt to them. discretiser: bins of the input, where
    it is discretised. Raises UserError for an unknown part, or an option that the mixer does not know.
    """

    def __init__(
        self,
        spec: ModelSpec,
        actions: np.ndarray | None = None,
        discretiser: Discretiser | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        layout = tokenizer(spec.layout)
        mixer = get("mixer", spec.mixer)
        options = mixer_options(mixer, spec)
        # a mixer that adds positions drops the sum; any other is given tokens already dropped
        dropout = 0.0 if "embedding_dropout" in options else spec.embedding_dropout or 0.0
        self.embed: Tokenizer = layout(spec, discretiser, dropout)
        if "window" in options:
            options["window"] *= self.embed.per_step
        if "kinds" in inspect.signature(mixer).parameters:
            options |= {"kinds": self.embed.per_step, "first": self.embed.hidden}
        context = self.embed.length(spec.context)  # in tokens
        self.mixer: Mixer = mixer(spec.width, context, spec.layers, spec.dropout, **options)
        if spec.initialisation == "gpt2":
            self.mixer.apply(initialise_as_gpt2)
        self.norm = nn.LayerNorm(spec.width)
        self.head: Head = get("head", spec.head)(spec.width, spec.action_dim, actions)
        self.auxiliary = Auxiliary(spec) if spec.auxiliary else None

    def forward(self, *args: Any, method: str = "last") -> Any:
        """Run the path `method`, one of `METHODS`, with that method's arguments.

        One of `HEAD_METHODS` runs that method of the head.
        """
        if method in HEAD_METHODS:
            return getattr(self.head, method)(*args)
        if method not in METHODS:
            raise ValueError(f"Policy: unknown method '{method}'; allowed: {', '.join(METHODS)}.")
        return getattr(self, method)(*args)

    def last(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Head parameters (B, P) at the targets of windows (B, L, F) with lengths (B,)."""
        mixed = self.mixer.last(self.embed(rows), self.embed.length(lengths))
        return self.head(self.norm(mixed))

    def everywhere(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Head parameters (B, L, P) at every position of windows (B, L, F) with mask (B, L)."""
        mixed = self.mixer(self.embed(rows), self.embed.mask(mask))
        return self.head(self.norm(self.embed.read(mixed)))

    def start(self, batch: int, like: Tensor) -> State:
        """The state of `batch` empty histories.

        Where the first timestep has fewer tokens than the others, the state leads with a tensor (B, 0),
        which is (B, 1) from then on: its shape says which it is, also under `torch.func.vmap`.
        """
        state = self.mixer.start(batch, like)
        return (like.new_zeros(batch, 0), *state) if self.embed.hidden else state

    def step(self, row: Tensor, state: State) -> tuple[Tensor, State]:
        """One timestep: row (B, F) and state to head parameters (B, P) and the next state."""
        tokens = self.embed.group(row).unbind(1)  # n of (B, D)
        before: State = ()
        if self.embed.hidden:
            if state[0].shape[-1] == 0:
                tokens = tokens[self.embed.hidden :]
            before, state = (row.new_zeros(len(row), 1),), state[1:]
        for token in tokens:
            mixed, state = self.mixer.step(token, state)
        return self.head(self.norm(mixed)), (*before, *state)


class Auxiliary(nn.Module):
    """What the released Decision Transformer holds and its loss never reaches; counted, not used."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        columns = {name: size for name, size, _, _ in spec.named_columns}
        self.state = nn.Linear(spec.width, columns.get("observation", spec.features))
        self.return_to_go = nn.Linear(spec.width, 1)
        self.word = nn.Embedding(1, spec.width)  # GPT-2's vocabulary of one word


def mixer_options(mixer: Any, spec: ModelSpec) -> dict[str, Any]:
    """The options of `spec` to build the mixer with.

    Raises UserError for one that is not at its default and that the mixer does not know.
    """
    known = inspect.signature(mixer).parameters
    options = {}
    for name, default in OPTIONS.items():
        value = getattr(spec, name)
        if value == default:
            continue
        if name in known:
            options[name] = value
        elif name != "embedding_dropout":  # dropped by the tokenizer then
            raise UserError(
                f"model.{name}: found '{value}', but the mixer '{spec.mixer}' has no such option; "
                f"allowed: {default}."
            )
    return options


def initialise_as_gpt2(module: nn.Module) -> None:
    """GPT-2's initial weights (Radford et al. 2019): N(0, 0.02^2), biases zero."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(
    spec: ModelSpec,
    generator: torch.Generator,
    actions: np.ndarray | None = None,
    discretiser: Discretiser | None = None,
) -> Policy:
    """A policy on the CPU whose initial weights come from `generator` alone.

    PyTorch's global generator, which modules initialise themselves from, is left as it was.
    """
    seed = int(torch.randint(0, 1 << 62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Policy(spec, actions, copy.deepcopy(discretiser))


def count_parameters(policy: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


def flops_per_target(spec: ModelSpec) -> int:
    """Floating-point operations of the matrix products for one target with a full window."""
    with torch.device("meta"):
        policy = Policy(spec)
    return spec.context * policy.embed.flops() + policy.head.flops() + policy.mixer.flops()
