"""Imagined continuations of what happened, slot by slot, with everything shared that sequences have in common.

What is drawn for a slot is its *symbol*: a bin (a discrete head) or a raw number. What the model reads back is the
slot's *entry*: a bin or a standardised number, whichever its input takes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ablate.models.attention import Turn
from ablate.models.trajectory import COMPONENTS, TrajectoryModel, bounded
from ablate.plan.cache import Cache
from ablate.plan.options import cropped

VALUE_PLACEHOLDER = 1e6  # the value of an executed timestep, which isn't known; as released


class Imagination:
    """E episodes with r imagined sequences each, all at the same slot.

    Args:
        model: in evaluation mode.
        context: executed rows (E, L, D), raw; their values are ignored.
        observation: the present one (E, N), raw.
        cap: most tokens that the model looks at (see `ablate.plan.options.window_cap`), None for all.
        goal: raw goals (E, G) for a model with a goal; always seen, never cropped.

    Attributes:
        rows: r. imagined: symbols drawn so far (E, r, S), from the first action on.
    """

    def __init__(
        self,
        model: TrajectoryModel,
        context: Tensor,
        observation: Tensor,
        cap: int | None,
        goal: Tensor | None = None,
    ) -> None:
        self.model, self.spec, self.cap = model, model.spec, cap
        episodes, length, slots = context.shape
        self.episodes, self.rows = episodes, 1
        self.ahead = 0
        self.goal = None
        if goal is not None:
            self.goal = model.goal_tokens(model.encode_goal(goal))
            self.ahead = self.goal.shape[1]
        raw = torch.cat([context, context.new_zeros(episodes, 1, slots)], dim=1)
        raw[:, :, -1] = VALUE_PLACEHOLDER
        raw[:, -1, : self.spec.observation_dim] = observation
        entries = model.encode(raw).flatten(1)
        told = length * slots + self.spec.observation_dim
        self.entries = entries[:, None, :told]  # (E, r, S')
        self.told = told  # slots
        self.tokens = length * self.spec.per_step + self.spec.observation_tokens
        dtype = torch.long if self.spec.discrete else raw.dtype
        self.imagined = torch.zeros(episodes, 1, 0, dtype=dtype, device=raw.device)
        self.start_slot = told
        self.crop = cropped(self.tokens, cap, self.spec.per_step)
        self.spent = 0  # token positions
        self.cache = Cache(model, episodes)
        self.feature = self._encode_window()  # (E r, W): of the token that predicts the next slot
        self.settled = True
        self.within = self.feature  # what was told inside a token, and
        self.weights = self.feature  # a mixture's weights given it: both set as a token begins
        self.pieces: list[Tensor] = []  # entries (E, r, 1) of the token that is being told
        self._begin_token()

    # what comes next

    @property
    def slot(self) -> int:
        """The next slot to be told, 0 .. D-1."""
        return self.told % self.spec.slots

    @property
    def positions(self) -> int:
        """Token positions computed so far."""
        return self.spent + self.cache.positions

    def parameters(self) -> Tensor:
        """Head parameters (E, r, P) of the next slot."""
        self.settle()
        feature = self.feature
        if self.spec.head == "autoregressive":
            feature = self.model.within_step(feature, self.within)
        params = self.model.slot_parameters(feature, self.slot)
        if self.spec.head == "mixture":
            params = torch.cat([params[..., :-COMPONENTS], self.weights], -1)
        return params.view(self.episodes, self.rows, -1)

    def log_probabilities(self) -> Tensor:
        """Log-probabilities (E, r, N+1) of the next slot's bins and of stopping."""
        return self.model.log_probabilities(self.parameters(), self.slot)

    def push(self, symbols: Tensor) -> None:
        """Tell the next slot: symbols (E, r)."""
        self.settle()  # earlier tokens, whose features the telling needs
        slot, rows = self.slot, self.episodes * self.rows
        if self.spec.head == "autoregressive":
            index = self.model._rows_of(symbols.reshape(rows, 1), slot)
            self.within = self.within + self.model.within(index).squeeze(1)
        if self.spec.head == "mixture":
            self.weights = self.weights + self._component_densities(symbols.reshape(rows))
        entry = self._entry(symbols, slot)[..., None]
        self.entries = torch.cat([self.entries, entry], -1)
        self.imagined = torch.cat([self.imagined, symbols[..., None]], -1)
        self.pieces.append(entry)
        self.told += 1
        if len(self.pieces) == len(self.slots):
            self.settled = False  # computed when first needed, on what rows are left then

    def tell(self, values: Tensor) -> None:
        """Tell what happened in the next slots: raw values (E, c), the same in all sequences of an episode."""
        for number in range(values.shape[1]):
            slot = self.slot
            value = values[:, number : number + 1].expand(-1, self.rows)
            symbols = value
            if self.spec.discrete:
                assert self.model.discretiser is not None
                symbols = self.model.discretiser.encode(value[..., None], slot)[..., 0]
            self.push(symbols)
            if self.spec.discrete and self.spec.input == "continuous":  # as it was, not as its bin
                exact = ((value - self.model.mean[slot]) / self.model.std[slot])[..., None]
                self.entries[..., -1:] = exact
                if self.pieces:
                    self.pieces[-1] = exact

    def settle(self) -> None:
        """Pass a token whose slots have all been told through the model."""
        if self.settled:
            return
        self.settled = True
        self.tokens += 1
        crop = cropped(self.tokens, self.cap, self.spec.per_step)
        if crop > self.crop:
            self.crop = crop
            self.spent += self.cache.positions
            self.cache = Cache(self.model, self.episodes)
            self.feature = self._encode_window()
        else:
            entries = torch.cat(self.pieces, -1).flatten(0, 1)  # (E r, g)
            x = self.model.embed_token(self.token, entries)[:, None]
            at = self.tokens - 1 - self.crop * self.spec.per_step
            positions = torch.tensor([at], device=x.device)
            where = "tail" if self.cache.tail is not None else "body"
            self.feature = self.cache.extend(
                self._placed(x, positions), self._turn(positions), self._kept(positions), where
            )[:, 0]
        self._begin_token()

    # which sequences there are

    def branch(self, children: int) -> None:
        """Every sequence becomes `children` neighbours, to be continued differently."""
        self.settle()
        self.cache.branch(children, 2 * self.spec.per_step)
        self._index(lambda x: x.repeat_interleave(children, 0))
        self.entries = self.entries.repeat_interleave(children, 1)
        self.imagined = self.imagined.repeat_interleave(children, 1)
        self.pieces = [piece.repeat_interleave(children, 1) for piece in self.pieces]
        self.rows *= children

    def select(self, index: Tensor) -> None:
        """Keep the sequences `index` (E, r'), each episode's own, in that order."""
        if self.rows == index.shape[1] and self.cache.tail is None:
            same = torch.arange(self.rows, device=index.device)
            if bool((index == same).all()):
                return
        episodes = torch.arange(self.episodes, device=index.device)[:, None]
        flat = (episodes * self.rows + index).flatten()
        anew = (
            not self.settled and cropped(self.tokens + 1, self.cap, self.spec.per_step) > self.crop
        )
        if not anew:  # else the window is about to be encoded again
            self.cache.select(index, 2 * self.spec.per_step)
        self._index(lambda x: x.index_select(0, flat))
        self.entries = self._picked(self.entries, index)
        self.imagined = self._picked(self.imagined, index)
        self.pieces = [self._picked(piece, index) for piece in self.pieces]
        self.rows = index.shape[1]
        if not anew:
            self._share_common()

    def _picked(self, values: Tensor, index: Tensor) -> Tensor:
        return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))

    def _index(self, pick) -> None:  # type: ignore[no-untyped-def]
        self.feature = pick(self.feature)
        if self.spec.head == "autoregressive":
            self.within = pick(self.within)
        if self.spec.head == "mixture":
            self.weights = pick(self.weights)

    def _share_common(self) -> None:
        """Timesteps that all sequences of an episode have in common are kept once."""
        if not self.cache.body.used or self.spec.layout == "step":
            return
        slots, per_step = self.spec.slots, self.spec.per_step
        agreed = (self.entries == self.entries[:, :1]).all(1).all(0).long().cumprod(0).sum()
        stored = int(agreed) // slots - self.crop  # whole timesteps of the window that all agree on
        each = per_step - 1 if self.spec.value_mask else per_step
        common = stored * each + self.ahead - self.cache.shared.used
        # the timestep that is being told is settled token by token: only whole ones are moved
        complete = (
            ((self.tokens // per_step) - self.crop) * each + self.ahead - self.cache.shared.used
        )
        common = min(common, complete, self.cache.body.used)
        if common > 0:
            self.cache.share(common)

    # windows

    def _encode_window(self) -> Tensor:
        """Encode the window anew: the feature (E r, W) of its last token."""
        spec, model = self.spec, self.model
        rows, slots = self.episodes * self.rows, spec.slots
        window = self.entries.flatten(0, 1)[:, self.crop * slots :]  # (E r, S)
        whole = -(-window.shape[1] // slots)
        padded = window.new_zeros(rows, whole * slots)
        padded[:, : window.shape[1]] = window
        count = self.tokens - self.crop * spec.per_step
        common = count
        if self.rows > 1:
            agreed = (self.entries == self.entries[:, :1]).all(1).all(0)[self.crop * slots :]
            common = min(count, self._tokens_in(int(agreed.long().cumprod(0).sum())))
        firsts = torch.arange(0, rows, self.rows, device=window.device)
        cache = self.cache
        feature: Tensor | None = None
        if self.goal is not None:
            positions = torch.arange(-self.ahead, 0, device=window.device)
            cache.extend(
                self.goal,
                self._turn(positions),
                torch.ones_like(positions, dtype=torch.bool),
                "shared",
            )
        if common:
            tokens = model.embed_rows(padded[firsts].view(self.episodes, whole, slots))[:, :common]
            feature = self._pass(tokens, 0, common, count, "shared")
            if common == count:
                self._adopt(
                    torch.zeros(self.episodes, self.rows, dtype=torch.long, device=window.device)
                )
                return feature.repeat_interleave(self.rows, 0)
        # What differs, timestep by timestep: sequences that agree so far are one node.
        node = torch.zeros(self.episodes, self.rows, dtype=torch.long, device=window.device)
        begin = common
        per_episode = window.view(self.episodes, self.rows, -1)
        while begin < count:
            end = min(count, (begin // spec.per_step + 1) * spec.per_step)
            seen = min(self._slots_in(end), window.shape[1])
            since = self._slots_in(begin) if begin else 0
            fresh, parent, first = distinct(node, per_episode[..., since:seen])
            nodes = parent.shape[1]
            cache.select(parent, end - begin)  # one cached row a node
            chosen = self._picked(padded.view(self.episodes, self.rows, -1), first)
            tokens = model.embed_rows(chosen.view(self.episodes * nodes, whole, slots))[
                :, begin:end
            ]
            feature = self._pass(tokens, begin, end, count, "body")
            node, begin = fresh, end
        self._adopt(node)
        assert feature is not None
        nodes = feature.shape[0] // self.episodes
        flat = torch.arange(self.episodes, device=node.device)[:, None] * nodes + node
        return feature.index_select(0, flat.flatten())

    def _pass(self, tokens: Tensor, begin: int, end: int, count: int, where: str) -> Tensor:
        """Tokens begin .. end-1 of the window through the model; value tokens but the last are never read."""
        positions = torch.arange(begin, end, device=tokens.device)
        kept = self._kept(positions)
        needed = kept | (positions == count - 1)
        if not bool(needed.all()):
            tokens, positions, kept = tokens[:, needed], positions[needed], kept[needed]
        if not len(positions):
            return tokens.new_zeros(tokens.shape[0], self.spec.width)
        x = self._placed(tokens, positions)
        return self.cache.extend(x, self._turn(positions), kept, where)[:, -1]

    def _adopt(self, node: Tensor) -> None:
        """Give every sequence its own copy of its node's body."""
        self.cache.select(node, 2 * self.spec.per_step)

    def _tokens_in(self, slots: int) -> int:
        """How many tokens the first `slots` slots of a window fill."""
        observation = self.spec.observation_dim
        if self.spec.layout == "step":
            return (slots - observation) // self.spec.slots + 1 if slots >= observation else 0
        whole, rest = divmod(slots, self.spec.slots)
        ends = torch.bincount(self.model.group).cumsum(0)
        return whole * self.spec.per_step + int((ends <= rest).sum())

    def _slots_in(self, tokens: int) -> int:
        """How many slots so many tokens of a window hold."""
        if self.spec.layout == "step":
            return (tokens - 1) * self.spec.slots + self.spec.observation_dim
        whole, rest = divmod(tokens, self.spec.per_step)
        return whole * self.spec.slots + int((self.model.group < rest).sum())

    def _placed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.model.positions[positions] if self.spec.positions == "learned" else x

    def _turn(self, positions: Tensor) -> Turn | None:
        return self.model.turn(positions + self.ahead)

    def _kept(self, positions: Tensor) -> Tensor:
        if self.spec.value_mask and self.spec.layout != "step":
            return positions % self.spec.per_step != self.spec.per_step - 1
        return torch.ones_like(positions, dtype=torch.bool)

    # one token

    def _begin_token(self) -> None:
        rows, width = self.episodes * self.rows, self.spec.width
        self.token = 0 if self.spec.layout == "step" else self.tokens % self.spec.per_step
        self.slots = self.model.slots_of(self.token)
        self.pieces = []
        if self.spec.head == "autoregressive":
            self.within = self.feature.new_zeros(rows, width)
        if self.spec.head == "mixture":
            logits = torch.nn.functional.linear(self.feature, self.model.weights[self.token])
            self.weights = logits.log_softmax(
                -1
            )  # of the components, given what was told of the token

    def _component_densities(self, values: Tensor) -> Tensor:
        """Log-density (E r, C) of raw values (E r,) of the next slot under each component."""
        params = self.model.slot_parameters(self.feature, self.slot)
        means, scales, _ = params.split([COMPONENTS] * 3, -1)
        log_std = bounded(scales)
        z = ((values - self.model.mean[self.slot]) / self.model.std[self.slot])[:, None]
        return -0.5 * ((z - means) * (-log_std).exp()).square() - log_std

    def _entry(self, symbols: Tensor, slot: int) -> Tensor:
        """What the model reads of symbols (E, r)."""
        model = self.model
        if self.spec.discrete and self.spec.input == "discretised":
            return symbols
        if self.spec.discrete:
            assert model.discretiser is not None
            values = model.discretiser.decode(symbols[..., None], slot)[..., 0]
            return (values - model.mean[slot]) / model.std[slot]
        if self.spec.input == "discretised":
            assert model.discretiser is not None
            return model.discretiser.encode(symbols[..., None], slot)[..., 0]
        return (symbols - model.mean[slot]) / model.std[slot]

    def raw(self, symbols: Tensor, first: int = 0) -> Tensor:
        """Raw values (..., c) of symbols (..., c) of the slots first .. first+c-1."""
        if not self.spec.discrete:
            return symbols
        assert self.model.discretiser is not None
        return self.model.discretiser.decode(symbols, first)

    def expected(self, params: Tensor, slot: int) -> Tensor:
        """Expected raw value (E, r) of a slot; what stopping has counts as zero, as released."""
        model = self.model
        if self.spec.discrete:
            assert model.discretiser is not None
            return model.discretiser.expectation(self._bin_probabilities(params, slot), slot)
        if self.spec.head == "mixture":
            means, _, logits = params.split([COMPONENTS] * 3, -1)
            value = (logits.softmax(-1) * means).sum(-1)
        else:
            value = params[..., 0]
        return value * model.std[slot] + model.mean[slot]

    def percentile(self, params: Tensor, slot: int, level: float) -> Tensor:
        """Percentile (E, r) of a slot's bins."""
        assert self.model.discretiser is not None
        probabilities = self._bin_probabilities(params, slot)
        return self.model.discretiser.percentile(probabilities, level, slot)

    def _bin_probabilities(self, params: Tensor, slot: int) -> Tensor:
        return self.model.log_probabilities(params, slot)[..., :-1].exp()

    def draw(
        self, params: Tensor, slot: int, noise: Tensor, k: int | None, share: float | None
    ) -> Tensor:
        """Symbols (E, r) from head parameters by inverse CDF at noise (E, r) in [0, 1).

        k: among the k most likely bins (1: the most likely); share: without the least likely bins that hold
        that much. A continuous head takes its mean (a mixture: of its heaviest component) where k is 1, and
        is drawn from as it is otherwise.
        """
        if self.spec.discrete:
            return draw_bin(self.model.log_probabilities(params, slot), noise, k, share)
        if self.spec.head == "mixture":
            means, scales, logits = params.split([COMPONENTS] * 3, -1)
            weights = logits.softmax(-1)
            below = weights.cumsum(-1)
            index = (noise[..., None] >= below).sum(-1).clamp(max=COMPONENTS - 1)[..., None]
            if k == 1:
                index = weights.argmax(-1, keepdim=True)
            share_of = weights.gather(-1, index)
            noise = ((noise[..., None] - below.gather(-1, index) + share_of) / share_of)[..., 0]
            mean, scale = (part.gather(-1, index)[..., 0] for part in (means, scales))
        else:
            mean = params[..., 0]
            scale = params[..., 1] if self.spec.head == "gaussian" else torch.zeros_like(mean)
        if k != 1 and self.spec.head != "mse":
            z = math.sqrt(2.0) * torch.erfinv((2.0 * noise - 1.0).clamp(-0.999999, 0.999999))
            mean = mean + bounded(scale).exp() * z
        return mean * self.model.std[slot] + self.model.mean[slot]


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


def distinct(parent: Tensor, content: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which sequences of an episode are equal: parent (E, r) and content (E, r, c) both.

    Returns, for u the most distinct ones in any episode: each sequence's node (E, r) in 0 .. u-1; each node's
    parent (E, u); and a sequence that is it (E, u). Episodes with fewer nodes repeat their last one.
    """
    episodes, rows = parent.shape
    number = torch.arange(episodes, device=parent.device)[:, None].expand(-1, rows)
    keys = torch.cat([number[..., None].to(content), parent[..., None].to(content), content], -1)
    _, inverse = keys.flatten(0, 1).unique(dim=0, return_inverse=True)  # sorted by episode first
    inverse = inverse.view(episodes, rows)
    begins = inverse.amin(1, keepdim=True)
    node = inverse - begins
    most = int(node.max()) + 1
    first = torch.zeros(episodes, most, dtype=torch.long, device=parent.device)
    place = torch.arange(rows, device=parent.device).flip(0).expand(episodes, -1)
    first.scatter_(1, node.flip(1), place)
    last = node.amax(1, keepdim=True)
    first = first.gather(
        1, torch.arange(most, device=node.device).expand(episodes, -1).minimum(last)
    )
    return node, parent.gather(1, first), first
