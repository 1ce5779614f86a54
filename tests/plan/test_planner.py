"""The planner draws the released planner's plans, token for token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from plain_planner import PlainPlanner
from plan_samples import BINS, D, M, N, make_model, make_spec, prefix, situation, uniforms

from ablate.errors import UserError
from ablate.plan.imagine import Imagination
from ablate.plan.options import PlanOptions, per_step, released_positions, visible_timesteps
from ablate.plan.search import search
from ablate.registry import checked

SMALL: dict[str, Any] = {"horizon": 4, "beam": 5, "max_context_transitions": 3}
CASES: dict[str, dict[str, Any]] = {
    "as released": {},
    "among the likeliest actions": {"k_act": 3, "cdf_act": None},
    "both filters": {"k_act": 2, "cdf_act": 0.5},
    "drawn observations": {"k_obs": None, "cdf_obs": 0.3, "n_expand": 3},
    "drawn rewards": {"k_rew": None, "cdf_rew": 0.2, "cdf_act": None},
    "a percentile": {"percentile": 0.7},
    "context of two": {"max_context_transitions": 2},
    "no context": {"prefix_context": False},
    "one sequence": {"beam": 1, "n_expand": 1},
    "undiscounted": {"discount": 1.0, "horizon": 5},
    "rewards alone": {"objective": "rewards"},
    "the value alone": {"objective": "value"},
    "likely enough": {"least_likely": 0.12, "cdf_act": None},
}


def same(plan: Any, wanted: torch.Tensor) -> bool:
    """Whether all tokens that were drawn are equal: the first observation's were given."""
    return torch.equal(plan.symbols[0].flatten()[N:], wanted.flatten()[N:])


