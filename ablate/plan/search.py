"""Beam search over imagined trajectories (Janner et al. 2021; trajectory/search/core.py of the release)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ablate.models.assembly import Model
from ablate.models.nets import Nets
from ablate.models.slots import Slots
from ablate.plan.imagine import Imagination, Imaginations, imagine
from ablate.plan.options import PlanOptions, check_fits, per_step, window_cap

BYTES = 1 << 28
UNLIKELY = 1e4  # taken off a score for each nat that a sequence is too unlikely
ActionValue = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Plan:
    """The best sequence of each episode.

    Attributes:
        rows: (E, H, D) raw imagined rows; row 0 holds the present observation as given, then the first action.
        symbols: (E, H, D) the same as bins where the head is discrete (N: the stop token, which `rows` reads as
            the last bin, as released); the slots of the present observation are unset.
        score: (E,) its value: discounted imagined rewards and final value, or log-probability.
        gained: (E,) of that the imagined rewards; not a number where the search is for likelihood.
        positions: token positions that were computed, for all episodes together.
    """

    rows: Tensor
    symbols: Tensor
    score: Tensor
    gained: Tensor
    positions: int

    def actions(self, observation_dim: int, action_dim: int) -> Tensor:
        """(E, H, M)."""
        return self.rows[..., observation_dim : observation_dim + action_dim]


@torch.no_grad()
def search(
    model: Model | Nets,
    context: Tensor,
    observation: Tensor,
    options: PlanOptions,
    noise: Tensor | None = None,
    prefix: Tensor | None = None,
    value: ActionValue | None = None,
) -> Plan:
    """Plan for E episodes at once.

    context: executed rows (E, L, D), raw, of which the last `options.executed` are looked at; observation:
    (E, N); prefix: (E, P) for a model with one. noise: uniform numbers in [0, 1), (E, H, beam * n_expand,
    D), for a search on return: entry [e, h, c * beam + b, i] draws slot i of imagined step h in the c-th
    continuation of the b-th best sequence (observations: c = 0). value: Q(observations (E, r, N), actions
    (E, r, M), imagined step) -> (E, r), raw, had apart; replaces the value tokens: a sequence is worth its rewards
    before step t and Q of step t.

    Episodes are planned in batches whose keys and values fill about `BYTES`; plans don't depend on that.

    Raises UserError where the model can't be searched so.
    """
    check_fits(model.spec, options)
    model.eval()
    context = context[:, max(0, context.shape[1] - options.executed) :]
    size = max(1, BYTES // _bytes_of(model, options))
    plans = []
    for start in range(0, len(observation), size):
        part = slice(start, start + size)
        plans.append(
            _search(
                model,
                context[part],
                observation[part],
                options,
                None if noise is None else noise[part],
                None if prefix is None else prefix[part],
                value,
            )
        )
    if len(plans) == 1:
        return plans[0]
    return Plan(
        torch.cat([plan.rows for plan in plans]),
        torch.cat([plan.symbols for plan in plans]),
        torch.cat([plan.score for plan in plans]),
        torch.cat([plan.gained for plan in plans]),
        sum(plan.positions for plan in plans),
    )


def _bytes_of(model: Model | Nets, options: PlanOptions) -> int:
    """Keys and values of one episode's search at its end, twice: they are copied as sequences are chosen."""
    spec = model.spec
    cap = window_cap(spec, options)
    tokens = options.horizon * per_step(spec) if cap is None else cap
    each = 2 * spec.nets * spec.layers * spec.width * model.head.mean.element_size()
    return 2 * options.beam * tokens * each


def _search(
    model: Model | Nets,
    context: Tensor,
    observation: Tensor,
    options: PlanOptions,
    noise: Tensor | None,
    prefix: Tensor | None,
    value: ActionValue | None,
) -> Plan:
    imagination = imagine(model, context, observation, window_cap(model.spec, options), prefix)
    if options.objective == "likelihood":
        score = _by_likelihood(imagination, options)
        gained = torch.full_like(score, torch.nan)
    else:
        if noise is None:
            raise ValueError("search: only a search for likelihood does without noise.")
        score, gained = _by_return(imagination, observation, options, noise, value)
    best = imagination.imagined[:, 0]  # (E, M + 2 + (H-1) D)
    spec = model.spec
    whole = best.new_zeros(len(best), options.horizon * spec.slots)
    whole[:, spec.observation_dim :] = best
    symbols = whole.view(len(best), options.horizon, spec.slots)
    rows = imagination.raw(symbols).clone()
    rows[:, 0, : spec.observation_dim] = observation
    return Plan(rows, symbols, score, gained, imagination.positions)


