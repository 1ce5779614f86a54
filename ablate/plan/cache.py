"""What a mixer carries of sequences that share most of their past: keys and values, or the state of `Mixer.step`.

Rows are r sequences of each of E episodes. What the model has seen is kept in three parts, each once for the rows
that share it:

    shared: one copy an episode (executed timesteps, and imagined ones that all sequences agree on);
    body: one copy for every `children` neighbouring rows (a sequence whose continuations are being compared);
    tail: what the continuations have apart, one copy a row.

Nobody attends to value tokens, so their keys are not kept. Any other mixer's state (`States`) is one a row: it
doesn't grow, so there is nothing to share.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ablate.models.assembly import Model
from ablate.models.attention import Attention, rotate
from ablate.models.mixer import State


class Room:
    """Keys and values (E, H, g, t, d) of every layer, g groups an episode, with room for more tokens.

    One tensor a layer and kind: smaller ones are given back to the allocator and taken again. Where sequences are
    picked, again and again, the memory that they leave is the next to be filled: larger pieces would be mapped anew
    each time, page by page.
    """

    def __init__(self, buffers: list[Tensor], used: int = 0) -> None:
        self.buffers = buffers  # keys and values of layer 0, then of layer 1, ...
        self.used = used
        self.held: list[Tensor | None] = [None] * len(buffers)  # memory that `pick` laid them in
        self.spare: list[Tensor | None] = [None] * len(buffers)  # and that they lay in before

    @classmethod
    def empty(cls, model: Model, episodes: int, groups: int, capacity: int) -> Room:
        """Room for `capacity` tokens in each group."""
        spec = model.spec
        shape = (episodes, spec.heads, groups, capacity, spec.width // spec.heads)
        return cls([model.head.mean.new_empty(shape) for _ in range(2 * spec.layers)])

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values (E, H, g, used, d) of a layer."""
        keys, values = self.buffers[2 * number : 2 * number + 2]
        return keys[..., : self.used, :], values[..., : self.used, :]

    def reserve(self, more: int) -> None:
        """Make room for `more` further tokens."""
        have = self.buffers[0].shape[-2]
        if self.used + more <= have:
            return
        capacity = max(2 * have, self.used + more)
        for number, old in enumerate(self.buffers):
            new = old.new_empty(*old.shape[:3], capacity, old.shape[-1])
            new[..., : self.used, :] = old[..., : self.used, :]
            self.buffers[number], self.held[number] = new, None

    def pick(self, groups: Tensor, more: int, behind: Room | None, rows: Tensor) -> None:
        """Become copies of `groups` (E, g'), each followed by the `rows` (E, g') of `behind`, with room for more."""
        extra = 0 if behind is None else behind.used
        total = self.used + extra
        for number, old in enumerate(self.buffers):
            shape = (*old.shape[:2], groups.shape[1], total + more, old.shape[-1])
            memory, needed = self.spare[number], math.prod(shape)
            if memory is None or len(memory) < needed:
                memory = old.new_empty(2 * needed)
            new = memory[:needed].view(shape)
            if self.used:
                _take(old[..., : self.used, :], groups, new[..., : self.used, :])
            if behind is not None and extra:
                later = behind.buffers[number][..., :extra, :]
                _take(later, rows, new[..., self.used : total, :])
            self.buffers[number] = new
            self.held[number], self.spare[number] = memory, self.held[number]
        self.used = total


def _take(values: Tensor, index: Tensor, into: Tensor) -> None:
    """Lay values (E, H, g, t, d) at index (E, g') of each episode's groups into (E, H, g', t, d)."""
    if len(index) == 1:
        torch.index_select(values, 2, index[0], out=into)
        return
    every = torch.arange(len(index), device=index.device)[:, None]
    into.copy_(values.transpose(1, 2)[every, index].transpose(1, 2))


def carrier(model: Model, episodes: int) -> Cache | States:
    """What carries the model's mixer from token to token."""
    mixer = model.mixer
    if isinstance(mixer, Attention) and not mixer.window:
        return Cache(model, mixer, episodes)
    return States(model, episodes)