@pytest.mark.parametrize("mode", ["reference", "full"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("executed", [0, 2, 5])
def test_plans_on_return_are_the_released_ones(mode: str, case: str, executed: int) -> None:
    changes = CASES[case]
    positions = "rotary" if mode == "full" and case != "as released" else "learned"
    # Sequences with the same action and reward tie, and the value drawn for them would tell them apart.
    bins = {"drawn rewards": 60, "a percentile": 400, "rewards alone": 60}.get(case, BINS)
    model = make_model(positions=positions, context=3 if mode == "reference" else 12, bins=bins)
    options = PlanOptions(mode=mode, **(SMALL | changes))
    context, observation = situation(executed)
    noise = uniforms((1, options.horizon, options.beam * options.n_expand, D))
    plan = search(model, context, observation, options, noise)
    plain = PlainPlanner(model, options)
    given = context[:, max(0, executed - options.executed) :]
    wanted, score = plain.by_return(prefix(model, given, observation), noise[0])
    assert same(plan, wanted)
    assert float(plan.score[0]) == pytest.approx(score, abs=1e-9)
    torch.testing.assert_close(plan.rows[0, 0, :N], observation[0])
    assert plan.positions < plain.positions


@pytest.mark.parametrize("mode", ["reference", "full"])
@pytest.mark.parametrize("goal", [False, True])
def test_plans_on_likelihood_are_the_released_ones(mode: str, goal: bool) -> None:
    told = (("goal", 2),) if goal else ()
    model = make_model(positions="rotary", prefix=told, context=5 if mode == "full" else 3)
    options = PlanOptions(
        objective="likelihood", mode=mode, horizon=3, beam=7, max_context_transitions=2
    )
    context, observation = situation(2)
    aim = torch.tensor([[0.3, 1.2]], dtype=torch.float64) if goal else None
    plan = search(model, context, observation, options, prefix=aim)
    wanted, score = PlainPlanner(model, options, aim).by_likelihood(
        prefix(model, context, observation)
    )
    assert same(plan, wanted)
    assert float(plan.score[0]) == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("mode", ["reference", "full"])
@pytest.mark.parametrize("objective", ["return", "likelihood"])
@pytest.mark.parametrize("budget", [1 << 30, 1])
def test_episodes_planned_together_get_the_plans_they_get_alone(
    mode: str, objective: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(positions="rotary")
    options = PlanOptions(mode=mode, objective=objective, **SMALL)
    context, observation = situation(4, episodes=3)
    context[2], observation[2] = context[0], observation[0]  # one twice, with other noise
    noise = uniforms((3, options.horizon, options.beam * options.n_expand, D))
    monkeypatch.setattr("ablate.plan.search.BYTES", budget)
    together = search(model, context, observation, options, noise)
    for e in range(3):
        alone = search(model, context[e : e + 1], observation[e : e + 1], options, noise[e : e + 1])
        torch.testing.assert_close(together.rows[e], alone.rows[0])
        assert torch.equal(together.symbols[e], alone.symbols[0])
        torch.testing.assert_close(together.score[e], alone.score[0])


def test_a_likelihood_that_everything_has_changes_nothing() -> None:
    model = make_model()
    context, observation = situation(2)
    free, bound, strict = (
        PlanOptions(**SMALL, cdf_act=None, least_likely=least) for least in (None, 1e-9, 0.99)
    )
    noise = uniforms((1, 4, 10, D))
    plans = [search(model, context, observation, each, noise) for each in (free, bound, strict)]
    assert torch.equal(plans[0].symbols, plans[1].symbols)
    assert torch.equal(plans[0].score, plans[1].score)
    # Where nothing is likely enough, the likeliest comes first, and a score stays what the plan is worth.
    assert not torch.equal(plans[0].symbols, plans[2].symbols)
    assert float(plans[2].score) <= float(plans[0].score)


def test_a_value_function_replaces_the_value_tokens() -> None:
    model = make_model(positions="rotary")
    options = PlanOptions(**(SMALL | {"horizon": 1}))
    context, observation = situation(1)
    noise = uniforms((1, 1, 10, D))
    asked = []

    def value(states: torch.Tensor, actions: torch.Tensor, step: int) -> torch.Tensor:
        asked.append(actions)
        assert states.shape == (1, 10, N)
        return -(actions**2).sum(-1)

    plan = search(model, context, observation, options, noise, value=value)
    found = value(observation[:, None].expand(1, 10, N), asked[0], 0)
    assert float(plan.score[0]) == pytest.approx(float(found.max()))
    best = asked[0][0, found[0].argmax()]
    torch.testing.assert_close(plan.actions(N, M)[0, 0], best)


def test_what_a_step_sees_is_what_the_plain_planner_looked_at() -> None:
    model = make_model(context=4)
    options = PlanOptions(**(SMALL | {"max_context_transitions": 4}))
    executed = 4
    context, observation = situation(executed)
    plain = PlainPlanner(model, options)
    plain.by_return(prefix(model, context, observation), uniforms((4, 10, D)))
    seen = visible_timesteps(model.spec, options, executed)
    for told, first in plain.windows:
        step = (told - N) // D - executed
        if told == (executed + step) * D + N:  # about to choose the first slot of an action
            expected = np.arange(executed) * D >= first
            assert (seen[step] == expected).all()
    assert seen.any()
    assert not seen.all()
    everything = visible_timesteps(model.spec, PlanOptions(mode="full", **SMALL), executed)
    assert everything[:, 1:].all()
    assert not everything[:, 0].any()


def test_positions_are_counted_as_published() -> None:
    def counts(n: int, m: int, **options: Any) -> dict[str, int]:
        return released_positions(make_spec(n, m), PlanOptions(**options))

    assert counts(11, 3) == {"released": 2_838_528, "cached": 151_627}
    assert counts(11, 3, horizon=5, beam=64)["released"] == 440_704
    assert counts(17, 6, horizon=5, beam=32)["released"] == 543_488
    assert counts(17, 6)["released"] == 6_991_872
    assert counts(27, 8, horizon=5)["released"] == 4_523_264


KINDS = [
    *(("attention", layout, head, given) for layout in ("dimension", "chunk-2", "modality", "step")
      for head in ("categorical", "autoregressive", "gaussian", "mixture")
      for given in ("discretised", "continuous")),
    *((mixer, layout, "autoregressive", "continuous")
      for mixer in ("gru", "lstm", "ssm", "conv", "convformer", "mlp")
      for layout in ("dimension", "chunk-2", "modality", "step")),
    *((mixer, "modality", head, "discretised") for mixer in ("gru", "mlp") for head in ("categorical", "mixture")),
]  # fmt: skip


@pytest.mark.parametrize(("mixer", "layout", "head", "given"), KINDS)
def test_imagined_slots_have_the_window_paths_parameters(
    mixer: str, layout: str, head: str, given: str
) -> None:
    """What every kind of model carries from step to step, cropped or not, equals a pass over its window."""
    model = make_model(
        mixer=mixer, layout=layout, head=head, input=given, context=8,
        positions="rotary" if mixer == "attention" else "learned",
    )  # fmt: skip
    context, observation = situation(3, episodes=2)
    noise = uniforms((60, 2, 4))
    for cap in (None, 3 * per_step(model.spec) - (per_step(model.spec) > 1)):
        imagination = Imagination(model, context, observation, cap)
        with torch.no_grad():
            for number in range(2 * D):
                if number in (0, D):
                    imagination.branch(2)
                params = imagination.parameters()
                slot = imagination.slot
                check_parameters(imagination, params, slot)
                drawn = model.head.draw(
                    params, slot, noise[number, :, : imagination.rows], None, None, ends=False
                )
                imagination.push(drawn)
                if number == D - 1:
                    index = torch.tensor([[1, 1], [0, 1]])
                    imagination.select(index[:, :1].repeat(1, 2))


def check_parameters(imagination: Imagination, params: Any, slot: int) -> None:
    model, heads = imagination.model, imagination.heads
    entries = imagination.entries.flatten(0, 1)[:, imagination.crop * D :]
    told = entries.shape[1]
    rows = told // D + 2
    padded = entries.new_zeros(len(entries), rows * D)
    padded[:, :told] = entries
    raw = torch.zeros(len(entries), rows * D, dtype=torch.float64)
    drawn = imagination.imagined.flatten(0, 1)
    for back in range(min(drawn.shape[1], told)):  # what was drawn, and maybe told inside the token
        place = told - 1 - back
        raw[:, place] = heads.raw(drawn[:, -1 - back, None], place % D)[:, 0]
    features = model.features_of(padded.view(-1, rows, D))
    wanted = heads.each(features, raw.view(-1, rows, D), "number")[:, told // D, told % D]
    head, m = heads.at[slot]
    found = heads.heads[head].number(params.flatten(0, 1), m)
    if model.spec.head == "mixture":
        found, wanted = (
            torch.cat([each[:, :5].log_softmax(-1), each[:, 5:]], -1) for each in (found, wanted)
        )
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "reward"}, "plan.objective"),
        ({"mode": "fast"}, "plan.mode"),
        ({"horizon": 0}, "plan.horizon"),
        ({"cdf_act": 1.0}, "plan.cdf_act"),
        ({"percentile": "median"}, "plan.percentile"),
        ({"plan_freq": 16}, "plan.plan_freq"),
        ({"discount": 1.5}, "plan.discount"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked(PlanOptions, options, "plan")


def test_models_that_cant_be_searched_are_refused() -> None:
    context, observation = situation(1)
    noise = uniforms((1, 4, 10, D))
    with pytest.raises(UserError, match="rotary"):
        search(make_model(), context, observation, PlanOptions(mode="full", **SMALL), noise)
    with pytest.raises(UserError, match="one action only"):
        search(make_model(head="mse"), context, observation, PlanOptions(**SMALL), noise)
    with pytest.raises(UserError, match="has none"):
        search(
            make_model(head="gaussian"),
            context,
            observation,
            PlanOptions(objective="likelihood", **SMALL),
        )
