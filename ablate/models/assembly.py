"""Assembly: rows of timesteps -> tokens -> mixer -> norm -> head. B windows of L timesteps, W the width."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.data.normalise import moments
from ablate.errors import UserError
from ablate.models.discretise import Discretiser
from ablate.models.linear import Linear
from ablate.models.mixer import Mixer, State
from ablate.models.slots import Slots
from ablate.models.spec import ModelSpec
from ablate.models.tokens import Tokenizer, tokenizer, tokens_of, unfitted
from ablate.registry import get

METHODS = ("last", "everywhere", "step", "newest", "group", "losses", "log_density")
HEAD_METHODS = ("loss", "log_prob", "mean", "mode", "sample")


# Options that only some mixers know, and the value at which they aren't passed on.
OPTIONS = {
    "heads": 1,
    "activation": "gelu",
    "positions": "learned",
    "window": 0,
    "embedding_dropout": None,
}


class Model(nn.Module):
    """Tokenizer -> mixer -> norm -> head. `forward` is the one entry, so that `torch.func` reaches every path.

    A policy reads rows that end with the observation, and its head predicts the action from the feature of a
    timestep's last token. A joint model reads whole trajectories, rows (s, a, r, V) told one token after another,
    and its heads (`Slots`) predict every token's numbers from the feature of the token before.

    data: training actions (T, M) of a policy, or rows (T, D) of a joint model, which heads adapt to. discretiser:
    bins of the input, and of a joint model's heads. told: numbers (T, P) that a joint model's sequences are told
    first, for their units. Raises UserError for an unknown part, or an option that the
    mixer does not know.
    """

    told_mean: Tensor  # (P,)
    told_std: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        data: np.ndarray | None = None,
        discretiser: Discretiser | None = None,
        told: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        joint = spec.predicts == "all"
        if joint and discretiser is None:
            discretiser = unfitted(spec.slots, spec.bins)
        mixer = get("mixer", spec.mixer)
        known = inspect.signature(mixer).parameters
        options = mixer_options(mixer, spec)
        # a mixer that adds positions drops the sum; any other is given tokens already dropped
        dropout = 0.0 if "embedding_dropout" in options else spec.embedding_dropout or 0.0
        self.embed: Tokenizer = tokenizer(spec.layout)(spec, discretiser, dropout)
        self.ahead = len(spec.prefix)  # tokens before the sequence
        per_step = self.embed.per_step
        if "window" in options:
            options["window"] *= per_step
        if "kinds" in known:
            options |= {"kinds": per_step, "first": (self.embed.hidden - self.ahead) % per_step}
        # values are predicted and not read: nobody attends to their tokens, or they are told without the value
        self.blank = joint and spec.value_mask and (per_step == 1 or "unseen" not in known)
        if joint and spec.value_mask and not self.blank:
            options["unseen"] = (self.ahead + per_step - 1, per_step)
        if spec.initialisation == "mingpt" and "spread" in known:
            options["spread"] = 0.0
        self.lead = nn.ModuleDict({name: Linear(size, spec.width) for name, size in spec.prefix})
        if self.ahead:
            told = np.zeros((1, sum(size for _, size in spec.prefix))) if told is None else told
            for name, values in zip(("told_mean", "told_std"), moments(told), strict=True):
                self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()))
        context = (
            self.ahead + block(spec) if joint else self.embed.length(spec.context)
        )  # in tokens
        self.mixer: Mixer = mixer(spec.width, context, spec.layers, spec.dropout, **options)
        if spec.initialisation != "torch":
            self.mixer.apply(initialise_as_gpt2)
        self.norm = nn.LayerNorm(spec.width)
        self.head: Any  # a registered head, or those of all slots
        if joint:
            assert discretiser is not None
            self.head = Slots(spec, data, discretiser, owned=spec.input != "discretised")
        else:
            self.head = get("head", spec.head)(spec.width, spec.action_dim, data)
        self.auxiliary = Auxiliary(spec) if spec.auxiliary else None
        # Q(observations (E, r, N), actions (E, r, M)) -> (E, r) for a search, where one was trained beside it
        self.critic: nn.Module | None = None

    def forward(self, *args: Any, method: str = "last") -> Any:
        """Run the path `method`, one of `METHODS`, with that method's arguments.

        One of `HEAD_METHODS` runs that method of the head.
        """
        if method in HEAD_METHODS:
            return getattr(self.head, method)(*args)
        if method not in METHODS:
            raise ValueError(f"Model: unknown method '{method}'; allowed: {', '.join(METHODS)}.")
        return getattr(self, method)(*args)

    # a policy: the action from a timestep's last token

    def last(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Head parameters (B, P) at the targets of windows (B, L, F) with lengths (B,)."""
        mixed = self.mixer.last(self.embed(rows), self.embed.length(lengths))
        return self.head(self.norm(mixed))

    def group(self, rows: Tensor) -> Tensor:
        """All tokens (B, L n, W) of timesteps (B, L, F), those too that a window's first timestep hides."""
        return self.embed.group(rows).flatten(1, 2)

    def newest(self, tokens: Tensor) -> Tensor:
        """Head parameters (B, P) at the last of the timesteps (B, L n, W), tokens as `group` gives them."""
        return self.head(self.norm(self.mixer.newest(tokens[:, self.embed.hidden :])))

    def everywhere(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Head parameters (B, L, P) at every position of windows (B, L, F) with mask (B, L)."""
        mixed = self.mixer.every(self.embed(rows), self.embed.mask(mask), *self.embed.read)
        return self.head(self.norm(mixed))

    def start(self, batch: int, like: Tensor) -> State:
        """The state of `batch` empty histories.

        Where the first timestep has fewer tokens than the others, the state leads with a tensor (B, 0),
        which is (B, 1) from then on: its shape says which it is, also under `torch.func.vmap`.
        """
        state = self.mixer.start(batch, like)
        return (like.new_zeros(batch, 0), *state) if self.embed.hidden else state

    def step(self, row: Tensor, state: State) -> tuple[Tensor, State]:
        """One timestep: row (B, F) and state to head parameters (B, P) and the next state."""
        tokens = self.embed.group(row)  # (B, n, W)
        before: State = ()
        if self.embed.hidden:
            if state[0].shape[-1] == 0:
                tokens = tokens[:, self.embed.hidden :]
            before, state = (row.new_zeros(len(row), 1),), state[1:]
        mixed, state = self.mixer.steps(tokens, state)
        return self.head(self.norm(mixed)), (*before, *state)

    # a joint model: every token from the one before

    def encode(self, rows: Tensor) -> Tensor:
        """What is read of raw rows (..., D): bins, or standardised; not a number once the episode is over."""
        over = rows.isnan()
        if self.embed.discretiser is None:
            return ((rows - self.head.mean) / self.head.std).masked_fill(over, 0.0)
        return self.embed.discretiser.encode(rows).masked_fill(over, self.spec.bins)

    def tokens(self, entries: Tensor) -> Tensor:
        """Tokens (B, L n - 1, W) of encoded rows (B, L, D); the last one predicts nothing. With n = 1: (B, L, W)."""
        first, n = self.spec.observation_dim, self.embed.per_step
        length = entries.shape[1]
        observation = entries[..., :first]  # (B, L, N)
        others = self.hidden_value(entries[..., first:])  # (B, L, M + 2), which the next row tells
        if n == 1:
            others = F.pad(others[:, :-1], (0, 0, 1, 0))
        else:
            observation, others = F.pad(observation, (0, 0, 0, 1)), F.pad(others, (0, 0, 1, 0))
        tokens = self.embed(torch.cat([observation, others], -1))
        return tokens if n == 1 else tokens[:, : length * n - 1]

    def token(self, number: int, entries: Tensor) -> Tensor:
        """Token (B, W) `number` of the stream from encoded rows (B, D) that hold its slots."""
        entries = self.hidden_value(entries)
        at = (number + self.embed.hidden) % self.embed.per_step
        token = self.embed.token(entries, at)
        return token if self.embed.norm is None else self.embed.norm(token)

    def hidden_value(self, entries: Tensor) -> Tensor:
        """Entries (..., V) whose last is not told, where it is to be hidden and the mixer can't."""
        return F.pad(entries[..., :-1], (0, 1)) if self.blank else entries

    def prefix(self, numbers: Tensor) -> Tensor:
        """Tokens (B, n, W) of the raw numbers (B, P) that a sequence is told first."""
        scaled = (numbers - self.told_mean) / self.told_std.clamp(min=1e-6)
        parts = scaled.split([size for _, size in self.spec.prefix], dim=-1)
        each = [
            self.lead[name](part) for (name, _), part in zip(self.spec.prefix, parts, strict=True)
        ]
        return torch.stack(each, dim=1)

    def features(self, rows: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Features (B, T, W) at the T tokens of raw rows (B, L, D), after a prefix (B, P) where the model has one."""
        return self.features_of(self.encode(rows), prefix)

    def features_of(self, entries: Tensor, prefix: Tensor | None = None) -> Tensor:
        """The same of encoded rows."""
        return self.mix(self.tokens(entries), prefix)

    def mix(self, tokens: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Features (B, T, W) of a sequence's tokens (B, T, W), after a prefix (B, P).

        Raises ValueError for a prefix that the model lacks, or that is missing.
        """
        if (prefix is None) != (self.ahead == 0):
            raise ValueError("Model: a prefix is given if and only if the model has one.")
        if prefix is not None:
            tokens = torch.cat([self.prefix(prefix), tokens], dim=1)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return self.norm(self.mixer(tokens, mask)[:, self.ahead :])

    def losses(self, rows: Tensor, prefix: Tensor | None = None) -> Tensor:
        """What training minimises for every slot of raw rows, (B, L, D); zero where nothing predicts it."""
        return self.head.each(self.features(rows, prefix), rows, "each_loss")

    def log_density(self, rows: Tensor, prefix: Tensor | None = None) -> Tensor:
        return self.head.log_density(self.features(rows, prefix), rows)

    def flops(self) -> int:
        """See `flops_per_target`."""
        embedded = self.spec.context * self.embed.flops()
        if self.spec.predicts == "all":
            heads = sum(head.flops() for head in self.head.heads)
            return embedded + heads + self.embed.per_step * self.mixer.flops()
        return embedded + self.head.flops() + self.mixer.flops()


def block(spec: ModelSpec) -> int:
    """Tokens of a joint model's window: the last one of its last timestep predicts nothing and is left out."""
    n = len(tokens_of(spec))
    return spec.context * n - (n > 1)


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
    data: np.ndarray | None = None,
    discretiser: Discretiser | None = None,
    told: np.ndarray | None = None,
) -> Model:
    """A model on the CPU whose initial weights come from `generator` alone.

    PyTorch's global generator, which modules initialise themselves from, is left as it was.
    """
    seed = int(torch.randint(0, 1 << 62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made: Any = spec.build(data, copy.deepcopy(discretiser), told)
        return made


def count_parameters(model: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def flops_per_target(spec: ModelSpec) -> int:
    """Floating-point operations of the matrix products for one target with a full window.

    Of a joint model: for all that one timestep adds, where the window is full of others.
    """
    with torch.device("meta"):
        model: Any = spec.build()
    return int(model.flops())
