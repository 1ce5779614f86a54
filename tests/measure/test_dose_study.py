"""What the study of doses adds: estimators against scipy and by hand, the acting with a past in random order."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from ablate import registry
from ablate.analyse.estimators import Asked, Untold, make
from ablate.data import exact, kalman
from ablate.data.catalogue import DataSet, load, spec
from ablate.envs.lq import LinearQuadratic
from ablate.errors import UserError
from ablate.models.conditions import Moment

COLUMNS = ["data", "seed", "context", "m", "dose.nats"]
STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def own() -> Any:
    """What the study measures, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDIES / "dose.py"))
        yield sys.modules[registry.get("measurement", "recovery").__module__]


@pytest.fixture(scope="module")
def worth() -> Any:
    """What is made of it, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDIES / "dose_worth.py"))
        yield sys.modules[registry.get("estimator", "dose-harm").__module__]


def rows(
    gains: dict[str, float], doses: dict[str, float], seeds: int = 6, noise: float = 0.0
) -> Any:
    """Trials with and without memory: the shortfall without is 50, and with it 50 less the gain."""
    rng = np.random.default_rng(0)
    made = []
    for data, gain in gains.items():
        for seed in range(seeds):
            for context in (1, 20):
                short = 50.0 - gain * (context == 20) + noise * rng.standard_normal()
                nats = doses[data] if context == 1 else math.nan
                made.append((data, seed, context, short, nats))
    return pd.DataFrame(made, columns=COLUMNS)


ASKED = Asked("m")


@pytest.mark.parametrize("seed", range(5))
def test_concordance_is_somers_d(worth: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    doses = np.sort(rng.choice(np.arange(1.0, 9.0), size=7))  # with ties
    values = np.round(rng.standard_normal((7, 3)), 1)
    found = worth.concordance(doses, values, apart=0.0)
    for column, value in zip(values.T, found, strict=True):
        assert value == pytest.approx(stats.somersd(doses, column).statistic)


def test_its_mean_is_the_count_of_jonckheere_and_terpstra(worth: Any) -> None:
    """With one run a dose and seed: pairs of the same seed alone, each counted as Mann and Whitney count."""
    doses, values = np.arange(4.0), np.random.default_rng(1).standard_normal((4, 1))
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    count = sum(stats.mannwhitneyu(values[j], values[i]).statistic for i, j in pairs)
    assert worth.concordance(doses, values, 0.0)[0] == pytest.approx(2 * count / len(pairs) - 1)


def test_a_rise_a_fall_and_a_hump_over_the_dose(own: Any) -> None:
    doses = {"a": 0.0, "b": 0.1, "c": 0.3}
    for gains, expected in (((0, 5, 9), 1.0), ((9, 5, 0), -1.0), ((0, 9, 5), 1 / 3)):
        found = make("dose-trend", {})(rows(dict(zip(doses, gains, strict=True)), doses), ASKED)
        assert found.value == pytest.approx(expected)
        assert "Jonckheere-Terpstra" in " ".join(found.notes)
    assert make("dose-trend", {})(
        rows({"a": 0, "b": 9, "c": 9}, doses), ASKED
    ).value == pytest.approx(2 / 3)


def test_a_raw_gain_that_only_follows_the_gap_is_no_rise_of_the_share(own: Any) -> None:
    """At each dose memory recovers half of the gap, and the gap grows."""
    made = []
    for data, gap, nats in (
        ("t", 0.0, 0.0),
        ("t@b", 10.0, 0.1),
        ("t@c", 40.0, 0.3),
        ("t@d", 60.0, 0.5),
    ):
        for seed in range(4):
            jitter = 0.2 * np.sin(7 * seed + gap)
            for context, short in ((1, 5 + gap), (20, 5 + gap * (0.5 + jitter))):
                made.append((data, seed, context, short, nats))
    table = pd.DataFrame(made, columns=COLUMNS)
    assert make("dose-trend", {"of": "gain"})(table, ASKED).value > 0.7
    share = make("dose-trend", {"of": "share"})(table, ASKED)
    assert abs(share.value) < 0.7
    assert share.notes[0].startswith("3 doses")  # the first has no gap
    with pytest.raises(Untold):
        make("dose-trend", {"of": "share", "least": 100})(table, ASKED)


def test_memory_where_there_is_no_dose(own: Any) -> None:
    doses = {"a": 0.0, "b": 0.004, "c": 0.3}
    found = make("no-dose", {})(rows({"a": 1.0, "b": 2.0, "c": 30.0}, doses), ASKED)
    assert found.value == pytest.approx(1.5)
    with pytest.raises(Untold, match="no dose is below"):
        make("no-dose", {})(rows({"c": 30.0}, doses), ASKED)


def test_harm_at_a_dose_that_was_not_chosen_beforehand(worth: Any) -> None:
    doses = {name: 0.1 * i for i, name in enumerate("abcd")}
    table = rows({"a": 0.0, "b": 5.0, "c": -8.0, "d": 1.0}, doses, noise=1.0)
    found = make("dose-harm", {})(table, ASKED)
    each = worth.responses(table, "m", 20).groupby("data")["gain"]
    assert found.value == pytest.approx(-each.mean().min())
    one = stats.ttest_1samp(-each.get_group("c"), 3.0, alternative="greater")
    assert found.p_value(3.0, "greater") == pytest.approx(min(1.0, 4 * one.pvalue), rel=1e-6)
    low = stats.ttest_1samp(-each.get_group("c"), 0.0).confidence_interval(1 - 0.05 / 4).low
    assert found.interval(0.95)[0] == pytest.approx(low)


@pytest.mark.slow
def test_it_rarely_finds_harm_where_there_is_none(worth: Any) -> None:
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(400):
        made = {str(i): rng.standard_normal(5) for i in range(6)}
        each = tuple(worth.ByT(worth.combine([1.0], [x]), 5) for x in made.values())
        alarms += worth.Worst(each, "", ()).p_value(0.0, "greater") < 0.05
    assert alarms / 400 < 0.075


def test_repeated_and_foretold_actions(own: Any) -> None:
    rng = np.random.default_rng(0)
    actions = np.zeros((2000, 3, 2))
    for t in range(1, 2000):
        actions[t] = 0.8 * actions[t - 1] + 0.6 * rng.standard_normal((3, 2))
    now, before = own.consecutive(actions, np.array([2000, 2000, 2]))
    assert len(now) == 1999 + 1999 + 1
    assert own.foretold(now, before) == pytest.approx(0.64, abs=0.03)
    assert own.repeats(now, now, 1.0) == 1.0
    near = stats.chi2.cdf(2 * 0.01 / (0.4), df=2)  # |a_t - a_t-1|^2 has variance 2 (1 - 0.8) = 0.4
    assert own.repeats(now, before, 1.0) == pytest.approx(near, abs=0.015)


def test_the_estimate_is_the_same_logged_and_in_action(own: Any, cache: Path) -> None:
    """A logged episode of the filter's own demonstrator, shown again a timestep after the other."""
    data: DataSet = load("lq-filter/3@noise-1:masked", cache)
    part, condition = data.train, own.Estimate()
    logged = condition.logged(part, None).reshape(-1, 100, 4)
    shown, done = part.observations.reshape(-1, 100, 4), part.actions.reshape(-1, 100, 2)
    env, before = data.spec.make_env(1), None
    for t in range(5):
        led = done[:, t - 1] if t else np.zeros_like(done[:, 0])
        moment = Moment(shown[None, :, t], led[None], np.zeros((1, len(shown))), t, env, None, 0.0, False, None)  # type: ignore[arg-type]  # fmt: skip
        before = condition.shown(moment, before)
        np.testing.assert_allclose(
            before[0], logged[:, t], atol=0.05
        )  # the noise's size is read off three episodes
    assert condition.missing(spec("tmaze/passive-5"))
    assert not condition.missing(spec("lq-mix/single@noise-1"))


