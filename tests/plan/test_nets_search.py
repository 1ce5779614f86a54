"""A search over several nets, and where its proposals come from."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from plain_planner import PlainPlanner
from plan_samples import BINS, DATA, D, M, N, make_model, make_spec, prefix, situation, uniforms
from scipy import stats

from ablate.models.assembly import build
from ablate.models.discretise import Discretiser
from ablate.models.nets import shared
from ablate.plan.futures import JointDynamics
from ablate.plan.imagine import imagine
from ablate.plan.options import PlanOptions
from ablate.plan.search import proposed, search

SMALL: dict[str, Any] = {"horizon": 4, "beam": 5, "max_context_transitions": 3}


def nets(sharing: Any, **changes: Any) -> Any:
    spec = make_spec(context=3, bins=BINS, width=16, layers=2, heads=2, initialisation="mingpt")
    spec = shared(dataclasses.replace(spec, **changes), sharing)
    made = build(spec, torch.Generator().manual_seed(1), DATA, Discretiser.fit(DATA, BINS))
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=noise))
    return made.double().eval()


class PlainNets(PlainPlanner):
    """A whole forward pass of the net that is asked for the slot, for every token."""

    def __init__(self, model: Any, options: PlanOptions) -> None:
        super().__init__(model, options)
        self.parts = model.parts

    def next_probabilities(self, x: torch.Tensor) -> torch.Tensor:
        slot = x.shape[1] % self.slots
        self.model = next(net for net, held in self.parts if slot in held)
        return super().next_probabilities(x)


@pytest.mark.parametrize("sharing", ["separate", "transplanted"])
@pytest.mark.parametrize("executed", [0, 5])
def test_each_slot_is_asked_of_its_own_net(sharing: str, executed: int) -> None:
    model = nets(sharing)
    options = PlanOptions(**SMALL)
    context, observation = situation(executed)
    noise = uniforms((1, options.horizon, options.beam * options.n_expand, D))
    plan = search(model, context, observation, options, noise)
    given = context[:, max(0, executed - options.executed) :]
    told = prefix(model.parts[0][0], given, observation)
    wanted, score = PlainNets(model, options).by_return(told, noise[0])
    assert torch.equal(plan.symbols[0].flatten()[N:], wanted.flatten()[N:])
    assert float(plan.score[0]) == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("objective", ["return", "likelihood"])
def test_two_nets_of_the_same_weights_are_one(objective: str) -> None:
    model = nets("transplanted")
    model.nets[1].load_state_dict(model.nets[0].state_dict())
    options = PlanOptions(objective=objective, **SMALL)
    context, observation = situation(4, episodes=2)
    noise = uniforms((2, options.horizon, options.beam * options.n_expand, D))
    one, both = (
        search(made, context, observation, options, noise) for made in (model.nets[0], model)
    )
    assert torch.equal(one.symbols, both.symbols)
    assert torch.equal(one.score, both.score)
    assert one.positions < both.positions <= 2 * one.positions


def test_futures_and_likeliest_actions_of_two_nets_of_the_same_weights_are_those_of_one() -> None:
    model = nets("transplanted")
    model.nets[1].load_state_dict(model.nets[0].state_dict())
    context, observation = situation(1, episodes=2)
    for sampling in ("draw", "greedy", "mean"):
        one, both = (
            JointDynamics(made, sampling).imagine(context, observation, 3, 4, None, 0)
            for made in (model.nets[0], model)
        )
        assert torch.equal(one, both)


def test_what_is_gained_is_the_score_without_the_final_value() -> None:
    model = make_model()
    context, observation = situation(2)
    options = PlanOptions(horizon=3, beam=4, n_expand=1, discount=0.0)
    noise = uniforms((1, 3, 4, D))
    plan = search(model, context, observation, options, noise)
    torch.testing.assert_close(plan.gained, plan.score)  # nothing that comes later counts


def drawn(model: Any, **options: Any) -> tuple[np.ndarray, torch.Tensor]:
    """Proposals for the first action at many noises, raw, and the parameters that they come from."""
    context, observation = situation(0)
    running = imagine(model, context, observation, None)
    params = running.parameters()[0]  # (1, P)
    noise = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:-1] + 1 / 40_000
    options = {"cdf_act": None, **options}
    symbols = proposed(
        running.heads, params.expand(len(noise), -1), N, noise, PlanOptions(**options)
    )
    return running.heads.raw(symbols[:, None], N)[:, 0].detach().numpy(), params


def test_temperature_flattens_bins() -> None:
    model = make_model()
    for temperature in (0.5, 1.0, 4.0):
        found, params = drawn(model, temperature=temperature)
        wanted = (model.head.log_probs(params, N)[0] / temperature).softmax(-1)[:-1]
        centres = model.head.bins.centres[N].numpy()
        share = np.array([(np.abs(found - c) < 1e-9).mean() for c in centres])
        # the end, which an action reads as the last bin
        wanted = wanted.detach().numpy()
        np.testing.assert_allclose(share[:-1], wanted[:-1], atol=1e-3)


def test_temperature_widens_a_gaussian() -> None:
    model = make_model(head="gaussian", input="continuous")
    plain, _ = drawn(model)
    for temperature in (0.5, 4.0):
        found, _ = drawn(model, temperature=temperature)
        assert found.mean() == pytest.approx(plain.mean(), abs=1e-3)
        assert found.var() == pytest.approx(temperature * plain.var(), rel=1e-3)


def test_uniform_proposals_know_no_model() -> None:
    found, _ = drawn(make_model(head="gaussian", input="continuous"), proposals="uniform")
    assert stats.kstest(found, stats.uniform(-1, 2).cdf).statistic < 1e-3
    model = make_model()
    found, _ = drawn(model, proposals="uniform")
    noise = np.linspace(0, 1, 20_001)[:-1] + 1 / 40_000
    raw = torch.from_numpy(2 * noise - 1)[:, None]
    wanted = model.head.bins.decode(model.head.bins.encode(raw, N), N)[:, 0].numpy()
    np.testing.assert_array_equal(found, wanted)


def test_inflated_proposals_are_a_clipped_gaussian() -> None:
    model = make_model(head="gaussian", input="continuous")
    found, params = drawn(model, proposals="inflated", spread=0.5)
    centre = float(model.head.expected(params, N).detach())
    law = stats.norm(centre, 0.5 * DATA[:, N].std())
    inside = np.abs(found) < 1.0
    assert (found == 1.0).mean() == pytest.approx(law.sf(1.0), abs=1e-3)
    ranks = np.sort(law.cdf(found[inside]))
    np.testing.assert_allclose(np.diff(ranks), 1 / 20_000, atol=1e-6)


def test_a_head_of_one_action_can_be_searched_with_other_proposals() -> None:
    model = make_model(head="mse", input="continuous")
    context, observation = situation(1)
    options = PlanOptions(proposals="uniform", **SMALL)
    noise = uniforms((1, options.horizon, options.beam * options.n_expand, D))
    found = search(model, context, observation, options, noise)
    assert found.actions(N, M).abs().max() <= 1.0
