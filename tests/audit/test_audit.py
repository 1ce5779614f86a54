"""The audit passes every registered mixer and catches every planted fault, by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import audit_faults as faults
import numpy as np
import pytest
import torch

from ablate import registry
from ablate.audit.audit import Audit, audit, audit_config, refuse
from ablate.audit.checks import declared
from ablate.data.normalise import Scales
from ablate.errors import UserError
from ablate.models.agent import Agent
from ablate.models.assembly import ModelSpec, build
from ablate.models.layouts import Layout
from ablate.models.mixer import Mixer
from ablate.models.stack import Stack

Plant = Callable[[type[Mixer]], str]
CONDITIONS = [
    *registry.names("condition"),
    *(f"{c}+time" for c in ("return-to-go", "average-return", "goal")),
]
HISTORIES = (
    "states+actions",
    "states",
    "actions",
    "states+actions+rewards",
    "states+actions+returns",
)
OURS = ("attention", "bag", "conv", "gru", "lstm", "mlp")


@pytest.fixture
def plant() -> Iterator[Plant]:
    """Registers a mixer for the length of a test."""

    def planted(mixer: type[Mixer]) -> str:
        registry.register("mixer", mixer.__name__)(mixer)
        return mixer.__name__

    with registry.scope():
        yield planted


def make_agent(
    mixer: str,
    context: int,
    layout: Layout | None = None,
    *,
    made: type[Agent] = Agent,
    stack: type[Stack] = Stack,
    replicas: int = 1,
    dtype: torch.dtype = torch.float64,
    dropout: float = 0.0,
) -> Agent:
    """A small agent with data of its own shape."""
    layout = layout or Layout(3, 2, 3, "states+actions", "none")
    spec = ModelSpec(mixer, "mse", context, layout.features, 2, 16, 2, dropout)
    policies = [build(spec, torch.Generator().manual_seed(s)).to(dtype) for s in range(replicas)]
    scales = Scales(torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype), 1.0, 4.0, 50)
    return made(stack(policies), layout, scales, context)


def names(result: Audit) -> set[str]:
    """Findings without their sentences, as `name (where)`."""
    return {finding.split(":")[0] for finding in result.findings}


@pytest.mark.parametrize("mixer", OURS)
@pytest.mark.parametrize("context", [1, 5])
def test_registered_mixers_pass(mixer: str, context: int) -> None:
    assert audit_config(mixer, context).findings == []


@pytest.mark.parametrize("mixer", OURS)
def test_registered_mixers_pass_at_context_20(mixer: str) -> None:
    assert audit_config(mixer, 20, "states+actions", "return-to-go+time").findings == []


def test_every_registered_mixer_is_tested() -> None:
    assert set(registry.names("mixer")) >= set(OURS)


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_history_and_condition_passes(history: str, condition: str) -> None:
    for mixer, context in (("gru", 1), ("attention", 4)):
        assert audit_config(mixer, context, history, condition).findings == []


@pytest.mark.parametrize("head", ["mixture", "categorical"])
def test_every_head_passes(head: str) -> None:
    assert audit_config("lstm", 5, condition="policy-id", head=head).findings == []


def test_what_is_too_faint_for_a_perturbation_is_seen(plant: Plant) -> None:
    # A recurrence forgets geometrically: here 0.3**24 = 3e-13 is left at the far end of the window.
    result = audit_config(plant(faults.Fading), 25)
    assert result.findings == []
    assert 0 < result.receptive["observation"]["acting"][2 + 24] < 1e-9
    assert result.receptive["observation"]["acting"][2 + 25] == 0


def test_a_long_context_is_thinned_out_and_passes() -> None:
    result = audit_config("bag", 60)
    assert result.findings == []
    assert all(result.receptive["observation"]["training"][2:62])


def test_the_receptive_field_is_measured() -> None:
    result = audit_config("mlp", 3, "states+actions+rewards", "return-to-go")
    assert result.lags == (-2, -1, 0, 1, 2, 3, 4, 5, 6)
    seen = {
        field: [lag for lag, value in zip(result.lags, shapes["training"], strict=True) if value]
        for field, shapes in result.receptive.items()
    }
    assert seen == {
        "observation": [0, 1, 2],
        "action": [1, 2],
        "reward": [1, 2],
        "return-to-go": [0, 1, 2],
    }
    for shapes in result.receptive.values():
        np.testing.assert_allclose(shapes["training"], shapes["acting"], rtol=1e-6)


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("context", [1, 2, 6])
def test_layouts_show_what_the_levels_declare(history: str, condition: str, context: int) -> None:
    layout = Layout(3, 2, 3, history, condition, (0, 1))
    shown: dict[str, set[int]] = {}
    column = 0
    mask = layout.visible(context).mask(torch.tensor(context))
    for name, width, _, _ in layout.columns:
        visible = mask[:, column].flip(0)  # by lag of the token
        late = 1 if name in ("action", "reward") else 0
        shown[name] = {lag + late for lag in range(context) if visible[lag]}
        column += width
    wanted = declared(layout, context)
    assert {name: lags for name, lags in shown.items() if lags} == {
        name: lags for name, lags in wanted.items() if lags
    }


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.Sum, set()),
        (faults.BatchAxisLSTM, {"batch (training)", "batch (acting)", "blind (training)"}),
        (faults.OneAhead, {"future (all positions)"}),
        (faults.Bidirectional, {"future (all positions)", "padding (training)"}),
        (faults.MeanOverPadding, {"padding (training)", "paths-differ (step)"}),
        (faults.BatchMean, {"batch (training)"}),
        (faults.BatchNormed, {"batch (training)"}),
        (faults.BatchStep, {"batch (acting)"}),
        (faults.OtherStep, {"paths-differ (step)", "acting-differs (acting)"}),
        (faults.SlidesNot, {"paths-differ (step)"}),
        (faults.ShortSighted, {"blind (training)", "blind (acting)"}),
        (faults.LastDiffers, {"paths-differ (all positions)"}),
        (faults.Raises, {"does-not-run (training)"}),
        (faults.CannotBeBuilt, {"does-not-run (initialisation)"}),
        (faults.AllPositions, {"does-not-run (training)"}),
        (faults.NotANumber, {"not-finite (training)"}),
        (faults.NoStacking, {"does-not-run (stacked)"}),
        (faults.OtherStacked, {"replicas (training)"}),
    ],
)  # fmt: skip
def test_faulty_mixers_are_caught(fault: type[Mixer], expected: set[str], plant: Plant) -> None:
    result = audit_config(plant(fault), 5)
    found = names(result)
    assert found >= expected
    assert result.passed == (not expected)
    # Exactly the fault, where one thing is wrong in one place.
    if fault in (faults.SlidesNot, faults.ShortSighted, faults.LastDiffers, faults.NoStacking):
        assert found == expected


def test_batch_axis_recurrence_has_no_memory(plant: Plant) -> None:
    # In science.md, section 0: alone, it is a memoryless map of the present token.
    result = audit_config(plant(faults.BatchAxisLSTM), 5, condition="time")
    for field in ("observation", "time"):
        for shape in ("training", "acting"):
            values = result.receptive[field][shape]
            assert values[2] > 1e-6
            assert not any(values[:2] + values[3:])


def findings_of(agent: Agent, **options: Any) -> dict[str, str]:
    return {f.split(":")[0]: f for f in audit(agent, **options).findings}


def test_future_return_to_go_is_caught() -> None:
    agent = make_agent("gru", 4, Layout(3, 2, 3, "states+actions", "return-to-go"))
    found = findings_of(agent, read=faults.future_return)
    assert "depends on return-to-go at lag -1" in found["future (training)"]
    assert "acting-differs (acting)" in found


def test_the_action_to_be_predicted_is_caught() -> None:
    found = findings_of(make_agent("lstm", 4), read=faults.unshifted_action)
    assert "depends on action at lag 0: that is still to come" in found["future (training)"]


def test_a_window_that_reaches_into_another_episode_is_caught() -> None:
    found = findings_of(make_agent("mlp", 4), read=faults.one_long_episode)
    assert "batch (training)" in found


def test_an_ignored_condition_is_caught() -> None:
    layout = Layout(3, 2, 3, "states+actions", "return-to-go+time")
    found = findings_of(make_agent("mlp", 3, layout, made=faults.IgnoresReturn))
    assert set(found) == {"condition-ignored (training)", "condition-ignored (acting)"}
    assert "return-to-go" in found["condition-ignored (acting)"]


def test_a_context_longer_than_declared_is_caught() -> None:
    found = findings_of(make_agent("conv", 5), context=4)
    assert (
        "observation at lag 4, action at lag 4; the context is 4"
        in found["beyond-context (training)"]
    )
    assert "beyond-context (acting)" in found


def test_a_state_carried_beyond_the_context_is_caught() -> None:
    found = findings_of(make_agent("gru", 4, made=faults.CarriesOn))
    assert "observation at lags 4-7, action at lags 4-7;" in found["beyond-context (acting)"]
    assert "acting-differs (acting)" in found
    assert "beyond-context (training)" not in found


def test_past_returns_that_should_be_hidden_are_caught() -> None:
    layout = faults.ShowsEverything(3, 2, 3, "actions", "return-to-go")
    found = findings_of(make_agent("bag", 4, layout))
    assert set(found) >= {"undeclared (training)", "undeclared (acting)"}
    # and the action that led to the oldest state of the window was taken before it
    assert "action at lag 4" in found["beyond-context (training)"]


def test_a_clock_that_stands_still_when_acting_is_caught() -> None:
    layout = Layout(3, 2, 3, "states+actions", "time")
    found = findings_of(make_agent("attention", 3, layout, made=faults.StopsTheClock))
    assert {"condition-ignored (acting)", "acting-differs (acting)"} == found.keys()


def test_a_leak_between_replicas_is_caught() -> None:
    found = findings_of(make_agent("conv", 3, stack=faults.LeakyStack, replicas=2))
    assert {"replicas (training)", "replicas (acting)"} <= found.keys()


@pytest.mark.parametrize("mixer", ["gru", "attention"])
def test_an_agent_in_single_precision_with_dropout_passes(mixer: str) -> None:
    agent = make_agent(mixer, 12, dtype=torch.float32, dropout=0.3, replicas=2)
    assert audit(agent).findings == []


def test_record_is_stable_and_json() -> None:
    one, two = (json.dumps(audit_config("conv", 2).record()) for _ in range(2))
    record = json.loads(one)
    assert one == two
    assert list(record) == [
        "mixer", "context", "history", "condition", "head", "state", "passed", "findings", "lags",
        "declared", "influence",
    ]  # fmt: skip
    assert set(record["influence"]) == {"training", "acting"}
    assert all(len(v) == len(record["lags"]) for v in record["influence"]["acting"].values())


def test_text_marks_every_lag(plant: Plant) -> None:
    good = audit_config("mlp", 3).text()
    assert good.splitlines()[0].startswith("mlp, context 3, history states+actions")
    assert "observation   ··|●●●|····   ··|●●●|····" in good
    assert good.endswith("PASSED")
    bad = audit_config(plant(faults.ShortSighted), 3).text()
    assert "observation   ··|●●○|····" in bad
    assert bad.endswith("REFUSED: 2 findings")
    wrong = audit(make_agent("conv", 3), context=2).text()
    assert "observation   ··|●●|✗···" in wrong


def test_refuse_says_in_one_line_what_is_wrong(plant: Plant) -> None:
    refuse(audit_config("mlp", 2))
    with pytest.raises(UserError, match=r"^audit: ShortSighted, context 4.*And 1 more") as caught:
        refuse(audit_config(plant(faults.ShortSighted), 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "near"),
    [
        ({"mixer": "atention"}, "attention"),
        ({"mixer": "gru", "history": "state"}, "states"),
        ({"mixer": "gru", "condition": "times"}, "time"),
        ({"mixer": "gru", "head": "mixtur"}, "mixture"),
    ],
)
def test_unknown_names_are_refused(options: dict[str, str], near: str) -> None:
    with pytest.raises(UserError, match=f"Did you mean '{near}'"):
        audit_config(options.pop("mixer"), 2, **options)


@pytest.mark.parametrize("mixer", ["gru", "ssm", "convformer", "conv", "bag"])
def test_a_state_that_is_carried_may_show_more_when_acting(mixer: str) -> None:
    result = audit_config(mixer, 4, state="carried")
    assert result.findings == []
    assert result.record()["state"] == "carried"
    beyond = [lag for lag in result.lags if lag >= 4]
    acting = result.receptive["action"]["acting"][-len(beyond) :]
    assert any(acting) and not any(result.receptive["action"]["training"][-len(beyond) :])  # noqa: PT018


def test_a_state_that_cannot_be_carried_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluate.state: mixer 'attention' cannot carry"):
        audit_config("attention", 4, state="carried")
    with pytest.raises(UserError, match=r"evaluate.state: carried needs timesteps that stay"):
        audit_config("gru", 4, condition="return-to-go", state="carried")
    with pytest.raises(UserError, match=r"evaluate.state: 'carry' is not known.*carried"):
        audit_config("gru", 4, state="carry")


@pytest.mark.parametrize(
    ("mixer", "options"),
    [
        ("attention", {"positions": "rotary"}),
        ("attention", {"positions": "none", "heads": 2, "activation": "relu"}),
        ("attention", {"window": 3}),
        ("attention", {"window": 2, "positions": "rotary", "state": "carried"}),
        ("attention", {"window": 2, "positions": "rotary", "layout": "modality"}),
        ("convformer", {"layout": "modality"}),
        ("convformer", {"window": 1, "layout": "modality"}),
        ("ssm", {"layout": "modality"}),
        ("gru", {"layout": "modality"}),
        ("lstm", {"layout": "dimension"}),
    ],
)
def test_options_and_interleaved_tokens_pass(mixer: str, options: dict[str, str]) -> None:
    assert audit_config(mixer, 6, **options).findings == []


def test_a_mixer_that_says_how_little_it_reaches_need_not_see_more() -> None:
    result = audit_config("attention", 8, window=2)  # two layers of two: three timesteps
    assert result.findings == []
    assert result.declared["observation"] == [0, 1, 2]
    assert "observation   ··|●●●·····|" in result.text()
