"""A user's own conditions, in one file that is not ours: audited, trained, acting, in sums and refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_samples import Acting, Scripted, agent

from ablate import registry
from ablate.audit.audit import audit_config
from ablate.data import catalogue
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError
from ablate.measure.rollout import rollout
from ablate.models import conditions
from ablate.models.agent import stored
from ablate.models.layouts import Layout
from ablate.registry import load_plugin
from ablate.study.load import load
from ablate.systems import prepare
from ablate.trial import fit, measure, trained

PLUGIN = '''
import numpy as np
from ablate.models.conditions import Condition
from ablate.registry import register


@register("condition", "since-reward", label="steps since a reward")
class SinceReward(Condition):
    """Timesteps since the last reward, or since the episode's start."""

    def logged(self, trajectories, layout):
        row = np.arange(len(trajectories.rewards))
        began = np.repeat(trajectories.episode_starts[:-1], trajectories.lengths)
        after = np.where(trajectories.rewards != 0, row + 1, 0)  # where counting begins again
        after = np.concatenate([[0], np.maximum.accumulate(after)[:-1]])
        return (row - np.maximum(after, began))[:, None]

    def shown(self, moment, before):
        if before is None:
            return np.zeros((*moment.shape, 1))
        return np.where(moment.reward[..., None] != 0, 0.0, before + 1)

    def scaled(self, raw, scales, layout):
        return raw / scales.horizon


@register("condition", "remaining-time")
class RemainingTime(Condition):
    """Timesteps left and their share, of data that record their simulator's state."""

    def width(self, layout):
        return 2

    def logged(self, trajectories, layout):
        return trajectories.timestep[:, None]

    def shown(self, moment, before):
        return np.full((*moment.shape, 1), float(moment.timestep))

    def scaled(self, raw, scales, layout):
        left = scales.horizon - raw
        return (left / scales.horizon).expand(*raw.shape[:-1], 2)

    def stays(self, past):
        return False

    def missing(self, spec):
        return "" if spec.family == "tmaze" else "is about a maze"
