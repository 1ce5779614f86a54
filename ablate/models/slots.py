"""The heads of a joint model: every slot of a timestep's row (s_1..s_N, a_1..a_M, r, V) from the token before it.

A head that is `chained` predicts all slots of a token together, each given those before it in the token; of any
other there is one for each slot, so that the slots of a token are independent given what came before the token.

What a head predicts are its *numbers*: bins where it has some (`valid`), else numbers in the head's own unit:
standardised ones where it may be unbounded (`bounded`), and otherwise ones of which the training data fill [-1, 1].
What is drawn from it is a *symbol*: a bin, or the number in raw units. Log-likelihoods are densities in raw units,
conditional on the first observation of a window: timestep t counts (a, r, V)_t and s_{t+1}, in every layout, so that
models with different tokens compare.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.data.normalise import moments
from ablate.errors import UserError
from ablate.models.discretise import Discretiser
from ablate.models.heads import Head
from ablate.models.spec import ModelSpec
from ablate.models.tokens import stream
from ablate.registry import get


class Slots(nn.Module):
    """Features (B, T, W) of a sequence's tokens to what is predicted for each slot of rows (B, L, D).

    Args:
        spec: of the model.
        rows: training data (T, D), from which units come; None where nothing will be predicted in earnest.
        discretiser: bins of the D slots, for heads with bins.
        owned: whether the bins are this module's, or also the tokenizer's, which then keeps them.

    Attributes:
        stream: the slots of each token, in the order of the sequence. at: of each slot the number of its head,
            and its place there. binned: whether symbols are bins.

    Raises UserError for a head that serves no joint model.
    """

    mean: Tensor  # (D,), by which continuous input is standardised
    std: Tensor
    shift: Tensor  # (D,), a head's number is (raw - shift) / scale
    scale: Tensor

    def __init__(
        self,
        spec: ModelSpec,
        rows: np.ndarray | None,
        discretiser: Discretiser,
        owned: bool,
    ) -> None:
        super().__init__()
        kind: Any = get("head", spec.head)
        if not kind.joint:
            raise UserError(
                f"head '{spec.head}': it chooses among actions and serves no joint model."
            )
        known = inspect.signature(kind).parameters
        self.spec, self.stream = spec, stream(spec)
        self.binned, self.density = "valid" in known, bool(kind.density)
        self.discretiser: Discretiser | None = discretiser if owned and self.binned else None
        self._bins = (discretiser,)  # not registered twice
        units = _units(np.zeros((2, spec.slots)) if rows is None else rows, "bounded" in known)
        for name, values in zip(("mean", "std", "shift", "scale"), units, strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.get_default_dtype()))
        self.heads: Any = nn.ModuleList()
        self.at: dict[int, tuple[int, int]] = {}
        self.groups: list[
            list[tuple[int, tuple[int, ...]]]
        ] = []  # of a token: heads and their slots
        for held in self.stream:
            group = []
            for slots in [held] if kind.chained else [(slot,) for slot in held]:
                if spec.only and not set(slots) <= set(spec.only):
                    continue
                options: dict[str, Any] = {"bounded": False} if "bounded" in known else {}
                if self.binned:
                    options["valid"] = discretiser.valid[list(slots)].clone()
                numbers = None if rows is None else (rows[:, list(slots)] - units[2][list(slots)])
                if numbers is not None:
                    numbers = numbers / units[3][list(slots)]
                self.at |= {slot: (len(self.heads), m) for m, slot in enumerate(slots)}
                group.append((len(self.heads), slots))
                self.heads.append(kind(spec.width, len(slots), numbers, **options))
            self.groups.append(group)

    @property
    def bins(self) -> Discretiser:
        """The bins of the slots."""
        return self._bins[0] if self.discretiser is None else self.discretiser

    # whole sequences

    def predicted(self, length: int) -> Tensor:
        """(L, D) bool: slots which some token predicts; all but those of the first token."""
        seen = torch.ones(length, self.spec.slots, dtype=torch.bool, device=self.mean.device)
        seen[0, : self.spec.observation_dim if len(self.stream) == 1 else len(self.stream[0])] = (
            False
        )
        return seen

    def numbers(self, rows: Tensor) -> Tensor:
        """What the heads predict of raw rows (..., D); where a row is not a number the episode is over."""
        over = rows.isnan()
        if self.binned:
            return self.bins.encode(rows).masked_fill(over, self.bins.bins)
        return ((rows - self.shift) / self.scale).masked_fill(over, 0.0)

    def each(self, features: Tensor, rows: Tensor, method: str) -> Tensor:
        """`each_loss` or `each_log_prob` of the heads, or (with P more numbers each) `number`: (B, L, D, ...).

        Zero where nothing predicts. Features of slots that are `stopped` pass no gradient on.
        """
        numbers = self.numbers(rows)
        after = F.pad(numbers[:, 1:], (0, 0, 0, 1))
        first, count = self.spec.observation_dim, len(self.stream)
        stopped = set(self.spec.stopped)
        found: dict[int, Tensor] = {}
        for token, group in enumerate(self.groups):
            # (B, L, W): the feature before the token; before the first token of a timestep that of the one before
            before = features[:, (token - 1) % count :: count]
            later = token == 0  # whether it is the next timestep's observation that is predicted
            for head, slots in group:
                told = [(after if later and slot < first else numbers)[..., slot] for slot in slots]
                target = torch.stack(told, -1)[:, : before.shape[1]]  # (B, L, m)
                read = before.detach() if set(slots) & stopped else before
                each = self._each(self.heads[head], read, target, method)
                for m, slot in enumerate(slots):
                    value = each[m]
                    if later and slot < first:
                        nothing = value.new_zeros(len(value), 1, *value.shape[2:])
                        value = torch.cat([nothing, value], 1)
                    found[slot] = value[:, : rows.shape[1]]
        nothing = torch.zeros_like(next(iter(found.values())))
        return torch.stack([found.get(slot, nothing) for slot in range(self.spec.slots)], dim=2)

    def _each(self, head: Head, features: Tensor, numbers: Tensor, method: str) -> list[Tensor]:
        """One result for each of the numbers (..., m)."""
        params = head(features)
        if method != "number":
            return list(getattr(head, method)(params, numbers).unbind(-1))
        found = []
        for m in range(numbers.shape[-1]):
            found.append(head.number(params, m))
            params = head.told(params, m, numbers[..., m])
        return found

    def log_density(self, features: Tensor, rows: Tensor) -> Tensor:
        """Log-densities (B, L, D) in raw units of raw rows (B, L, D), each slot given all before it.

        Slots of s_0 are zero: every layout is conditional on the whole first observation. Raises TypeError for a
        head without a density.
        """
        if not self.density:
            raise TypeError(f"the head {self.spec.head} has no density.")
        each = self.each(features, rows, "each_log_prob")
        each = each - (self.bins.log_width(self.numbers(rows)) if self.binned else self.scale.log())
        first = torch.zeros_like(each[0], dtype=torch.bool)
        first[0, : self.spec.observation_dim] = True
        return each.masked_fill(first, 0.0)

    def per_timestep(self, each: Tensor) -> Tensor:
        """Densities of slots (B, L, D) summed over (a, r, V)_t and s_{t+1}: (B, L-1)."""
        first = self.spec.observation_dim
        return each[:, :-1, first:].sum(-1) + each[:, 1:, :first].sum(-1)

    # one slot after another

    def raw(self, symbols: Tensor, first: int = 0) -> Tensor:
        """Raw values (..., c) of symbols (..., c) of the slots first .. first+c-1."""
        return self.bins.decode(symbols, first) if self.binned else symbols

    def symbols(self, values: Tensor, first: int = 0) -> Tensor:
        """Symbols (..., c) of raw values (..., c) of the slots first .. first+c-1."""
        return self.bins.encode(values, first) if self.binned else values

    def told(self, params: Tensor, slot: int, symbols: Tensor) -> Tensor:
        """The head's parameters (..., P) once a slot is known to be `symbols` (...,)."""
        head, m = self.at[slot]
        numbers = symbols if self.binned else (symbols - self.shift[slot]) / self.scale[slot]
        told: Tensor = self.heads[head].told(params, m, numbers)
        return told

    def log_probs(self, params: Tensor, slot: int) -> Tensor:
        """Log-probabilities (..., N+1) of a slot's bins and of the end."""
        head, m = self.at[slot]
        found: Tensor = self.heads[head].number(params, m)
        return found

    def expected(self, params: Tensor, slot: int) -> Tensor:
        """Expected raw value (...,) of a slot; what the end has counts as zero, as released."""
        if self.binned:
            return self.bins.expectation(self.log_probs(params, slot)[..., :-1].exp(), slot)
        head, m = self.at[slot]
        expected: Tensor = self.heads[head].expected(params, m)
        return expected * self.scale[slot] + self.shift[slot]

    def percentile(self, params: Tensor, slot: int, level: float) -> Tensor:
        """Percentile (...,) of a slot's bins."""
        return self.bins.percentile(self.log_probs(params, slot)[..., :-1].exp(), level, slot)

    def draw(
        self,
        params: Tensor,
        slot: int,
        noise: Tensor,
        k: int | None,
        share: float | None,
        ends: bool = True,
        temperature: float = 1.0,
    ) -> Tensor:
        """Symbols (...,) of a slot by inverse CDF at noise (...,) in [0, 1).

        k: among the k most likely bins (1: the most likely); share: without the least likely bins that hold that
        much; ends: whether the end may be drawn; temperature: the distribution is p^(1 / temperature), before
        anything is left out. A head without bins takes the likeliest where k is 1, and is drawn from as it is
        otherwise; there the temperature stretches a draw's distance from the expectation by its square root, which
        is the same of a Gaussian.
        """
        if self.binned:
            log_probs = self.log_probs(params, slot)
            if temperature != 1.0:
                log_probs = log_probs / temperature
            if not ends:
                log_probs = F.pad(log_probs[..., :-1], (0, 1), value=float("-inf"))
            return draw_bin(log_probs, noise, k, share)
        head, m = self.at[slot]
        number: Tensor = self.heads[head].pick(params, m, noise, k == 1)
        if temperature != 1.0 and k != 1:
            centre = self.heads[head].expected(params, m)
            number = centre + math.sqrt(temperature) * (number - centre)
        return number * self.scale[slot] + self.shift[slot]


