"""The memory that S seeds need to train as one stack: counted, on no memory, before they do."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablate.learn.objective import Batch, Objective
from ablate.learn.train import windows_per_update
from ablate.models.assembly import Model
from ablate.models.stack import Stack


@dataclass(frozen=True)
class Memory:
    """Bytes. data: the training set, which all seeds share. parameters: of all seeds, and what is kept beside them as
    bins. optimiser: its state. working: the most that an update holds at once beyond these: activations, gradients,
    masks, windows, temporary results. A device's allocator needs some more, by how it rounds.
    """

    data: int
    parameters: int
    optimiser: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.data + self.parameters + self.optimiser + self.working


def plan(objective: Objective, seeds: int) -> Memory:
    """The memory of so many seeds, from the objective of one; an update of that one is done first.

    Everything is computed on PyTorch's device `meta`, whose tensors have shapes and no content, along the ways that a
    GPU takes.
    """
    targets = torch.zeros(1, _windows(objective), dtype=torch.int64, device=objective.device)
    objective.update(
        Batch(0, targets), objective.rate(0)
    )  # what is asked of the data once is known then
    model: Model = copy.deepcopy(objective.stack.model).to("meta")
    stack = Stack([copy.deepcopy(model) for _ in range(seeds)])
    for tensor in stack.parameters():
        tensor.grad = None
    made = type(objective)(
        stack,
        _on_meta(objective.source),
        objective.train,
        objective.settings.model_dump(),
        objective.study,
        list(range(seeds)),
    )
    return measured(made)


def measured(objective: Objective) -> Memory:
    """The memory of an objective as it is; two updates of it are done, on a device that computes or on `meta`."""
    size = objective.stack.size
    targets = torch.zeros(size, _windows(objective), dtype=torch.int64, device=objective.device)
    objective.stack.train()
    with Held():  # the state of the optimiser is there after one update
        objective.update(Batch(0, targets), 0.0)
    for part in objective.parts.values():
        if part.optimiser is not None:
            part.optimiser.zero_grad()
    with Held() as held:
        objective.update(Batch(1, targets), 0.0)
    moments = [
        each
        for part in objective.parts.values()
        if part.optimiser is not None
        for state in part.optimiser.state.values()
        for each in state.values()
    ]
    kept = [tensor for part in objective.parts.values() for tensor in part.tensors]
    return Memory(
        data=_bytes(_tensors(objective.source)),
        parameters=_bytes([*kept, *objective.stack.buffers()]),
        optimiser=_bytes(moments),
        working=held.most,
    )


class Held(TorchDispatchMode):
    """Counts the bytes of what is made within it: `now` those that are still held, `most` the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = tree_leaves((args, kwargs))
        tensors = [each for each in given if isinstance(each, Tensor)]
        if func.name().startswith("aten::_fused_adam") and tensors[0].device.type == "meta":
            return None  # it has no kernel there, and makes nothing
        inputs = {each.untyped_storage()._cdata for each in tensors}
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                storage = each.untyped_storage()
                if storage._cdata not in inputs and storage._cdata not in self._known:
                    self._hold(storage)
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _windows(objective: Objective) -> int:
    return windows_per_update(objective.train, objective.source.context)


def _bytes(tensors: list[Tensor]) -> int:
    """Of tensors that may share their memory."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _tensors(value: Any) -> list[Tensor]:
    """All tensors of nested dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    if not dataclasses.is_dataclass(value):
        return []
    return [
        each for field in dataclasses.fields(value) for each in _tensors(getattr(value, field.name))
    ]


def _on_meta(value: Any) -> Any:
    """Nested dataclasses with their tensors, and what they have computed, on `meta`."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    made = copy.copy(value)
    made.__dict__.update({name: _on_meta(each) for name, each in value.__dict__.items()})
    return made