def test_the_filter_acts_by_its_estimate(own: Any, cache: Path) -> None:
    data = load("lq-filter/3@mask-velocity:masked", cache)
    part = data.train
    assert part.behaviour_action is not None
    law = kalman.Filter(kalman.Seen.of(data.spec.make_env(1)))
    shown, done = part.observations.reshape(-1, 100, 2), part.actions.reshape(-1, 100, 2)
    mean = part.behaviour_action.reshape(-1, 100, 2)
    law.start(len(shown))
    for t in range(100):
        law.observe(shown[:, t])
        np.testing.assert_allclose(mean[:, t], law.act(), atol=1e-6)
        law.acted(done[:, t])
    with pytest.raises(UserError):
        spec("lq-filter/0")


def test_yardsticks_are_there_where_they_are_known(own: Any, cache: Path) -> None:
    seeds = np.arange(6).reshape(2, 3)
    known = load("lq-mix/single-10@noise-1", cache)
    for who in kalman.WHO:
        assert np.isfinite(own.yardsticks(known, seeds, who)).all()
    assert own.known_dose(known.spec) > 0.1
    blind = load("lq-mix/single-10@noise-1:masked", cache)
    assert np.isfinite(own.yardsticks(blind, seeds, "filter")).all()
    assert np.isnan(own.yardsticks(blind, seeds, "clone")).all()
    dropped = load("lq-mix/single-10@drop-0.5", cache)
    assert np.isnan(own.yardsticks(dropped, seeds, "memoryless")).all()
    assert math.isnan(own.known_dose(dropped.spec))