def _by_return(
    imagination: Imagination | Imaginations,
    observation: Tensor,
    options: PlanOptions,
    noise: Tensor,
    value: ActionValue | None,
) -> tuple[Tensor, Tensor]:
    """Leaves the best sequence of each episode first; returns its score and its imagined rewards (E,)."""
    spec = imagination.spec
    episodes, n, slots = imagination.episodes, spec.observation_dim, spec.slots
    beams, expand = options.beam, options.n_expand
    gained = observation.new_zeros(episodes, 1)  # discounted rewards so far
    state = observation[:, None]  # (E, r, N)
    score = gained
    likely = gained  # log-probability of the actions so far
    for step in range(options.horizon):
        uniform = (
            noise[:, step].view(episodes, expand, beams, slots).transpose(1, 2)
        )  # (E, b, c, D)
        # At first all sequences are the same one: it gets every continuation.
        uniform = uniform.reshape(episodes, beams * expand, slots)
        children = expand if imagination.rows == beams else beams * expand
        params = imagination.parameters()  # once for all continuations
        params = params.repeat_interleave(children, 1)
        imagination.branch(children)
        gained = gained.repeat_interleave(children, 1)
        state = state.repeat_interleave(children, 1)
        likely = likely.repeat_interleave(children, 1)
        acted = []
        for slot in range(n, slots - 2):
            if slot > n:
                params = imagination.parameters()
            symbols = proposed(imagination.heads, params, slot, uniform[..., slot], options)
            if options.least_likely is not None:
                told = imagination.heads.log_probs(params, slot)
                likely = likely + told.gather(-1, symbols[..., None])[..., 0]
            imagination.push(symbols)
            acted.append(symbols)
        action = imagination.raw(torch.stack(acted, -1), n)
        read = []
        for slot in (slots - 2, slots - 1):
            params = imagination.parameters()
            read.append(_read(imagination, params, slot, options))
            symbols = imagination.heads.draw(
                params, slot, uniform[..., slot], options.k_rew, options.cdf_rew
            )
            imagination.push(symbols)
        reward, after = read
        factor = options.discount**step
        if value is not None:
            score = gained + factor * value(state, action, step)
        elif options.objective == "return":
            score = gained + factor * reward + factor * options.discount * after
        elif options.objective == "rewards":
            score = gained + factor * reward
        else:
            score = factor * options.discount * after
        gained = gained + factor * reward
        index = _ranked(score, likely, step, options).topk(beams, dim=1).indices
        imagination.select(index)
        score, gained, likely = (each.gather(1, index) for each in (score, gained, likely))
        if step == options.horizon - 1:
            break
        seen = []
        for slot in range(n):
            params = imagination.parameters()
            drawn = noise[:, step, :beams, slot]
            symbols = imagination.heads.draw(params, slot, drawn, options.k_obs, options.cdf_obs)
            imagination.push(symbols)
            seen.append(symbols)
        state = imagination.raw(torch.stack(seen, -1))
    return score[:, 0], gained[:, 0]


def proposed(
    heads: Slots, params: Tensor, slot: int, noise: Tensor, options: PlanOptions
) -> Tensor:
    """Symbols (...,) of an action slot at uniform noise (...,) in [0, 1), as the options propose them."""
    if options.proposals == "model":
        return heads.draw(
            params, slot, noise, options.k_act, options.cdf_act, temperature=options.temperature
        )
    raw = 2.0 * noise - 1.0
    if options.proposals == "inflated":
        normal = math.sqrt(2.0) * torch.erfinv(raw.clamp(-0.999999, 0.999999))
        raw = heads.expected(params, slot) + options.spread * heads.std[slot] * normal
    return heads.symbols(raw.clamp(-1.0, 1.0)[..., None], slot)[..., 0]


def _ranked(score: Tensor, likely: Tensor, step: int, options: PlanOptions) -> Tensor:
    """By what sequences are kept, (E, r): their score, less what they are too unlikely."""
    if options.least_likely is None:
        return score
    wanted = (step + 1) * math.log(options.least_likely)
    return score + UNLIKELY * (likely - wanted).clamp(max=0.0)


def _read(
    imagination: Imagination | Imaginations, params: Tensor, slot: int, options: PlanOptions
) -> Tensor:
    if options.percentile == "mean":
        return imagination.heads.expected(params, slot)
    return imagination.heads.percentile(params, slot, float(options.percentile))


def _by_likelihood(imagination: Imagination | Imaginations, options: PlanOptions) -> Tensor:
    """Leaves the most probable sequence of each episode first; returns its log-probability (E,)."""
    spec = imagination.spec
    total = imagination.feature.new_zeros(imagination.episodes, 1)
    for _ in range(options.horizon * spec.slots - spec.observation_dim):
        log_probs = total[..., None] + imagination.log_probabilities()  # (E, r, N+1)
        # at first also impossible ones, at -inf, which possible ones drive out
        count = min(options.beam, log_probs[0].numel())
        total, index = log_probs.flatten(1).topk(count, dim=1)
        imagination.select(index // log_probs.shape[-1])
        imagination.push(index % log_probs.shape[-1])
    return total[:, 0]
