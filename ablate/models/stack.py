"""S policies of the same shape as one program."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from ablate.models.assembly import Model
from ablate.models.heads import Head
from ablate.models.mixer import State, set_stacked


class Stack:
    """S replicas that train, and act, together and give what S separate ones give.

    One replica runs as a plain module with its fast kernels. Several run under `torch.func.vmap`
    over stacked parameters; recurrent mixers then use explicit cells. Gradients of the sum of the
    replicas' losses are each replica's own. With dropout every replica draws its own masks, from
    PyTorch's default generator; a stack then equals its singles in distribution, not number for
    number.

    Raises ValueError when there is no policy, when shapes differ, or when the heads' buffers (the
    bins) differ: `head` serves all replicas.
    """

    def __init__(self, policies: Sequence[Model]) -> None:
        if not policies:
            raise ValueError("Stack: needs at least one policy.")
        if any(policy.spec != policies[0].spec for policy in policies):
            raise ValueError("Stack: the policies' shapes differ.")
        self.size = len(policies)
        self.spec = policies[0].spec
        self._base = policies[0]
        self._parameters: dict[str, Tensor] = dict(policies[0].named_parameters())
        self._buffers: dict[str, Tensor] = dict(policies[0].named_buffers())
        if self.size > 1:
            first = dict(policies[0].head.named_buffers())
            for policy in policies[1:]:
                for name, values in policy.head.named_buffers():
                    if not values.is_meta and not torch.equal(values, first[name]):
                        raise ValueError(f"Stack: the heads' '{name}' differ between replicas.")
            self._parameters, self._buffers = stack_module_state(list(policies))
            self._base = copy.deepcopy(policies[0])
            set_stacked(self._base, True)

    @property
    def model(self) -> Model:
        """The module that every replica runs as; alone, it is the only replica itself."""
        return self._base

    @property
    def head(self) -> Head | Heads:
        """The head of all replicas: its methods broadcast over (S, ...), which every argument leads with."""
        return Heads(self) if self.size > 1 and self._base.head.weighted else self._base.head

    @property
    def slides(self) -> bool:
        """Whether `step` also serves windows that slide."""
        return self._base.mixer.slides

    @property
    def reach(self) -> int:
        """Timesteps of a full window, from the last one back, on which the output depends."""
        n, hidden = self._base.embed.per_step, self._base.embed.hidden
        return max(1, (self._base.mixer.reach + hidden) // n)

    def tokens(self, timesteps: int) -> int:
        """How many tokens a window of so many timesteps has."""
        return int(self._base.embed.length(timesteps))

    @property
    def still(self) -> bool:
        """Whether a timestep's tokens are the same wherever in a window it stands (but for those it hides)."""
        return self._base.embed.still

    @property
    def carries(self) -> bool:
        """Whether `step` may go on when the context is full."""
        return self._base.mixer.slides or self._base.mixer.carries

    def parameters(self) -> list[Tensor]:
        """Leaf tensors (S, ...), or for one replica the module's own parameters, without S."""
        return list(self._parameters.values())

    def named_parameters(self) -> dict[str, Tensor]:
        """The same by name."""
        return dict(self._parameters)

    def buffers(self) -> list[Tensor]:
        """What belongs to the replicas and isn't trained."""
        return list(self._buffers.values())

    def train(self, mode: bool = True) -> Stack:
        """Switch dropout on or off."""
        self._base.train(mode)
        return self

    def eval(self) -> Stack:
        """Switch dropout off."""
        return self.train(False)

    def __call__(self, *args: Any, method: str = "last") -> Any:
        """Run `Model.forward` in every replica; tensors in `args` and the result lead with S."""
        if self.size == 1:
            return _map(lambda t: t[None], self._base(*_map(lambda t: t[0], args), method=method))

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Any) -> Any:
            return functional_call(self._base, (parameters, buffers), inputs, {"method": method})

        return vmap(one, randomness="different")(self._parameters, self._buffers, args)

    def start(self, batch: int, like: Tensor) -> State:
        """States (S, B, ...) of `batch` empty histories in every replica."""
        state = self._base.start(batch, like)
        return tuple(part.expand(self.size, *part.shape) for part in state)

    def clip_(self, max_norm: float) -> Tensor:
        """Scale each replica's gradients in place to a norm <= `max_norm`; the norms before, (S,).

        The same rule as `torch.nn.utils.clip_grad_norm_`, one replica at a time. Parameters without
        a gradient are left out.
        """
        grads = [p.grad for p in self._parameters.values() if p.grad is not None]
        if self.size == 1:
            norms = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))[None]
            torch._foreach_mul_(grads, (max_norm / (norms[0] + 1e-6)).clamp(max=1.0))
            return norms
        squares = [grad.flatten(1).square().sum(1) for grad in grads]
        norms = torch.stack(squares).sum(0).sqrt()  # (S,)
        scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, [scale.view(-1, *[1] * (grad.ndim - 1)) for grad in grads])
        return norms

    def state_dicts(self) -> list[dict[str, Tensor]]:
        """Each replica's state as a copy, in the form of `Model.state_dict`."""
        tensors = {**self._parameters, **self._buffers}
        if self.size == 1:
            return [{name: t.detach().clone() for name, t in tensors.items()}]
        return [
            {name: t.detach()[replica].clone() for name, t in tensors.items()}
            for replica in range(self.size)
        ]


class Heads:
    """The heads of a stack whose replicas each need their own weights; see `ablate.models.heads.Head`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.density = stack._base.head.density
        self.noise_dim = stack._base.head.noise_dim

    def loss(self, params: Tensor, actions: Tensor) -> Tensor:
        """(S, ...) of params (S, ..., P) and actions (S, ..., M)."""
        return self._stack(params, actions, method="loss")

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """(S, ...) of params (S, ..., P) and actions (S, ..., M)."""
        return self._stack(params, actions, method="log_prob")

    def mean(self, params: Tensor) -> Tensor:
        """(S, ..., M) of params (S, ..., P)."""
        return self._stack(params, method="mean")

    def mode(self, params: Tensor) -> Tensor:
        """(S, ..., M) of params (S, ..., P)."""
        return self._stack(params, method="mode")

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """(S, ..., M) of params (S, ..., P) and noise (S, ..., noise_dim)."""
        return self._stack(params, noise, method="sample")


def _map(function: Any, values: Any) -> Any:
    """`function` on every tensor of nested tuples."""
    if isinstance(values, Tensor):
        return function(values)
    return tuple(_map(function, value) for value in values)