def _units(rows: np.ndarray, free: bool) -> tuple[np.ndarray, ...]:
    """Mean and standard deviation of the slots (D,), and shift and scale of a head's numbers."""
    mean, std = moments(rows)
    std = np.where(std > 1e-6, std, 1.0)
    if free:
        return mean, std, mean, std
    low, high = rows.min(0), rows.max(0)
    return mean, std, 0.5 * (low + high), np.where(high - low > 1e-6, 0.5 * (high - low), 1.0)


def draw_bin(log_probs: Tensor, noise: Tensor, k: int | None, share: float | None) -> Tensor:
    """Bins (...,) of log-probabilities (..., N+1), drawn by inverse CDF at noise (...,).

    The filters are the release's (trajectory/search/sampling.py): `share` first, which leaves out all bins not
    more likely than the last one whose ascending cumulated probability is below it; then the k most likely.
    """
    if k == 1:  # whatever `share` leaves out, the most likely stays
        return log_probs.argmax(-1)
    if share is not None:
        probs = log_probs.exp()
        ordered = probs.sort(-1).values
        below = (ordered.cumsum(-1) < share).sum(-1, keepdim=True) - 1
        limit = ordered.gather(-1, below.clamp(min=0))
        log_probs = log_probs.masked_fill(probs <= limit, float("-inf"))
    if k is not None and k < log_probs.shape[-1]:
        least = log_probs.topk(k).values[..., -1:]
        log_probs = log_probs.masked_fill(log_probs < least, float("-inf"))
    cumulated = log_probs.softmax(-1).cumsum(-1)
    drawn = (cumulated <= noise[..., None] * cumulated[..., -1:]).sum(-1)
    return drawn.clamp(max=log_probs.shape[-1] - 1)
