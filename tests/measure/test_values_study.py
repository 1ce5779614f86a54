"""What the study of values brings along: comparisons in closed form, decodings against the exact table, conditions
against a second method, and its figure."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablate import registry
from ablate.data import catalogue, tabular
from ablate.data.families.tabular import exact_table, parse, simulate
from ablate.data.tabular_windows import window_returns
from ablate.measure.acting import unread
from ablate.report.results import Results
from ablate.study.load import load

STUDY = Path(__file__).parents[2] / "studies" / "values.yaml"


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDY.with_suffix(".py")))
        yield sys.modules[registry.get("measurement", "semantics").__module__]


# --- which value it is ---


def test_predictions_on_the_way_from_one_value_to_another(own: Any) -> None:
    rng = np.random.default_rng(0)
    told, other = rng.normal(size=(2, 500))
    share = np.array([0.0, 0.3, 1.0])
    predicted = told + share[:, None] * (other - told)
    excess, way, counted = own.tracked(predicted, told, other, 0.25)
    rows = np.abs(other - told) > 0.25 * told.std()
    np.testing.assert_allclose(way, share, atol=1e-12)
    expected = np.square(other - told)[rows].mean() * (1 - 2 * share) / told.var()
    np.testing.assert_allclose(excess, expected)
    assert counted == rows.mean()
    # Noise that knows neither of the two moves nothing on average.
    noisy = predicted[:1] + rng.normal(size=(2000, 500))
    assert own.tracked(noisy, told, other, 0.25)[1].mean() == pytest.approx(0.0, abs=0.01)
    assert np.isnan(own.tracked(predicted, told, told, 0.25)[1]).all()


def test_slopes_are_numpys(own: Any) -> None:
    rng = np.random.default_rng(1)
    exact, predicted = rng.normal(size=300), rng.normal(size=(2, 300))
    slope, error = own.line(predicted, exact)
    for i, each in enumerate(predicted):
        assert slope[i] == pytest.approx(np.polyfit(exact, each, 1)[0])
        assert error[i] == pytest.approx(np.mean((each - exact) ** 2) / exact.var())


@pytest.mark.parametrize("name", ["chain/gamble-episode-v0", "grid/calm-step-v0"])
def test_candidates_are_the_exact_values_of_what_was_done(own: Any, name: str) -> None:
    member = parse(name, name, [])
    held = simulate(member, "held_out").select(np.arange(40))
    data = SimpleNamespace(spec=SimpleNamespace(name=name, family=member.family), held_out=held)
    rows = np.arange(0, len(held.rewards), 3)
    found = own.candidates(data, rows, 8, 0.9, 2)
    law = member.law
    np.testing.assert_array_equal(
        found["window"], window_returns(law, held, 8, acted=True, discount=0.9)[rows]
    )
    # A window of one timestep tells what the state does.
    np.testing.assert_allclose(
        found["behaviour"], window_returns(law, held, 1, acted=True, discount=0.9)[rows]
    )
    ask = tabular.optimal_values(law.process)
    for i, row in enumerate(rows):
        one = held.observations[row : row + 1], held.actions[row : row + 1]
        best = ask(*one, int(held.timestep[row]), 0.9)
        assert found["optimal"][i] == pytest.approx(best[0])
    assert (found["optimal"] >= found["plan"] - 1e-9).all()
    same = own.candidates(data, rows, 8, 0.9, law.process.horizon)
    np.testing.assert_allclose(same["plan"], same["optimal"])
    if member.mixing == "step":
        np.testing.assert_allclose(found["window"], found["behaviour"])
    elsewhere = SimpleNamespace(spec=catalogue.spec("tmaze/passive-20"), held_out=held)
    assert own.candidates(elsewhere, rows, 8, 0.9, 2) is None


def test_the_optimal_set_has_one_value() -> None:
    law = parse("grid/cliff-optimal-v0", "", []).law
    best = tabular.optimise(law.process)[0]
    early = tabular.data_values(law).action[0]
    seen = law.joint.sum((0, 1)) > 0
    taken = law.policies[0].argmax(1)
    np.testing.assert_allclose(
        early[seen, taken[seen]], best.action[0][seen, taken[seen]], atol=0.02
    )


# --- decoding ---


@pytest.mark.parametrize("name", ["chain/gamble-step-v0", "chain/certain-episode-v0"])
def test_exact_decodings_are_those_of_the_table(own: Any, name: str) -> None:
    rows = {row["what"]: row["score"] for row in exact_table(name)}
    member = parse(name, name, [])
    anchors = SimpleNamespace(score=lambda x: 100 * (x - low) / (high - low))
    both = tabular.evaluate
    values = [
        float(member.process.start @ both(member.process, p).state[0]) for p in member.law.policies
    ]
    low, high = (
        min(values),
        float(member.process.start @ tabular.optimise(member.process)[0].state[0]),
    )
    data = SimpleNamespace(spec=SimpleNamespace(name=name, family=member.family), anchors=anchors)
    for horizon in (1, 2):
        expected = rows[f"look-ahead of {horizon}"]
        assert own.exact_score(data, "return", horizon, 1.0) == pytest.approx(expected, abs=1e-4)
    assert own.exact_score(data, "exact", 1, 1.0) == pytest.approx(100.0)
    assert own.exact_score(data, "rewards", 30, 1.0) == pytest.approx(100.0)
    assert np.isnan(own.exact_score(data, "likelihood", 1, 1.0)) == (member.mixing == "episode")
    assert np.isnan(own.exact_score(data, "critic", 1, 1.0))


def test_every_decoding_is_a_search(own: Any) -> None:
    options = own.Decode.Options(horizon=3, beam=4)
    for by, changes in own.DECODINGS.items():
        made = own.decoded(by, options)
        assert (made.horizon, made.beam) == (3, 4)
        assert all(getattr(made, name) == value for name, value in changes.items())
    assert unread("direct") >= {"beam", "horizon", "value"}
    assert unread("return") == {"spread"}
    assert unread("rewards") == {"value", "spread"}


# --- returns to ask for ---


@pytest.mark.parametrize(("name", "how"), [("expected-return", "mean"), ("low-return", "low")])
def test_returns_of_what_looks_alike_are_pandas(own: Any, name: str, how: str) -> None:
    data = simulate(parse("chain/gamble-step-v0", "", []), "held_out").select(np.arange(120))
    told = registry.get("condition", name)().logged(data, None)[:, 0]
    table = pd.DataFrame(
        {
            "key": list(
                zip(data.timestep, data.observations.argmax(1), data.actions.argmax(1), strict=True)
            ),
            "value": data.returns_to_go,
        }
    )
    groups = table.groupby("key")["value"]
    if how == "mean":
        expected = groups.transform("mean")
    else:
        expected = groups.transform(lambda x: np.quantile(x, 0.25, method="lower"))
    np.testing.assert_allclose(told, expected, rtol=1e-6)


def test_luck_is_gone_from_the_gamble(own: Any) -> None:
    data = simulate(parse("chain/gamble-step-v0", "", []), "train")
    dared = (data.observations[:, 8] > 0.5) & (data.actions.argmax(1) == 2)
    expected = registry.get("condition", "expected-return")().logged(data, None)[dared, 0]
    assert set(data.rewards[dared]) == {19.0, -13.0}
    common = expected[data.timestep[dared] == 8]
    assert common.std() < 1e-5
    assert common.mean() == pytest.approx(-5.0, abs=1.5)  # 20/4 - 12 * 3/4 - 1, up to chance


# --- the study ---


@pytest.fixture(scope="module")
def results(own: Any) -> Results:
    """Made-up rows: values of the behaviour, and a search that needs six timesteps."""
    study = load(STUDY, "standard")
    rows = []
    for seed in range(3):
        for name in study.data[:4]:
            for context in (20, 2):
                for by, horizon in [
                    (b, h) for b in ("return", "rewards", "likelihood") for h in (1, 9)
                ]:
                    score = 100.0 if horizon == 9 and by != "likelihood" else 60.0
                    rows.append(
                        {
                            "trial": f"{seed}{name}{context}{by}{horizon}", "seed": seed, "data": name,
                            "status": "COMPLETED", "budget": 1250, "context": context, "algorithm": "joint",
                            "condition": "time", "settings.value_mask": True, own.BY: by,
                            own.HORIZON: horizon, own.BEAM: 32, "mixer": "attention",
                            "semantics.toward_optimal": 0.05 + 0.01 * seed,
                            "semantics.floor_toward_optimal": 0.0, "decode.score": score + seed,
                            "decode.exact": score,
                        }
                    )  # fmt: skip
    return Results(study, pd.DataFrame(rows))


def test_the_figure(own: Any, results: Results) -> None:
    drawn = own.semantics(results)
    left, right = drawn.figure.axes
    assert [label.get_text() for label in left.get_yticklabels()]
    said = [[text.get_text() for text in one.get_texts()] for one in drawn.figure.legends]
    assert said[0] == ["K = 2", "K = 20", "table of means"]
    assert "Chain, gamble-step" in said[1]
    assert [label.get_text() for label in right.get_yticklabels()] == list(own.WAYS)
    assert right.get_xlabel() == "score"
    assert drawn.trials
    bare = results.table.drop(columns=["semantics.toward_optimal"])
    assert own.semantics(Results(results.study, bare)) is None


def test_every_profile_of_the_study_stands() -> None:
    for profile in ("standard", "quick", "gpu"):
        study = load(STUDY, profile)
        assert study.hypotheses
        assert study.seeds >= 2
