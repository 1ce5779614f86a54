"""Several nets as one joint model: which losses train which net, and who is asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ablate.errors import UserError
from ablate.models.assembly import build, count_parameters, flops_per_target
from ablate.models.discretise import Discretiser
from ablate.models.match import solve_width
from ablate.models.nets import Nets, NetsSpec, shared
from ablate.models.spec import ModelSpec
from ablate.models.stack import Stack

N, M = 3, 2
DATA = np.random.default_rng(0).normal(size=(300, N + M + 2))
ACTION, VALUE, SEEN = N, N + M + 1, 0  # slots: an action's, the value's, an observation's
KINDS = ("stopped", "separate", "transplanted")


def shape(sharing: Any, head: str = "categorical", layout: str = "modality") -> ModelSpec:
    config = {
        "mixer": "attention", "head": head, "context": 4, "layout": layout,
        "model": {"width": 8, "layers": 1},
    }  # fmt: skip
    return shared(dataclasses.replace(ModelSpec.joint(config, N, M), bins=6), sharing)


def model(sharing: Any, **options: str) -> Any:
    spec = shape(sharing, **options)
    made = build(spec, torch.Generator().manual_seed(0), DATA, Discretiser.fit(DATA, 6))
    return made.eval()


def windows() -> torch.Tensor:
    return torch.from_numpy(DATA[:40].reshape(10, 4, -1)).float()


def reached(made: Any, slot: int) -> set[str]:
    """Names of the parameters that the loss of a slot trains."""
    made.zero_grad()
    made.forward(windows(), method="losses")[..., slot].sum().backward()
    return {n for n, p in made.named_parameters() if p.grad is not None and bool(p.grad.any())}


def trunk(names: set[str]) -> set[str]:
    return {name for name in names if ".head." not in f".{name}"}


def test_joint_is_what_it_was() -> None:
    assert shape("joint") == dataclasses.replace(shape("joint"), only=(), stopped=())
    assert not isinstance(shape("joint"), NetsSpec)
    assert trunk(reached(model("joint"), ACTION)) == trunk(reached(model("joint"), VALUE))


def test_a_stopped_loss_trains_its_head_alone() -> None:
    made = model("stopped")
    for slot in (ACTION, VALUE):
        names = reached(made, slot)
        assert names
        assert not trunk(names)
    assert trunk(reached(made, SEEN))
    assert trunk(reached(made, N + M))  # the reward's


def test_separate_nets_are_trained_by_their_own_slots() -> None:
    made = model("separate")
    for net, slot in enumerate((ACTION, SEEN, VALUE)):
        assert {name.split(".")[1] for name in reached(made, slot)} == {str(net)}
    each = [net.losses(windows()) for net in made.nets]
    torch.testing.assert_close(made.losses(windows()), torch.stack(each).sum(0))
    for (net, slots), loss in zip(made.parts, each, strict=True):
        others = [slot for slot in range(N + M + 2) if slot not in slots]
        assert not loss[..., others].any()
        assert set(net.head.at) == set(slots)


def test_transplanted_nets_are_two_joint_models() -> None:
    made = model("transplanted")
    plain = shape("joint")
    assert [net.spec for net in made.nets] == [plain, plain]
    first, second = (net.log_density(windows()) for net in made.nets)
    found = made.log_density(windows())
    own = [*range(N, N + M), VALUE]
    others = [slot for slot in range(N + M + 2) if slot not in own]
    torch.testing.assert_close(found[..., own], first[..., own])
    torch.testing.assert_close(found[..., others], second[..., others])
    assert not torch.equal(first[..., own], second[..., own])


@pytest.mark.parametrize("sharing", KINDS)
def test_parameters_count_together(sharing: str) -> None:
    spec = shape(sharing)
    found = solve_width(spec, 20_000)
    made = spec.at(found.width).build()
    assert count_parameters(made) == found.parameters == pytest.approx(20_000, rel=0.05)
    assert flops_per_target(spec) == (
        sum(flops_per_target(spec.net(i)) for i in range(spec.nets))
        if isinstance(spec, NetsSpec)
        else flops_per_target(shape("joint"))
    )


@pytest.mark.parametrize("sharing", KINDS)
def test_seeds_train_as_one_program(sharing: str) -> None:
    """A stack of two gives what they give alone, and each takes its state back."""
    spec = shape(sharing)
    bins = Discretiser.fit(DATA, 6)
    two = [build(spec, torch.Generator().manual_seed(i), DATA, bins) for i in range(2)]
    alone = torch.stack([each(windows(), method="losses") for each in two])
    stack = Stack(two)
    found = stack(windows().expand(2, -1, -1, -1), method="losses")
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    for each, state in zip(two, stack.state_dicts(), strict=True):
        assert state.keys() == each.state_dict().keys()


def test_a_token_that_two_nets_predict_at_once_is_refused() -> None:
    with pytest.raises(UserError, match=r"settings\.sharing: separate needs a layout"):
        shape("separate", head="autoregressive", layout="step")
    assert isinstance(model("separate", layout="step"), Nets)
    assert isinstance(model("separate", head="autoregressive"), Nets)