class States:
    """The state of `Mixer.step` of `rows` sequences of each of `episodes`; the methods are those of `Cache`."""

    def __init__(self, model: Model, episodes: int) -> None:
        self.model, self.episodes, self.rows = model, episodes, 1
        self.state: State = model.mixer.start(episodes, model.head.mean)
        self.positions = 0
        self.tail = None

    def extend(self, tokens: Tensor, positions: Tensor, where: str) -> Tensor:
        rows, count = tokens.shape[:2]
        self.positions += rows * count
        features = []
        for token in tokens.unbind(1):
            mixed, self.state = self.model.mixer.step(token, self.state)
            features.append(mixed)
        return self.model.norm(torch.stack(features, 1))

    def reads(self, positions: Tensor) -> Tensor:
        """Every token changes the state."""
        return torch.ones_like(positions, dtype=torch.bool)

    def branch(self, children: int, room: int) -> None:
        self.rows *= children
        self.state = tuple(part.repeat_interleave(children, 0) for part in self.state)

    def select(self, index: Tensor, room: int) -> None:
        first = torch.arange(self.episodes, device=index.device)[:, None] * self.rows
        rows = (first + index).flatten()
        self.state = tuple(part.index_select(0, rows) for part in self.state)
        self.rows = index.shape[1]

    @property
    def sharable(self) -> int:
        """Tokens that `share` could move: none."""
        return 0

    @property
    def shared_keys(self) -> int:
        """Tokens that were moved: none."""
        return 0

    def share(self, tokens: int) -> None:
        """See `Cache.share`."""


