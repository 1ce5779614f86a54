"""The released search, restated without any cache: a whole forward pass over the window for every token.

One episode, dimension layout, bins in and out. Randomness enters as given uniform numbers, by inverse CDF.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ablate.models.assembly import Model, block
from ablate.plan.options import PlanOptions
from ablate.plan.search import UNLIKELY


class PlainPlanner:
    """Counts in `positions` how many token positions it computes."""

    def __init__(self, model: Model, options: PlanOptions, goal: Tensor | None = None) -> None:
        self.model, self.options, self.goal = model, options, goal
        self.slots = model.spec.slots
        self.positions = 0
        self.windows: list[tuple[int, int]] = []  # (tokens told, first of them that is seen)

    @torch.no_grad()
    def next_probabilities(self, x: Tensor) -> Tensor:
        """x (R, T) tokens -> probabilities (R, N+1) of the next one."""
        told, cap = x.shape[1], None
        if self.options.mode == "reference":
            cap = min(self.options.max_context_transitions * self.slots - 1, block(self.model.spec))
        first = 0
        while cap is not None and told - first > cap:
            first += self.slots
        x = x[:, first:]
        self.positions += x.numel()
        self.windows.append((told, first))
        length = x.shape[1]
        rows = length // self.slots + 1
        filled = torch.zeros(len(x), rows * self.slots, dtype=torch.long)
        filled[:, :length] = x
        entries = filled.view(len(x), rows, self.slots)
        goal = None if self.goal is None else self.goal.expand(len(x), -1)
        slot = length % self.slots
        feature = self.model.features_of(entries, goal)[:, length - 1]
        logits = feature @ self.model.head.heads[self.model.head.at[slot][0]].linear.weight.T
        valid = torch.cat([self.model.head.bins.valid[slot], torch.tensor([True])])
        return logits.masked_fill(~valid, -torch.inf).softmax(-1)

    def drawn(self, probs: Tensor, noise: Tensor, k: int | None, share: float | None) -> Tensor:
        """One token a row, (R, 1)."""
        out = []
        for row, u in zip(probs, noise, strict=True):
            logits = row.log()
            if share is not None:
                ordered = row.sort().values
                below = [i for i, c in enumerate(ordered.cumsum(0)) if c < share]
                limit = ordered[below[-1] if below else 0]
                logits = torch.where(
                    row <= limit, torch.tensor(-torch.inf, dtype=row.dtype), logits
                )
            if k is not None:
                least = logits.sort(descending=True).values[k - 1]
                logits = torch.where(
                    logits < least, torch.tensor(-torch.inf, dtype=row.dtype), logits
                )
            cumulated = logits.softmax(0).cumsum(0)
            out.append(min(int((cumulated <= u * cumulated[-1]).sum()), len(row) - 1))
        return torch.tensor(out)[:, None]

    def by_return(self, x: Tensor, noise: Tensor) -> tuple[Tensor, float]:
        """Tokens (1, T) of context and observation -> tokens (H, D) of the best sequence, and its score."""
        o, model = self.options, self.model
        n, slots, bins = model.spec.observation_dim, self.slots, model.head.bins
        x = x.repeat(o.beam, 1)
        rewards = torch.zeros(o.beam, o.horizon + 1, dtype=noise.dtype)
        likely = torch.zeros(o.beam, dtype=noise.dtype)
        discounts = o.discount ** torch.arange(o.horizon + 1, dtype=noise.dtype)
        for t in range(o.horizon):
            x, rewards = x.repeat(o.n_expand, 1), rewards.repeat(o.n_expand, 1)
            likely = likely.repeat(o.n_expand)
            for slot in range(n, slots):
                probs = self.next_probabilities(x)
                k, share = (o.k_act, o.cdf_act) if slot < slots - 2 else (o.k_rew, o.cdf_rew)
                token = self.drawn(probs, noise[t, :, slot], k, share)
                if slot < slots - 2:
                    likely = likely + probs.gather(1, token)[:, 0].log()
                x = torch.cat([x, token], 1)
                if slot >= slots - 2:
                    read = probs[:, :-1] @ bins.centres[slot]
                    if o.percentile != "mean":
                        read = bins.percentile(probs[:, :-1], float(o.percentile), slot)
                    rewards[:, t + slot - (slots - 2)] = read
            counted = rewards * discounts
            if o.objective == "rewards":
                counted = counted[:, : t + 1]
            if o.objective == "value":
                counted = counted[:, t + 1 : t + 2]
            values = counted.sum(-1)
            wanted = values
            if o.least_likely is not None:
                short = [
                    max(0.0, (t + 1) * math.log(o.least_likely) - each) for each in likely.tolist()
                ]
                wanted = values - UNLIKELY * torch.tensor(short, dtype=values.dtype)
            best = wanted.topk(o.beam).indices
            x, rewards, values, likely = x[best], rewards[best], values[best], likely[best]
            if t < o.horizon - 1:
                for slot in range(n):
                    probs = self.next_probabilities(x)
                    token = self.drawn(probs, noise[t, : o.beam, slot], o.k_obs, o.cdf_obs)
                    x = torch.cat([x, token], 1)
        return x.view(o.beam, -1, slots)[0, -o.horizon :], float(values[0])

    def by_likelihood(self, x: Tensor) -> tuple[Tensor, float]:
        """The same for the most probable sequence."""
        o = self.options
        total = torch.zeros(1, 1, dtype=torch.float64)
        for _ in range(o.horizon * self.slots - self.model.spec.observation_dim):
            candidates = total + self.next_probabilities(x).log()
            order = candidates.flatten().sort(descending=True)
            keep = min(o.beam, int((candidates > -torch.inf).sum()))
            rows, tokens = (
                order.indices[:keep] // candidates.shape[1],
                order.indices[:keep] % candidates.shape[1],
            )
            total = order.values[:keep, None]
            x = torch.cat([x[rows], tokens[:, None]], 1)
        return x[0].view(-1, self.slots)[-o.horizon :], float(total[0])