'''
STUDY = """
study: own
question: Does it help to know the time since a reward?
factors:
  mixer: [mlp]
  context: [1]
  condition: [remaining-time+since-reward, none]
data: [{data}]
designs: {{core: {{data: {data}, condition: all}}}}
seeds: 2
hypotheses: []
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path) -> Iterator[None]:
    file = tmp_path / "own.py"
    file.write_text(PLUGIN)
    with registry.scope():
        load_plugin(str(file))
        yield


def data(rewards: list[float], lengths: list[int]) -> Trajectories:
    steps = sum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ends = np.isin(np.arange(steps), starts[1:] - 1)
    return Trajectories(
        name="sample",
        observations=np.zeros((steps, 3), np.float32),
        actions=np.zeros((steps, 2), np.float32),
        rewards=np.array(rewards, np.float32),
        terminations=ends,
        truncations=np.zeros_like(ends),
        episode_starts=starts,
    ).validate()


def test_it_says_the_same_of_logged_data_and_while_acting() -> None:
    """The episodes that are acted are logged, and read again."""
    who = Acting(lambda t, raw: torch.zeros(1, 4, 1), condition="since-reward")
    env = Scripted(4)
    env.step = scripted(env.step)  # type: ignore[method-assign]
    rollout(who, env, 4, study="s", seeds=[0], target=0.0, policy=None, sample=False)
    shown = torch.stack([raw.told["since-reward"][0, :, 0] for raw in who.shown], 1).tolist()
    assert shown == [[0, 1, 0, 1]] * 4
    again = data([0, 1, 0, 0] * 4, [4] * 4)
    read = stored(again, Layout(3, 2, 0, "states", "since-reward")).fields.told["since-reward"]
    assert read[:, 0].tolist() == [0, 1, 0, 1] * 4


def scripted(step: Any) -> Any:
    """The same, with a reward of 1 at the second of four timesteps and none else."""
    calls = []

    def call(actions: np.ndarray) -> Any:
        observed, rewards, _, _, info = step(actions)
        calls.append(0)
        over = np.full(len(rewards), len(calls) == 4)
        return observed, np.full(len(rewards), float(len(calls) == 2)), over, ~over & over, info

    return call


def test_it_counts_from_the_reward_on() -> None:
    layout = Layout(3, 2, 0, "states", "since-reward")
    told = layout.told(data([0, 0, 1, 0, 0, 1, 1, 0, 0], [5, 4]))["since-reward"]
    assert told[:, 0].tolist() == [0, 1, 2, 0, 1, 0, 0, 0, 1]


def test_it_is_one_of_a_sum() -> None:
    layout = Layout(3, 2, 0, "states", "time+since-reward+remaining-time")
    assert layout.columns == [
        ("observation", 3, True, True),
        ("remaining-time", 2, True, False),
        ("since-reward", 1, True, True),
        ("time", 1, True, True),
    ]
    assert not layout.carriable
    assert conditions.uses("since-reward+return-to-go") == {"target", "decrement"}
    assert conditions.uses("since-reward") == set()


@pytest.mark.parametrize("context", [1, 4])
def test_it_passes_the_audit(context: int) -> None:
    result = audit_config("gru", context, "states+actions", "since-reward+remaining-time")
    assert result.findings == []
    assert result.declared["since-reward"] == list(range(context))
    assert result.declared["remaining-time"] == [0]


def test_it_is_trained_and_acts(cache: Path, tmp_path: Path) -> None:
    config = {
        "data": "tmaze/passive-3",
        "mixer": "gru",
        "context": 3,
        "condition": "time+since-reward+remaining-time",
        "history": "states+actions",
        "head": "mse",
        "model": {"parameters": 2000, "tolerance": 0.2},
        "train": {"updates": 4, "warmup": 1},
    }
    system = prepare(config, cache)
    fits = {0: "first", 1: "second"}
    fitted = fit(system, "own", fits, tmp_path, stacked=True)
    assert [one.failure for one in fitted] == ["", ""]
    models = trained(system, "own", fits, tmp_path, 4)
    found = measure(models, "rollout", {"episodes": 4})
    assert all(np.isfinite(one.values["return_mean"]) for one in found)
    read = registry.get("measurement", "rollout").reads(system.config)
    assert not read & {"target", "decrement"}


@pytest.mark.parametrize(("name", "fits"), [("tmaze/passive-3", True), ("lq-mix/single", False)])
def test_what_it_needs_of_data_is_asked_before_anything_runs(
    tmp_path: Path, name: str, fits: bool
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(STUDY.format(data=name))
    if fits:
        assert load(file).factors["condition"] == ("remaining-time+since-reward", "none")
        return
    with pytest.raises(UserError) as caught:
        load(file)
    assert (
        "the condition 'remaining-time' needs data that is about a maze; 'lq-mix/single' does not. "
        "Allowed here: none, time, return-to-go, " in str(caught.value)
    )


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (np.zeros((9, 1, 1)), r"condition 'bad': says numbers of shape \(9, 1, 1\) of sample"),
        (np.zeros((8, 1)), r"of shape \(8, 1\) of sample; allowed: \(9, w\)\."),
        (np.full((9, 1), np.nan), r"what it says of row 0 of sample is not finite"),
    ],
)
def test_what_is_wrong_of_it_is_said_in_one_line(told: np.ndarray, line: str) -> None:
    class Bad(conditions.Condition):
        def logged(self, *_: Any) -> np.ndarray:
            return told

        def shown(self, *_: Any) -> np.ndarray:
            return told

        def scaled(self, raw: torch.Tensor, *_: Any) -> torch.Tensor:
            return raw

    registry.register("condition", "bad")(Bad)
    with pytest.raises(UserError, match=line):
        stored(data([0.0] * 9, [5, 4]), Layout(3, 2, 0, "states", "bad"))


def test_another_width_than_declared_is_refused() -> None:
    class Wide(conditions.of("time")["time"].__class__):  # type: ignore[misc]
        def width(self, layout: Layout) -> int:
            return 3

    registry.register("condition", "wide")(Wide)
    some = agent("mlp", 1, [0], (3, 2), condition="wide")
    with pytest.raises(UserError, match=r"condition 'wide': gives 1 columns; it declares 3\."):
        some.tokens(stored(data([0.0] * 9, [5, 4]), some.layout).fields)


def test_of_data_that_is_in_the_catalogue_each_says_what_is_missing() -> None:
    spec = catalogue.spec("d4rl/hopper-medium-v2")
    lacking = {p.name: p.value().missing(spec) for p in registry.parts("condition")}
    assert {name: said for name, said in lacking.items() if said} == {
        "goal": "shows a goal's place",
        "policy-id": "says which policy acted",
        "remaining-time": "is about a maze",
    }