class Cache:
    """What `rows` sequences of each of `episodes` have been told so far; grows by `extend`.

    `positions` counts the token positions computed through the transformer.
    """

    def __init__(self, model: Model, mixer: Attention, episodes: int) -> None:
        self.model, self.mixer = model, mixer
        self.episodes = episodes
        self.rows = 1  # of each episode
        self.children = 1  # rows that share a copy of the body
        self.shared = Room.empty(model, episodes, 1, 0)
        self.body = Room.empty(model, episodes, 1, 0)
        self.tail: Room | None = None
        self.positions = 0

    def reads(self, positions: Tensor) -> Tensor:
        """Which of the tokens at `positions` (n,) later ones depend on, (n,) bool."""
        return self.mixer.seen(positions)

    @property
    def sharable(self) -> int:
        """Kept keys of the body."""
        return self.body.used

    @property
    def shared_keys(self) -> int:
        """Kept keys of the shared part."""
        return self.shared.used

    @torch.no_grad()
    def extend(self, tokens: Tensor, positions: Tensor, where: str) -> Tensor:
        """Features (E r, n, W) of n further tokens (E r, n, W) of every row, at `positions` (n,), known to the host.

        where: the part that keeps them, `shared` (rows must be one an episode), `body` (rows must have no
        children) or `tail`; a model's features of the last tokens are the same wherever.
        """
        rows, count, width = tokens.shape
        self.positions += rows * count
        kept = self.reads(positions)
        stored = places_on(torch.nonzero(kept).flatten(), tokens.device)
        everything = len(stored) == count
        own = None  # which of the new keys a new token sees: a single one sees itself
        if count > 1 or not everything:
            own = stored <= torch.arange(count, device=tokens.device)[:, None]  # (n, kept)
        if self.mixer.positions is not None or self.mixer.order == "rotary":
            positions = places_on(positions, tokens.device)
        turn = self.mixer.turn(positions, tokens)
        if self.mixer.positions is not None:
            tokens = tokens + self.mixer.positions[positions]
        parts = {"shared": self.shared, "body": self.body, "tail": self.tail}
        home = parts.pop(where)
        assert home is not None
        others = [room for room in parts.values() if room is not None and room.used]
        begin = home.used
        home.reserve(len(stored))
        home.used = begin + len(stored)
        x = tokens.reshape(-1, width)
        for number, block in enumerate(self.mixer.plain):
            # (E, H, r, n, d) each: heads before rows, so that no part's scores have to be rearranged
            sides = block.project(x).view(
                self.episodes, -1, count, 3, block.heads, width // block.heads
            )
            q, k, v = sides.permute(3, 0, 4, 1, 2, 5).unbind(0)
            q, k = rotate(q, turn).contiguous(), rotate(k, turn)
            if len(stored):
                keys, values = home.layer(number)
                keys[..., begin:, :] = k if everything else k[..., stored, :]
                values[..., begin:, :] = v if everything else v[..., stored, :]
            seen = attend(q, [room.layer(number) for room in (*others, home)], begin, own)
            x = block.finish(x, seen.permute(0, 2, 3, 1, 4).reshape(-1, width))
        return self.model.norm(x.view(rows, count, width))

    def branch(self, children: int, room: int) -> None:
        """Every row becomes `children` neighbours that share what is known so far; `room` for their tails."""
        assert self.tail is None
        self.children = children
        self.rows *= children
        self.tail = Room.empty(self.model, self.episodes, self.rows, room)

    def select(self, index: Tensor, room: int) -> None:
        """Keep the rows `index` (E, r'), each episode's own, in that order; `room` for tokens to come."""
        self.body.pick(index // self.children, room, self.tail, index)
        self.rows, self.children, self.tail = index.shape[1], 1, None

    def share(self, tokens: int) -> None:
        """Move the first `tokens` kept keys of the body, equal in all rows of an episode, to the shared part."""
        self.shared.reserve(tokens)
        begin, self.shared.used = self.shared.used, self.shared.used + tokens
        for number, old in enumerate(self.body.buffers):
            self.shared.buffers[number][..., begin : begin + tokens, :] = old[:, :, :1, :tokens]
            self.body.buffers[number] = old[..., tokens:, :]
        self.body.used -= tokens


def places_on(places: Tensor, device: torch.device) -> Tensor:
    """Ascending places (n,) that the host knows, on the device, to which nothing is copied twice."""
    if places.device == device:
        return places
    known = tuple(places.tolist())
    first, last = (known[0], known[-1]) if known else (0, -1)
    if last - first + 1 == len(known):
        return torch.arange(first, last + 1, device=device)
    return _copied(known, device)


@lru_cache(maxsize=1024)
def _copied(places: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(places, device=device)


def attend(q: Tensor, parts: list[tuple[Tensor, Tensor]], begin: int, own: Tensor | None) -> Tensor:
    """Softmax attention (E, H, r, n, d) of q (E, H, r, n, d) over several parts at once.

    parts: keys and values (E, H, g, t, d), each group serving r / g neighbouring rows. Of the last part the keys
    from `begin` on are the queries' own, visible as `own` (n, t - begin) says, or all of them.
    """
    q = q * q.shape[-1] ** -0.5
    shape = q.shape[:-1]
    scores = [
        torch.bmm(_folded(q, keys.shape[2]), keys.flatten(0, 2).transpose(1, 2)).view(*shape, -1)
        for keys, _ in parts
        if keys.shape[3]
    ]
    if own is not None and own.shape[1]:
        scores[-1][..., begin:].masked_fill_(~own, float("-inf"))
    weights = (scores[0] if len(scores) == 1 else torch.cat(scores, -1)).softmax(-1)
    out: Tensor | None = None
    start = 0
    for keys, values in parts:
        length = keys.shape[3]
        if not length:
            continue
        part = weights[..., start : start + length]
        seen = torch.bmm(_folded(part, keys.shape[2]), values.flatten(0, 2)).view(*shape, -1)
        out = seen if out is None else out.add_(seen)
        start += length
    assert out is not None
    return out


def _folded(x: Tensor, groups: int) -> Tensor:
    """(E, H, r, n, t) to (E H g, r/g n, t): the rows of a group as further queries."""
    episodes, heads, rows, count, last = x.shape
    return x.view(episodes * heads * groups, rows // groups * count, last)
