"""A joint autoregressive model of trajectories: states, actions, rewards and values, one after another.

A timestep's row is (s_1..s_N, a_1..a_M, r, V), D = N+M+2 slots, V the discounted sum of the rewards after this
one. The Trajectory Transformer (Janner et al. 2021) gives every slot its own token, its own N bins and its own
output matrix. It differs from a Decision Transformer in three things at once, which are factors here:

layout: which slots share a token. `dimension`: none; `chunk-G`: up to G of a state, up to G of an action; r and
    V alone; `modality`: (s), (a), (r), (V); `step`: one token a timestep, (a, r, V)_{t-1} with s_t, from which
    (a, r, V)_t and s_{t+1} are predicted.
head: what is predicted for the slots of a token, given everything before it. `mse`, `gaussian`, `mixture`,
    `categorical`: independent of each other (a mixture: given its component); `autoregressive`: categorical, each
    slot given those before it in the same token.
input: whether a token reads bins (`discretised`) or standardised numbers (`continuous`).

Value tokens are predicted but never read: nobody attends to them (the release zeroes their attention columns;
they still feed the prediction that follows through their own residual stream), and where V shares a token with
other slots it is left out of the token's embedding.

Log-likelihoods are densities in raw units, conditional on the first observation of a window: timestep t counts
(a, r, V)_t and s_{t+1}, in every layout, so that models with different tokens compare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError, unknown
from ablate.models.attention import Block, Turn, rotate, turns
from ablate.models.discretise import Discretiser
from ablate.models.dropout import Dropout
from ablate.models.linear import linear

LAYOUTS = ("dimension", "chunk-G", "modality", "step")
HEADS = ("mse", "gaussian", "mixture", "categorical", "autoregressive")
INPUTS = ("discretised", "continuous")
POSITIONS = ("learned", "rotary")
COMPONENTS = 5
LOG_STD = (-5.0, 2.0)  # of standardised values


@dataclass(frozen=True)
class TrajectorySpec:
    """Everything that determines a trajectory model's shape; the defaults are the released TT's.

    Attributes:
        observation_dim, action_dim: N and M.
        layout, head, input, positions: see the module.
        window: timesteps that the model is trained on, and with learned positions can hold.
        bins: of each slot. width, layers, heads, dropout: of the transformer.
        value_mask: whether value tokens are hidden from attention.
        goal: coordinates of the observation that a goal before the sequence says, none by default.
    """

    observation_dim: int
    action_dim: int
    layout: str = "dimension"
    head: str = "categorical"
    input: str = "discretised"
    positions: str = "learned"
    window: int = 10
    bins: int = 100
    width: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    value_mask: bool = True
    goal: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, found, allowed in (
            ("head", self.head, HEADS),
            ("input", self.input, INPUTS),
            ("positions", self.positions, POSITIONS),
        ):
            if found not in allowed:
                raise unknown(name, found, allowed)
        group_sizes(self.layout, self.observation_dim, self.action_dim)
        if any(not 0 <= coordinate < self.observation_dim for coordinate in self.goal):
            raise UserError(
                f"goal: found coordinates {list(self.goal)}; allowed: 0 ... {self.observation_dim - 1}."
            )
        if self.window < 1:
            raise UserError(f"window: found {self.window}; at least 1 timestep is needed.")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UserError(
                f"width: found {self.width} with {self.heads} heads; an even number of channels a head is needed."
            )

    @property
    def slots(self) -> int:
        """D, numbers in a timestep's row."""
        return self.observation_dim + self.action_dim + 2

    @property
    def per_step(self) -> int:
        """Tokens a timestep."""
        return len(group_sizes(self.layout, self.observation_dim, self.action_dim))

    @property
    def observation_tokens(self) -> int:
        """Tokens of the observation alone; in the layout `step` the one that it shares."""
        sizes = group_sizes(self.layout, self.observation_dim, self.action_dim)
        return (
            1
            if self.layout == "step"
            else int(np.searchsorted(np.cumsum(sizes), self.observation_dim)) + 1
        )

    @property
    def block(self) -> int:
        """Tokens of a window: the last one of its last timestep predicts nothing and is left out."""
        tokens = self.window * self.per_step
        return tokens if self.layout == "step" else tokens - 1

    @property
    def discrete(self) -> bool:
        """Whether what is predicted are bins."""
        return self.head in ("categorical", "autoregressive")

    @property
    def density(self) -> bool:
        """Whether the head defines a likelihood."""
        return self.head != "mse"