class Sums:
    """A stand-in for an agent that notes which rows stood where: 2 policies, windows of 3, rows (state, action)."""

    size, device, noise_dim, context = 2, torch.device("cpu"), 0, 3

    def __init__(self) -> None:
        self.layout = SimpleNamespace(
            columns=[("observation", 1, True, True), ("action", 1, False, True)], conditions={}
        )
        self.stack = self
        self.head = SimpleNamespace(mode=lambda params: params[..., :1])
        self.windows: list[torch.Tensor] = []

    def eval(self) -> Sums:
        return self

    def start(self, batch: int) -> Sums:
        return self

    def tokens(self, raw: Any) -> torch.Tensor:
        return torch.cat([raw.observation, raw.action], dim=-1)

    def __call__(self, rows: torch.Tensor, lengths: torch.Tensor, method: str) -> torch.Tensor:
        self.windows.append(rows)
        return rows[:, :, 0]


def test_a_past_in_random_order_keeps_the_present_and_the_pairs(own: Any) -> None:
    agent = Sums()
    watched = own.Watched(agent, [np.random.default_rng(i) for i in range(2)])
    acting = watched.start(40)
    for t in range(5):
        state = torch.full((2, 40, 1), float(t))
        fields = own.Fields(state, state + 100, state[..., 0], state[..., 0], {})
        acting.act(fields, None)
    last = agent.windows[-1]  # (2, 40, 3, 2): timesteps 2, 3, 4
    np.testing.assert_array_equal(last[:, :, 2], np.broadcast_to([4.0, 104.0], (2, 40, 2)))
    assert {tuple(x) for x in last[:, :, :2].reshape(-1, 2).tolist()} == {(2.0, 0.0), (3.0, 103.0)}
    orders = last[:, :, 0, 0]
    assert 10 < int((orders == 2.0).sum()) < 70  # both orders occur
    assert len(watched.actions) == 5
    assert watched.actions[0].shape == (2, 40, 1)


def test_what_memory_is_worth_is_measured_to_who_sees_the_state(worth: Any) -> None:
    table = rows({"t": 0.0, "t@b": 20.0}, {"t": 0.0, "t@b": 0.2}, seeds=2)
    table.loc[(table["data"] == "t"), "m"] = 10.0
    found = worth.responses(table, "m", 20).set_index(["data", "seed"])
    assert found.loc[("t@b", 0), "gain"] == 20.0
    assert found.loc[("t@b", 0), "gap"] == 40.0
    assert found.loc[("t", 1), "gap"] == 0.0
    alone = worth.responses(table[table["data"] == "t@b"], "m", 20)
    assert (alone["gap"] == 50.0).all()  # to the optimum
    assert worth.oracle("lq-filter/3000@noise-1:masked") == "lq-mix/single-3000"
    assert (
        exact.optimal_return() >= kalman.returns(LinearQuadratic, range(300), "filter").mean() - 5
    )
