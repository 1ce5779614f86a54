"""Value networks, and what every algorithm that learns them shares: pairs of windows, targets, noise.

A value network sees what the policy sees. At K = 1 that is the present row alone, and the network is the
perceptron of the published algorithms: (row, action) through dense layers to a number. With a longer context a
mixer of the policy's own kind, size and context reads the window, and its feature is one more input of the
same perceptron: what history adds to the value is that input, and nothing else changes.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.data import streams
from ablate.data.windows import BLOCK, Visibility, gather_windows
from ablate.learn.objective import Objective
from ablate.learn.transitions import Transitions
from ablate.models.assembly import build
from ablate.models.linear import linear
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack


@dataclass(frozen=True)
class View:
    """Windows as networks read them: features (S, B, K, F), lengths (S, B) and the present rows (S, B, F)."""

    features: Tensor
    lengths: Tensor

    @property
    def row(self) -> Tensor:
        """The target's own row, (S, B, F)."""
        if self.features.shape[2] == 1:
            return self.features[:, :, 0]
        index = (self.lengths - 1)[..., None, None].expand(-1, -1, 1, self.features.shape[-1])
        return self.features.gather(2, index).squeeze(2)


class Perceptrons:
    """R perceptrons of one shape: ReLU layers from inputs (R, B, I), and actions (R, B, [A,] M), to numbers.

    Weights start as `torch.nn.Linear`'s do, each perceptron's from its own generator.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        inputs: int,
        actions: int,
        width: int,
        layers: int,
    ) -> None:
        sizes = [inputs + actions, *[width] * layers, 1]
        self.weights: list[Tensor] = []
        self.biases: list[Tensor] = []
        for size, outputs in itertools.pairwise(sizes):
            bound = 1.0 / math.sqrt(size)
            for shape, made in (((outputs, size), self.weights), ((outputs,), self.biases)):
                drawn = [torch.rand(shape, generator=generator) for generator in generators]
                made.append((torch.stack(drawn) * 2.0 - 1.0) * bound)
        first = self.weights[0]
        # Apart, so that an input which many actions share is multiplied once.
        self.weights[0] = first[..., :inputs].clone()
        self.of_action = first[..., inputs:].clone() if actions else None

    @torch.no_grad()
    def make_orthogonal(self, generators: Sequence[torch.Generator]) -> None:
        """Orthogonal weights of gain sqrt(2), 0.01 in the last layer; no biases (CORL, `init_module_weights`)."""
        for layer, weight in enumerate(self.weights):
            gain = 0.01 if layer + 1 == len(self.weights) else math.sqrt(2.0)
            parts = [weight]
            if layer == 0 and self.of_action is not None:
                parts.append(self.of_action)
            inputs = sum(part.shape[-1] for part in parts)
            drawn = [
                nn.init.orthogonal_(torch.empty(weight.shape[1], inputs), gain, generator)
                for generator in generators
            ]
            whole = torch.stack(drawn).split([part.shape[-1] for part in parts], dim=-1)
            for part, values in zip(parts, whole, strict=True):
                part.copy_(values)
            self.biases[layer].zero_()

    def parameters(self) -> list[Tensor]:
        """Leaf tensors (R, ...)."""
        extra = [] if self.of_action is None else [self.of_action]
        return [*self.weights, *self.biases, *extra]

    def apply(self, function: Any) -> None:
        """Replace every parameter by `function` of it."""
        self.weights = [function(weight) for weight in self.weights]
        self.biases = [function(bias) for bias in self.biases]
        if self.of_action is not None:
            self.of_action = function(self.of_action)

    def __call__(
        self, inputs: Tensor, actions: Tensor | None, count: int, constant: bool
    ) -> Tensor:
        """Values (count, B) or (count, B, A) of the first `count` perceptrons, as constants or for training."""
        tensors = [t[:count] if count < len(t) else t for t in self.parameters()]
        if constant:
            tensors = [t.detach() for t in tensors]
        return perceptrons(tensors, inputs, actions)


def perceptrons(tensors: Sequence[Tensor], inputs: Tensor, actions: Tensor | None) -> Tensor:
    """Values (R, B) or (R, B, A) of `Perceptrons.parameters`, at inputs (R, B, I) and actions (R, B, [A,] M)."""
    if inputs.device.type != "cpu":
        return _values(tensors, inputs, actions, _batched)
    # On a CPU one after another: oneDNN multiplies two matrices twice as fast as MKL many pairs.
    own = zip(*(t.unbind(0) for t in tensors), strict=True)
    chosen = [None] * len(inputs) if actions is None else actions
    return torch.stack([_values(each, inputs[i], chosen[i], linear) for i, each in enumerate(own)])


def _values(
    tensors: Sequence[Tensor],
    inputs: Tensor,
    actions: Tensor | None,
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor],
) -> Tensor:
    """`Perceptrons.parameters` applied to inputs ([R,] B, I) and actions ([R,] B, [A,] M)."""
    depth = len(tensors) // 2
    weights, biases, of_action = tensors[:depth], tensors[depth : 2 * depth], tensors[2 * depth :]
    hidden = product(inputs, weights[0], biases[0])  # ([R,] B, D)
    shape = hidden.shape[:-1]
    if actions is not None:
        if actions.ndim > inputs.ndim:  # many actions of one input
            shape = actions.shape[:-1]
            hidden = hidden.unsqueeze(-2).expand(*shape, -1).flatten(-3, -2)
            actions = actions.flatten(-3, -2)
        hidden = hidden + product(actions, of_action[0], None)
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        hidden = product(F.relu(hidden), weight, bias)
    return hidden.view(shape)


def _batched(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` of every replica: (R, B, I), (R, O, I) and (R, O) to (R, B, O)."""
    if bias is None:
        return torch.bmm(inputs, weight.mT)
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight.mT)