def group_sizes(layout: str, observation_dim: int, action_dim: int) -> list[int]:
    """How many consecutive slots share a token, over one timestep. Raises UserError for an unknown layout."""
    if layout == "step":
        return [observation_dim + action_dim + 2]
    if layout == "modality":
        return [observation_dim, action_dim, 1, 1]
    if layout == "dimension":
        size = 1
    elif layout.startswith("chunk-") and layout[6:].isdecimal() and int(layout[6:]):
        size = int(layout[6:])
    else:
        raise unknown("layout", layout, LAYOUTS)
    sizes = []
    for count in (observation_dim, action_dim):
        sizes += [size] * (count // size) + ([count % size] if count % size else [])
    return [*sizes, 1, 1]


class MaskedBlock(Block):
    """A transformer block whose positions see what a mask says."""

    def forward(self, x: Tensor, visible: Tensor, turn: Turn | None = None) -> Tensor:  # type: ignore[override]
        """x (B, L, W), visible (L, L) bool, the turn of rotary positions: (B, L, W)."""
        q, k, v = self.project(x, turn)
        if self.training and self.drop.probability > 0.0:
            # on the CPU the fused kernel has no dropout and its fallback draws slow Bernoulli masks
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, L, L)
            seen = self.drop(scores.masked_fill(~visible, float("-inf")).softmax(-1)) @ v
        else:
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.finish(x, seen)

    def project(self, x: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, L, d) of x (B, L, W)."""
        q, k, v = self._split(self.qkv(self.attention_norm(x)))
        return rotate(q, turn), rotate(k, turn), v

    def finish(self, x: Tensor, seen: Tensor) -> Tensor:
        """What follows attention: x (B, L, W) and what was seen (B, H, L, d) to (B, L, W)."""
        return self._mlp(x + self.drop(self.out(self._merge(seen))))


class TrajectoryModel(nn.Module):
    """Rows (B, L, D) to what is predicted for each of their slots.

    Args:
        spec: the shape.
        discretiser: bins of the D slots; needed where input or head is discrete.
        mean, std: (D,) by which continuous values are standardised; needed where input or head is continuous.

    Raises UserError where one of them is missing or of another size.
    """

    mean: Tensor
    std: Tensor
    group: Tensor  # (D,) which token of the timestep a slot belongs to
    before: Tensor  # (D, D) strictly earlier slots of the same token
    visible: Tensor  # (block, block)

    def __init__(
        self,
        spec: TrajectorySpec,
        discretiser: Discretiser | None = None,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        slots, width, bins = spec.slots, spec.width, spec.bins
        reads = spec.input == "discretised"
        if (reads or spec.discrete) and discretiser is None:
            raise UserError(
                f"trajectory model: input {spec.input} with head {spec.head} needs a discretiser."
            )
        if discretiser is not None and (discretiser.columns, discretiser.bins) != (slots, bins):
            raise UserError(
                f"trajectory model: the discretiser has {discretiser.columns} columns of {discretiser.bins} bins;"
                f" {slots} of {bins} are needed."
            )
        if (not reads or not spec.discrete) and (mean is None or std is None):
            raise UserError(
                f"trajectory model: input {spec.input} with head {spec.head} needs mean and std."
            )
        self.discretiser = discretiser
        # Q(observations (E, r, N), actions (E, r, M)) -> (E, r) for a search, where one was trained beside it
        self.critic: nn.Module | None = None
        dtype = torch.get_default_dtype()
        self.register_buffer(
            "mean", torch.zeros(slots) if mean is None else torch.tensor(mean, dtype=dtype)
        )
        self.register_buffer(
            "std", torch.ones(slots) if std is None else torch.tensor(std, dtype=dtype)
        )
        sizes = group_sizes(spec.layout, spec.observation_dim, spec.action_dim)
        group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.register_buffer("group", group, persistent=False)
        # In the layout `step` the slots of a token come in the order (a, r, V, next s).
        order = (
            (torch.arange(slots) - spec.observation_dim) % slots
            if spec.layout == "step"
            else torch.arange(slots)
        )
        same = group[:, None] == group
        self.register_buffer(
            "before", (same & (order < order[:, None])).to(dtype), persistent=False
        )

        if reads:
            self.embed: Any = nn.Embedding(
                slots * bins + 1, width
            )  # the last row is the stop token
        else:
            self.embed = nn.Parameter(torch.empty(slots, width))
            self.embed_bias = nn.Parameter(torch.zeros(len(sizes), width))
        if spec.goal:
            self.embed_goal: Any = (
                nn.Embedding(len(spec.goal) * bins, width)
                if reads
                else nn.Parameter(torch.empty(len(spec.goal), width))
            )
        if spec.positions == "learned":
            self.positions = nn.Parameter(torch.zeros(spec.block, width))
        self.drop = Dropout(spec.dropout)
        self.blocks: Any = nn.ModuleList(
            MaskedBlock(width, spec.heads, spec.dropout, activation="gelu")
            for _ in range(spec.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Parameter(torch.empty(slots, self._outputs(), width))
        if not spec.discrete:
            self.head_bias = nn.Parameter(torch.zeros(slots, self._outputs()))
        if spec.head == "mixture":
            self.weights = nn.Parameter(torch.zeros(len(sizes), COMPONENTS, width))
        if spec.head == "autoregressive":
            self.within = nn.Embedding(slots * bins + 1, width)
            self.within_norm = nn.LayerNorm(width)
            self.within_up = nn.Linear(width, width)
            self.within_down = nn.Linear(width, width)
        self._initialise()

    def _outputs(self) -> int:
        return {"mse": 1, "gaussian": 2, "mixture": 2 * COMPONENTS}.get(
            self.spec.head, self.spec.bins + 1
        )

    def _initialise(self) -> None:
        """As released: normal(0, 0.02), biases and positions zero; the head as a linear layer by default."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name in ("embed", "embed_goal"):
                nn.init.normal_(parameter, std=0.02)
        bound = 1.0 / math.sqrt(self.spec.width)
        nn.init.uniform_(self.head, -bound, bound)
        if self.spec.head == "mixture":
            nn.init.uniform_(self.weights, -bound, bound)
            with torch.no_grad():  # components that start equal would stay so
                self.head_bias[:, :COMPONENTS].uniform_(-1.0, 1.0)

    # tokens in

    def encode(self, rows: Tensor) -> Tensor:
        """What the model reads: tokens (..., D) int64 of raw rows, or the rows standardised."""
        if self.spec.input == "discretised":
            assert self.discretiser is not None
            return self.discretiser.encode(rows)
        return (rows - self.mean) / self.std

    def embed_slots(self, entries: Tensor, first: int = 0) -> Tensor:
        """Embeddings (..., c, W) of the encoded slots first .. first+c-1, entries (..., c), without position."""
        count = entries.shape[-1]
        if self.spec.input == "continuous":
            return entries.unsqueeze(-1) * self.embed[first : first + count]
        return self.embed(self._rows_of(entries, first))

    def _rows_of(self, tokens: Tensor, first: int) -> Tensor:
        """Rows of a table of D times N tokens and the stop token."""
        bins, slots = self.spec.bins, self.spec.slots
        offset = bins * torch.arange(first, first + tokens.shape[-1], device=tokens.device)
        return torch.where(tokens >= bins, bins * slots, tokens + offset)

    def embed_rows(self, entries: Tensor) -> Tensor:
        """Tokens (B, n L, W) of encoded rows (B, L, D), without position."""
        each = self.embed_slots(entries)  # (B, L, D, W)
        batch, length, _, width = each.shape
        if self.spec.layout == "step":
            observation = self.spec.observation_dim
            seen = self.spec.slots - (1 if self.spec.value_mask else 0)
            acted = each[:, :-1, observation:seen].sum(2)  # (a, r) of the timestep before
            tokens = each[:, :, :observation].sum(2)
            tokens = tokens + F.pad(acted, (0, 0, 1, 0))
        elif self.spec.layout == "dimension":
            tokens = each.flatten(1, 2)
        else:
            tokens = each.new_zeros(batch, length, self.spec.per_step, width)
            tokens = tokens.index_add(2, self.group, each).flatten(1, 2)
        if self.spec.input == "continuous":
            tokens = tokens + self.embed_bias.repeat(length, 1)
        return tokens

    def encode_goal(self, goal: Tensor) -> Tensor:
        """What the model reads of goals (..., G), raw values of the coordinates `spec.goal`."""
        coordinates = list(self.spec.goal)
        rows = self.mean.expand(*goal.shape[:-1], -1).clone()
        rows[..., coordinates] = goal.to(rows)
        return self.encode(rows)[..., coordinates]

    def goal_tokens(self, goal: Tensor) -> Tensor:
        """Tokens (B, n, W) of encoded goals (B, G): one for each coordinate, or one in all."""
        if self.spec.input == "continuous":
            each = goal.unsqueeze(-1) * self.embed_goal
        else:
            each = self.embed_goal(
                goal + self.spec.bins * torch.arange(goal.shape[-1], device=goal.device)
            )
        return each if self.spec.layout == "dimension" else each.sum(1, keepdim=True)

    def slots_of(self, token: int) -> list[int]:
        """The slots of the token that follows `token` tokens of a timestep, in the order of prediction."""
        observation, slots = self.spec.observation_dim, self.spec.slots
        if self.spec.layout == "step":
            return [*range(observation, slots), *range(observation)]
        return torch.nonzero(self.group == token).flatten().tolist()

    def embed_token(self, token: int, entries: Tensor) -> Tensor:
        """One token (..., W) from the encoded entries (..., g) of `slots_of(token)`, without position."""
        slots = torch.tensor(self.slots_of(token), device=entries.device)
        if self.spec.input == "continuous":
            each = entries.unsqueeze(-1) * self.embed[slots]
        else:
            stop = entries >= self.spec.bins
            each = self.embed(
                torch.where(
                    stop, self.spec.bins * self.spec.slots, entries + self.spec.bins * slots
                )
            )
        if self.spec.layout == "step" and self.spec.value_mask:
            each = each[..., slots != self.spec.slots - 1, :]
        total = each.sum(-2)
        return total + self.embed_bias[token] if self.spec.input == "continuous" else total

    # features

    def turn(self, positions: Tensor) -> Turn | None:
        """The turn of rotary positions (L,); None with learned ones."""
        if self.spec.positions == "learned":
            return None
        return turns(positions, self.spec.width // self.spec.heads, self.mean.dtype)

    def mask(self, length: int, goal: int = 0) -> Tensor:
        """(goal + length)^2 bool: causal, without the columns of value tokens, which lie behind the goal's."""
        device = self.mean.device
        seen = torch.ones(goal + length, goal + length, dtype=torch.bool, device=device).tril()
        if self.spec.value_mask and self.spec.layout != "step":
            seen[:, goal + self.spec.per_step - 1 :: self.spec.per_step] = False
        return seen

    def features(self, entries: Tensor, goal: Tensor | None = None) -> Tensor:
        """Features (B, tokens, W) at every token of encoded rows (B, L, D) but the last one of all.

        goal: encoded goals (B, G) for a model with one. Raises ValueError when the rows exceed the
        window of learned positions, or when a goal is given to a model without one, or the other way round.
        """
        if (goal is not None) != bool(self.spec.goal):
            raise ValueError("TrajectoryModel: a goal is given if and only if the model has one.")
        tokens = self.embed_rows(entries)
        if self.spec.layout != "step":
            tokens = tokens[:, :-1]
        length = tokens.shape[1]
        if self.spec.positions == "learned":
            if length > self.spec.block:
                raise ValueError(
                    f"TrajectoryModel: {length} tokens exceed the window of {self.spec.block}."
                )
            tokens = tokens + self.positions[:length]
        tokens = self.drop(tokens)
        ahead = 0
        if goal is not None:
            prefix = self.goal_tokens(goal)
            ahead = prefix.shape[1]
            tokens = torch.cat([prefix, tokens], dim=1)
        turn = self.turn(torch.arange(ahead + length, device=tokens.device))
        visible = self.mask(length, ahead)
        for block in self.blocks:
            tokens = block(tokens, visible, turn)
        return self.norm(tokens[:, ahead:])

    # predictions

    def forward(
        self, entries: Tensor, targets: Tensor | None = None, goal: Tensor | None = None
    ) -> Tensor:
        """Head parameters (B, L, D, P) of every slot; see `predicted` for which of them mean something.

        entries: encoded rows (B, L, D); targets: the rows as tokens (B, L, D) for an autoregressive head, by
        default the entries. Slots of the first timestep's first token come from no token: their parameters are zero.
        """
        features = self._features_of_slots(self.features(entries, goal), entries.shape[1])
        if self.spec.head == "autoregressive":
            features = self._decode_within(features, entries if targets is None else targets)
        params = torch.einsum("bldw,dpw->bldp", features, self.head)
        if not self.spec.discrete:
            params = params + self.head_bias
        if self.spec.head == "mixture":
            logits = torch.einsum("bldw,dcw->bldc", features, self.weights[self.group])
            params = torch.cat([params, logits], dim=-1)
        return params

    def predicted(self, length: int) -> Tensor:
        """(L, D) bool: slots which some token predicts; all but those of the first token."""
        seen = torch.ones(length, self.spec.slots, dtype=torch.bool, device=self.mean.device)
        first = (
            self.spec.observation_dim
            if self.spec.layout == "step"
            else int((self.group == 0).sum())
        )
        seen[0, :first] = False
        return seen

    def _features_of_slots(self, features: Tensor, length: int) -> Tensor:
        """(B, L, D, W): for each slot the feature of the token that predicts it."""
        width = self.spec.width
        if self.spec.layout == "step":
            # a token predicts this timestep's (a, r, V) and the next one's s
            late = F.pad(features, (0, 0, 1, 0))[:, :-1]
            observation, rest = (
                self.spec.observation_dim,
                self.spec.slots - self.spec.observation_dim,
            )
            before = late.unsqueeze(2).expand(-1, -1, observation, -1)
            return torch.cat([before, features.unsqueeze(2).expand(-1, -1, rest, -1)], dim=2)
        shifted = F.pad(features, (0, 0, 1, 0))  # (B, n L, W): each token's predecessor
        if self.spec.layout == "dimension":
            return shifted.view(-1, length, self.spec.slots, width)
        return shifted.view(-1, length, self.spec.per_step, width)[:, :, self.group]

    def _decode_within(self, features: Tensor, targets: Tensor) -> Tensor:
        """Features (B, L, D, W) told what the earlier slots of the same token are."""
        each = self.within(self._rows_of(targets, 0))
        if (
            self.spec.layout == "step"
        ):  # the observation belongs to the token before: move it there and back
            observation = self.spec.observation_dim
            acted = F.pad(each[:, :-1, observation:], (0, 0, 0, 0, 1, 0))
            here = torch.cat([each[:, :, :observation], acted], dim=2)
            told_state = torch.einsum("de,blew->bldw", self.before[:observation], here)
            told_rest = torch.einsum("de,blew->bldw", self.before[observation:], each)
            told = torch.cat([told_state, told_rest], dim=2)
        else:
            told = torch.einsum("de,blew->bldw", self.before, each)
        return self.within_step(features, told)

    def within_step(self, features: Tensor, told: Tensor) -> Tensor:
        """The small decoder inside a token: features and the sum of what was told, (..., W) each."""
        x = features + told
        return x + self.within_down(F.gelu(self.within_up(self.within_norm(x))))

    def slot_parameters(self, features: Tensor, slot: int) -> Tensor:
        """Head parameters (..., P) of one slot from features (..., W): nothing else is computed."""
        params = linear(features, self.head[slot], None)
        if not self.spec.discrete:
            params = params + self.head_bias[slot]
        if self.spec.head == "mixture":
            params = torch.cat([params, linear(features, self.weights[self.group[slot]], None)], -1)
        return params

    # likelihood

    def log_density(self, rows: Tensor, goal: Tensor | None = None) -> Tensor:
        """Log-densities (B, L, D) in raw units of raw rows (B, L, D), each slot given all before it.

        A row's slots sum to the density of the token's slots together. Slots of s_0 are zero: every layout is
        conditional on the whole first observation. Raises TypeError for a head without a density.
        """
        if not self.spec.density:
            raise TypeError(f"TrajectoryModel: the head {self.spec.head} has no density.")
        entries = self.encode(rows)
        if self.spec.discrete:
            assert self.discretiser is not None
            tokens = self.discretiser.encode(rows)
            params = self(entries, tokens, goal)
            chosen = self.log_probabilities(params).gather(-1, tokens[..., None]).squeeze(-1)
            each = chosen - self.discretiser.log_width(tokens)
        else:
            params = self(entries, None, goal)
            each = self._continuous(params, (rows - self.mean) / self.std) - self.std.log()
        first = torch.zeros(rows.shape[1], self.spec.slots, dtype=torch.bool, device=rows.device)
        first[0, : self.spec.observation_dim] = True
        return each.masked_fill(first, 0.0)

    def per_timestep(self, each: Tensor) -> Tensor:
        """Densities of slots (B, L, D) summed over (a, r, V)_t and s_{t+1}: (B, L-1)."""
        observation = self.spec.observation_dim
        return each[:, :-1, observation:].sum(-1) + each[:, 1:, :observation].sum(-1)

    def log_probabilities(self, params: Tensor, slot: int | None = None) -> Tensor:
        """Log-probabilities of bins and stop token, (..., D, N+1) or of one slot (..., N+1).

        Bins that do not exist have none.
        """
        assert self.discretiser is not None
        valid = F.pad(self.discretiser.valid, (0, 1), value=True)
        valid = valid if slot is None else valid[slot]
        return params.masked_fill(~valid, float("-inf")).log_softmax(-1)

    def _continuous(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-densities (B, L, D) of standardised values; a mixture's by the chain rule inside a token."""
        if self.spec.head == "gaussian":
            mean, scale = params.unbind(-1)
            return _normal(values, mean, bounded(scale))
        means, scales, logits = params.split([COMPONENTS] * 3, dim=-1)
        each = _normal(values.unsqueeze(-1), means, bounded(scales))  # (B, L, D, C)
        earlier = self._sum_before(each)
        weights = logits.log_softmax(-1)
        return torch.logsumexp(weights + earlier + each, -1) - torch.logsumexp(
            weights + earlier, -1
        )

    def _sum_before(self, each: Tensor) -> Tensor:
        """Sums (B, L, D, C) over the strictly earlier slots of the same token."""
        if self.spec.layout != "step":
            return torch.einsum("de,blec->bldc", self.before, each)
        observation = self.spec.observation_dim
        acted = F.pad(each[:, :-1, observation:], (0, 0, 0, 0, 1, 0))
        here = torch.cat([each[:, :, :observation], acted], dim=2)
        state = torch.einsum("de,blec->bldc", self.before[:observation], here)
        rest = torch.einsum("de,blec->bldc", self.before[observation:], each)
        return torch.cat([state, rest], dim=2)

    def loss(self, params: Tensor, rows: Tensor, tokens: Tensor | None) -> Tensor:
        """What training minimises for every slot, (B, L, D): cross-entropy, squared error or negative density.

        rows: raw (B, L, D); tokens: (B, L, D) with N for the stop token, for a discrete head.
        """
        if self.spec.discrete:
            assert tokens is not None
            return -self.log_probabilities(params).gather(-1, tokens[..., None]).squeeze(-1)
        values = (rows - self.mean) / self.std
        if self.spec.head == "mse":
            return (params.squeeze(-1) - values).square()
        return -self._continuous(params, values)


def bounded(raw: Tensor) -> Tensor:
    """Log standard deviation within `LOG_STD`, 0 at 0."""
    low, high = LOG_STD
    start = math.log(-low / high)
    return low + (high - low) * torch.sigmoid(raw + start)


def _normal(values: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return (
        -0.5 * ((values - mean) * (-log_std).exp()).square()
        - log_std
        - 0.5 * math.log(2.0 * math.pi)
    )


def build_trajectory_model(
    spec: TrajectorySpec, generator: torch.Generator, *args: Any, **kwargs: Any
) -> TrajectoryModel:
    """A model on the CPU whose initial weights come from `generator` alone."""
    seed = int(torch.randint(0, 1 << 62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return TrajectoryModel(spec, *args, **kwargs)
