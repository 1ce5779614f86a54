"""Imagined continuations of what happened, slot by slot, with everything shared that sequences have in common.

What is drawn for a slot is its *symbol*: a bin (a head with bins) or a raw number. What the model reads back is the
slot's *entry*: a bin or a standardised number, whichever its input takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.models.assembly import Model
from ablate.models.nets import Nets
from ablate.models.slots import Slots
from ablate.plan.cache import carrier, places_on
from ablate.plan.options import cropped, observation_tokens

VALUE_PLACEHOLDER = 1e6  # the value of an executed timestep, which isn't known; as released


def looks(device: torch.device) -> bool:
    """Whether the host looks at what was drawn, to compute once what sequences have in common.

    On an accelerator that would make it wait, which costs more than computing everything for each.
    """
    return device.type == "cpu"


class Imagination:
    """E episodes with r imagined sequences each, all at the same slot.

    Args:
        model: in evaluation mode.
        context: executed rows (E, L, D), raw; their values are ignored.
        observation: the present one (E, N), raw.
        cap: most tokens that the model looks at (see `ablate.plan.options.window_cap`), None for all.
        prefix: what a model with a prefix is told first, raw (E, P); always seen, never cropped.

    Attributes:
        rows: r. imagined: symbols drawn so far (E, r, S), from the first action on.
    """

    def __init__(
        self,
        model: Model,
        context: Tensor,
        observation: Tensor,
        cap: int | None,
        prefix: Tensor | None = None,
    ) -> None:
        self.model, self.spec, self.cap = model, model.spec, cap
        self.looks = looks(observation.device)
        self.heads: Slots = model.head
        self.per_step = len(self.heads.stream)
        episodes, length, slots = context.shape
        self.episodes, self.rows = episodes, 1
        self.prefix = None if prefix is None else model.prefix(prefix)
        self.ahead = model.ahead
        raw = torch.cat([context, context.new_zeros(episodes, 1, slots)], dim=1)
        raw[:, :, -1] = VALUE_PLACEHOLDER
        raw[:, -1, : self.spec.observation_dim] = observation
        entries = model.encode(raw).flatten(1)
        told = length * slots + self.spec.observation_dim
        self.entries = entries[:, None, :told]  # (E, r, S')
        self.told = told  # slots
        self.tokens = length * self.per_step + observation_tokens(self.spec)
        dtype = torch.long if self.heads.binned else raw.dtype
        self.imagined = torch.zeros(episodes, 1, 0, dtype=dtype, device=raw.device)
        self.start_slot = told
        self.crop = cropped(self.tokens, cap, self.per_step)
        self.spent = 0  # token positions
        self.cache = carrier(model, episodes)
        self.feature = self._encode_window()  # (E r, W): of the token that predicts the next slot
        self.settled = True
        self.params: Tensor | None = None  # of the next slot's head, once asked for or told
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
        """Parameters (E, r, P) of the next slot's head, which know what was told of the token."""
        self.settle()
        head, m = self.heads.at[self.slot]
        if self.params is None or m == 0:
            self.params = self.heads.heads[head](self.feature)
        return self.params.view(self.episodes, self.rows, -1)

    def log_probabilities(self) -> Tensor:
        """Log-probabilities (E, r, N+1) of the next slot's bins and of stopping."""
        return self.heads.log_probs(self.parameters(), self.slot)

    def push(self, symbols: Tensor) -> None:
        """Tell the next slot: symbols (E, r)."""
        self.settle()  # earlier tokens, whose features the telling needs
        slot = self.slot
        head, m = self.heads.at.get(slot, (0, 0))
        if slot in self.heads.at and m + 1 < self.heads.heads[head].action_dim:
            self.params = self.heads.told(self.parameters(), slot, symbols).flatten(0, 1)
        entry = self._entry(symbols, slot)[..., None]
        self.entries = torch.cat([self.entries, entry], -1)
        self.imagined = torch.cat([self.imagined, symbols[..., None]], -1)
        self.pieces.append(entry)
        self.told += 1
        if len(self.pieces) == len(self.slots):
            self.settled = False  # computed when first needed, on what rows are left then

    def tell(self, values: Tensor) -> None:
        """Tell what happened in the next slots: raw values (E, r, c)."""
        for value in values.unbind(-1):
            slot = self.slot
            self.push(self.heads.symbols(value[..., None], slot)[..., 0])
            if self.heads.binned and self.spec.input == "continuous":  # as it was, not as its bin
                exact = ((value - self.heads.mean[slot]) / self.heads.std[slot])[..., None]
                self.entries[..., -1:] = exact
                self.pieces[-1] = exact

    def settle(self) -> None:
        """Pass a token whose slots have all been told through the model."""
        if self.settled:
            return
        self.settled = True
        self.tokens += 1
        crop = cropped(self.tokens, self.cap, self.per_step)
        if crop > self.crop:
            self.crop = crop
            self.spent += self.cache.positions
            self.cache = carrier(self.model, self.episodes)
            self.feature = self._encode_window()
        else:
            entries = torch.cat(self.pieces, -1).flatten(0, 1)  # (E r, g)
            x = self.model.token(self.token, self._row(entries))[:, None]
            at = self.ahead + self.tokens - 1 - self.crop * self.per_step
            where = "tail" if self.cache.tail is not None else "body"
            self.feature = self.cache.extend(x, torch.tensor([at]), where)[:, 0]
        self._begin_token()

    # which sequences there are

    def branch(self, children: int) -> None:
        """Every sequence becomes `children` neighbours, to be continued differently."""
        self.settle()
        self.cache.branch(children, 2 * self.per_step)
        self._index(lambda x: x.repeat_interleave(children, 0))
        self.entries = self.entries.repeat_interleave(children, 1)
        self.imagined = self.imagined.repeat_interleave(children, 1)
        self.pieces = [piece.repeat_interleave(children, 1) for piece in self.pieces]
        self.rows *= children

    def select(self, index: Tensor) -> None:
        """Keep the sequences `index` (E, r'), each episode's own, in that order."""
        if self.rows == index.shape[1] == 1 and self.cache.tail is None:
            return
        episodes = torch.arange(self.episodes, device=index.device)[:, None]
        flat = (episodes * self.rows + index).flatten()
        anew = not self.settled and cropped(self.tokens + 1, self.cap, self.per_step) > self.crop
        if not anew:  # else the window is about to be encoded again
            self.cache.select(index, 2 * self.per_step)
        self._index(lambda x: x.index_select(0, flat))
        self.entries = self._picked(self.entries, index)
        self.imagined = self._picked(self.imagined, index)
        self.pieces = [self._picked(piece, index) for piece in self.pieces]
        self.rows = index.shape[1]
        if not anew:
            self._share_common()

    def _picked(self, values: Tensor, index: Tensor) -> Tensor:
        return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))

    def _index(self, pick: Callable[[Tensor], Tensor]) -> None:
        self.feature = pick(self.feature)
        self.params = None if self.params is None else pick(self.params)

    def _share_common(self) -> None:
        """Timesteps that all sequences of an episode have in common are kept once."""
        if not self.looks or not self.cache.sharable or self.per_step == 1:
            return
        slots, per_step = self.spec.slots, self.per_step
        agreed = (self.entries == self.entries[:, :1]).all(1).all(0).long().cumprod(0).sum()
        stored = int(agreed) // slots - self.crop  # whole timesteps of the window that all agree on
        # the timestep that is being told is settled token by token: only whole ones are moved
        whole = min(stored, self.tokens // per_step - self.crop)
        places = torch.arange(self.ahead + max(0, whole) * per_step)
        common = int(self.cache.reads(places).sum()) - self.cache.shared_keys
        common = min(common, self.cache.sharable)
        if common > 0:
            self.cache.share(common)

    # windows

    def _encode_window(self) -> Tensor:
        """Encode the window anew: the feature (E r, W) of its last token."""
        rows, slots = self.episodes * self.rows, self.spec.slots
        window = self.entries.flatten(0, 1)[:, self.crop * slots :]  # (E r, S)
        whole = -(-window.shape[1] // slots)
        padded = window.new_zeros(rows, whole * slots)
        padded[:, : window.shape[1]] = window
        count = self.tokens - self.crop * self.per_step
        common = count if self.rows == 1 else 0
        if self.rows > 1 and self.looks:
            agreed = (self.entries == self.entries[:, :1]).all(1).all(0)[self.crop * slots :]
            common = min(count, self._tokens_in(int(agreed.long().cumprod(0).sum())))
        firsts = torch.arange(0, rows, self.rows, device=window.device)
        cache = self.cache
        feature: Tensor | None = None
        if self.prefix is not None:
            cache.extend(self.prefix, torch.arange(self.ahead), "shared")
        if common:
            tokens = self._tokens(padded[firsts], common)
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
            end = count
            fresh = first = torch.arange(self.rows, device=node.device).expand_as(node)
            parent = node
            if self.looks:
                end = min(count, (begin // self.per_step + 1) * self.per_step)
                seen = min(self._slots_in(end), window.shape[1])
                since = self._slots_in(begin) if begin else 0
                fresh, parent, first = distinct(node, per_episode[..., since:seen])
            nodes = parent.shape[1]
            cache.select(parent, end - begin)  # one cached row a node
            chosen = self._picked(padded.view(self.episodes, self.rows, -1), first)
            tokens = self._tokens(chosen.flatten(0, 1), end)[:, begin:]
            feature = self._pass(tokens, begin, end, count, "body")
            node, begin = fresh, end
        self._adopt(node)
        assert feature is not None
        nodes = feature.shape[0] // self.episodes
        flat = torch.arange(self.episodes, device=node.device)[:, None] * nodes + node
        return feature.index_select(0, flat.flatten())

    def _tokens(self, entries: Tensor, count: int) -> Tensor:
        """The first `count` tokens (R, count, W) of encoded slots (R, L D), one row of zeros behind them."""
        rows = entries.unflatten(1, (-1, self.spec.slots))
        more = torch.zeros_like(rows[:, :1])
        return self.model.tokens(torch.cat([rows, more], 1))[:, :count]

    def _pass(self, tokens: Tensor, begin: int, end: int, count: int, where: str) -> Tensor:
        """Tokens begin .. end-1 of the window through the model; those that nobody reads only where they are last."""
        positions = self.ahead + torch.arange(begin, end)
        needed = self.cache.reads(positions) | (positions == self.ahead + count - 1)
        if not bool(needed.all()):
            places = places_on(torch.nonzero(needed).flatten(), tokens.device)
            tokens, positions = tokens[:, places], positions[needed]
        if not len(positions):
            return tokens.new_zeros(tokens.shape[0], self.spec.width)
        return self.cache.extend(tokens, positions, where)[:, -1]

    def _adopt(self, node: Tensor) -> None:
        """Give every sequence its own copy of its node's body."""
        self.cache.select(node, 2 * self.per_step)

    def _tokens_in(self, slots: int) -> int:
        """How many tokens the first `slots` slots of a window fill."""
        if self.per_step == 1:
            observation = self.spec.observation_dim
            return (slots - observation) // self.spec.slots + 1 if slots >= observation else 0
        whole, rest = divmod(slots, self.spec.slots)
        ends = [held[-1] + 1 for held in self.heads.stream]
        return whole * self.per_step + sum(end <= rest for end in ends)

    def _slots_in(self, tokens: int) -> int:
        """How many slots so many tokens of a window hold."""
        if self.per_step == 1:
            return (tokens - 1) * self.spec.slots + self.spec.observation_dim
        whole, rest = divmod(tokens, self.per_step)
        return whole * self.spec.slots + sum(len(held) for held in self.heads.stream[:rest])

    # one token

    def _begin_token(self) -> None:
        self.token = self.tokens % self.per_step
        self.slots = self.model.head.stream[self.token]
        self.pieces = []
        self.params = None

    def _row(self, entries: Tensor) -> Tensor:
        """Encoded rows (E r, D) that hold the entries (E r, g) of the token's slots."""
        # they follow one another, from the row's end to its beginning
        row = F.pad(entries, (0, self.spec.slots - entries.shape[1]))
        return row.roll(self.slots[0], -1)

    def _entry(self, symbols: Tensor, slot: int) -> Tensor:
        """What the model reads of symbols (E, r)."""
        discrete = self.spec.input == "discretised"
        if discrete and self.heads.binned:
            return symbols
        values = self.heads.raw(symbols[..., None], slot)
        if discrete:
            return self.heads.bins.encode(values, slot)[..., 0]
        entry = (values[..., 0] - self.heads.mean[slot]) / self.heads.std[slot]
        if not self.heads.binned:
            return entry
        return entry.masked_fill(symbols == self.heads.bins.bins, 0.0)  # the end, as in training

    def raw(self, symbols: Tensor, first: int = 0) -> Tensor:
        """Raw values (..., c) of symbols (..., c) of the slots first .. first+c-1."""
        return self.heads.raw(symbols, first)


class Imaginations:
    """The same imagined sequences in several nets: all are told everything, and each slot is asked of its own.

    The attributes and methods are those of `Imagination`.
    """

    def __init__(
        self,
        nets: Nets,
        context: Tensor,
        observation: Tensor,
        cap: int | None,
        prefix: Tensor | None = None,
    ) -> None:
        self.each = [Imagination(net, context, observation, cap, prefix) for net, _ in nets.parts]
        self.asked = {slot: self.each[i] for i, (_, held) in enumerate(nets.parts) for slot in held}
        self.spec, self.episodes = nets.spec, self.each[0].episodes

    @property
    def slot(self) -> int:
        return self.each[0].slot

    @property
    def heads(self) -> Slots:
        """Of the net that is asked for the next slot."""
        return self.asked[self.slot].heads

    @property
    def feature(self) -> Tensor:
        return self.asked[self.slot].feature

    @property
    def rows(self) -> int:
        return self.each[0].rows

    @property
    def imagined(self) -> Tensor:
        return self.each[0].imagined

    @property
    def positions(self) -> int:
        return sum(one.positions for one in self.each)

    def parameters(self) -> Tensor:
        return self.asked[self.slot].parameters()

    def log_probabilities(self) -> Tensor:
        return self.asked[self.slot].log_probabilities()

    def push(self, symbols: Tensor) -> None:
        for one in self.each:
            one.push(symbols)

    def tell(self, values: Tensor) -> None:
        for one in self.each:
            one.tell(values)

    def branch(self, children: int) -> None:
        for one in self.each:
            one.branch(children)

    def select(self, index: Tensor) -> None:
        for one in self.each:
            one.select(index)

    def raw(self, symbols: Tensor, first: int = 0) -> Tensor:
        return self.each[0].raw(symbols, first)


def imagine(
    model: Model | Nets,
    context: Tensor,
    observation: Tensor,
    cap: int | None,
    prefix: Tensor | None = None,
) -> Imagination | Imaginations:
    """What goes on being imagined from there by a model, of one net or of several; see `Imagination`."""
    kind: Any = Imaginations if isinstance(model, Nets) else Imagination
    made: Imagination | Imaginations = kind(model, context, observation, cap, prefix)
    return made


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