class ValueNetworks:
    """N value networks for each of S seeds: Q(window, action), or V(window) where there is no action.

    Args:
        spec: the policy's shape; K, mixer, width and layers of what reads the window are the policy's.
        study, seeds, name: of the streams that initial weights come from; seed by seed, so that S seeds at
            once start as each alone.
        networks: N, independent networks a seed.
        actions: M, or 0 for V.
        width, layers: of the perceptron.
    """

    def __init__(
        self,
        spec: ModelSpec,
        study: str,
        seeds: Sequence[int],
        name: str,
        *,
        networks: int,
        actions: int,
        width: int,
        layers: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.networks, self.seeds = networks, len(seeds)
        generators = [
            streams.torch_stream(study, seed, f"init/{name}/{network}")
            for network in range(networks)
            for seed in seeds
        ]
        # A learned table of timesteps is read by their number, which is no input of a perceptron.
        self.inputs = spec.features - (spec.timesteps > 0)
        inputs = self.inputs
        self.trunk: Stack | None = None
        if spec.context > 1:
            inputs += spec.width
            plain = dataclasses.replace(
                spec,
                head="mse",
                input="continuous",
                dropout=0.0,
                embedding_dropout=None,
                auxiliary=False,
            )
            readers = [build(plain, generator) for generator in generators]
            for reader in readers:
                reader.head = nn.Identity()
            self.trunk = Stack([reader.to(device, dtype) for reader in readers])
        self.dense = Perceptrons(generators, inputs, actions, width, layers)
        self.dense.apply(lambda tensor: tensor.to(device, dtype).requires_grad_())

    def parameters(self) -> list[Tensor]:
        """Leaf tensors, network by network and seed by seed in their first dimension."""
        return [*self.dense.parameters(), *([] if self.trunk is None else self.trunk.parameters())]

    def make_orthogonal(self, study: str, seeds: Sequence[int]) -> None:
        """Start the perceptrons at orthogonal weights, each seed's from its own stream."""
        self.dense.make_orthogonal(
            [
                streams.torch_stream(study, seed, f"init/orthogonal/{network}")
                for network in range(self.networks)
                for seed in seeds
            ]
        )

    def frozen_copy(self) -> ValueNetworks:
        """A copy without gradients: a target network."""
        made = copy.copy(self)
        made.dense = copy.copy(self.dense)
        made.dense.apply(lambda tensor: tensor.detach().clone())
        made.trunk = None if self.trunk is None else frozen_copy(self.trunk)
        return made

    def encode(self, view: View) -> Tensor:
        """What the perceptrons read of windows: (N * S, B, F [+ D])."""
        row = self._each(view.row[..., : self.inputs])
        if self.trunk is None:
            return row
        read = self.trunk(self._each(view.features), self._each(view.lengths))  # (N * S, B, D)
        return torch.cat([row, read], dim=-1)

    def values(
        self,
        encoded: Tensor,
        actions: Tensor | None = None,
        *,
        networks: int | None = None,
        constant: bool = False,
    ) -> Tensor:
        """Values (N, S, B) of actions (S, B, M), or (N, S, B, A) of A actions each, (S, B, A, M).

        networks: only the first so many. constant: gradients flow into actions, not into parameters.
        """
        count = (self.networks if networks is None else networks) * self.seeds
        if actions is not None:
            actions = self._each(actions)[:count]
        found = self.dense(encoded[:count], actions, count, constant)
        return found.unflatten(0, (-1, self.seeds))

    def __call__(self, view: View, actions: Tensor | None = None) -> Tensor:
        """`values` of windows that are read once, for training."""
        return self.values(self.encode(view), actions)

    def _each(self, values: Tensor) -> Tensor:
        """(S, ...) to (N * S, ...): the same for every network."""
        if self.networks == 1:
            return values
        return values.expand(self.networks, *values.shape).flatten(0, 1)


@dataclass(frozen=True)
class Backup:
    """Transitions as values are backed up along them.

    rewards: (T,), scaled and shifted. discount: of one timestep. visible: what windows show.
    """

    seen: Transitions
    visible: Visibility
    rewards: Tensor
    discount: float

    def pairs(self, targets: Tensor) -> tuple[View, View]:
        """Windows that end at targets (S, B), and those that end one timestep later."""
        seen = self.seen
        rows = seen.row[targets]
        both = torch.cat([rows, rows + 1], dim=1)
        features, _, lengths = gather_windows(seen.table, seen.timestep, self.visible, both)
        size = targets.shape[1]
        return (
            View(features[:, :size], lengths[:, :size]),
            View(features[:, size:], lengths[:, size:]),
        )

    def backed_up(self, targets: Tensor, value_after: Tensor) -> Tensor:
        """r + discount * value of what follows, (S, B); nothing follows a true end."""
        after = self.seen.going_on[targets] * value_after
        return self.rewards[targets] + self.discount * after

    def mean(self, each: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch of each (..., B), of transitions whose successor is known."""
        if self.seen.counted is None:
            return each.mean(-1)
        counted = self.seen.counted[targets]
        return (each * counted).sum(-1) / counted.sum(-1).clamp(min=1.0)


class ValueObjective(Objective):
    """What algorithms with value networks share. Settings have `discount`, `tau`, `return_range`, `reward_shift`,
    `critic_learning_rate`, `critic_width` and `critic_layers`.

    Rewards are multiplied by `return_range` over the range of the training episodes' returns (null: left as they
    are), then shifted by `reward_shift`. Only a loss that is no longer finite counts as diverged: values grow
    with what they learn.
    """

    losses: ClassVar[tuple[str, ...]] = ("last",)
    transitions: ClassVar[bool] = True
    growth: ClassVar[float] = math.inf

    def begin(self) -> None:
        """See `Objective.begin`; a subclass begins with this."""
        assert self.source.transitions is not None
        seen, own = self.source.transitions, self.settings
        scale = 1.0
        if own.return_range is not None:
            width = float(seen.returns.max() - seen.returns.min())
            scale = own.return_range / width if width > 0 else 1.0
        rewards = seen.rewards * scale + own.reward_shift  # (T,)
        self.backup = Backup(seen, self.source.visible, rewards, own.discount)
        self.dtype = self.stack.parameters()[0].dtype
        self._drawn: dict[str, tuple[int, Tensor]] = {}

    def value_networks(self, name: str, networks: int, actions: bool) -> ValueNetworks:
        """New networks, `networks` a seed, that read what the policy reads; to be declared with `add`."""
        spec = self.stack.spec
        return ValueNetworks(
            spec,
            self.study,
            self.seeds,
            name,
            networks=networks,
            actions=spec.action_dim if actions else 0,
            width=self.settings.critic_width,
            layers=self.settings.critic_layers,
            device=self.device,
            dtype=self.dtype,
        )

    def noise(self, update: int, kind: str, *shape: int) -> Tensor:
        """Noise (S, *shape) of an update, each seed's from its own stream; `kind` is "normal" or "uniform".

        Normal: mean 0, variance 1. Uniform: in [0, 1).
        """
        block, place = divmod(update, BLOCK)
        known = self._drawn.get(kind)
        if known is None or known[0] != block:
            drawn = []
            for seed in self.seeds:
                generator = streams.stream(self.study, seed, f"noise/{kind}/{block}")
                draw = generator.standard_normal if kind == "normal" else generator.random
                drawn.append(draw((BLOCK, *shape), dtype=np.float32))
            made = torch.from_numpy(np.stack(drawn, axis=1)).to(self.device, self.dtype)
            self._drawn[kind] = (block, made)
        return self._drawn[kind][1][place]


def frozen_copy(stack: Stack) -> Stack:
    """A copy of a stack without gradients and without dropout."""
    made = copy.deepcopy(stack).eval()
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    return made


@torch.no_grad()
def follow_(targets: Sequence[Tensor], parameters: Sequence[Tensor], tau: float) -> None:
    """Move target parameters towards the trained ones, in place: (1 - tau) * target + tau * parameter."""
    torch._foreach_lerp_(list(targets), list(parameters), tau)
