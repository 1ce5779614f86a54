"""Verdicts about new data sets and about trends, and how both estimands stand side by side."""

from __future__ import annotations

import numpy as np
import pytest
from analyse_samples import analyse, claim, tidy

from ablate.analyse.claims import OVER_DATA_SETS, PAIRED, TOST_OVER_DATA_SETS
from ablate.errors import UserError

MANY = [f"d{i}" for i in range(6)]
TREND = "trend(context[1, 5, 20])"


def memory(gain: float, slope: float = 0.0):
    """Gains that differ between data sets by `slope` each, `gain` on average over six of them."""
    return lambda cell: (
        50.0 + (gain + slope * (MANY.index(cell["data"]) - 2.5)) * (cell["context"] == 20)
    )


def one(table, hypothesis, **rest):
    return analyse(table, [hypothesis], registered=True, **rest).verdicts[0]


@pytest.mark.parametrize(
    ("gain", "slope", "rest", "verdict"),
    [
        (8.0, 1.0, {}, "supported"),
        (-8.0, 1.0, {}, "refuted"),
        (8.0, 8.0, {}, "inconclusive"),
        (0.0, 0.5, {}, "equivalent"),
        (8.0, 1.0, {"threshold": 20.0}, "refuted"),
        (8.0, 1.0, {"test": "difference"}, "supported"),
        (0.0, 0.5, {"test": "equivalence"}, "equivalent"),
        (0.0, 4.0, {"test": "equivalence"}, "inconclusive"),
        (12.0, 1.0, {"test": "equivalence"}, "refuted"),
    ],
)
def test_the_rule_for_new_data_sets(gain, slope, rest, verdict):
    found = one(tidy(memory(gain, slope), data=MANY), claim(estimand="population", **rest))
    assert found.verdict == verdict, found.sentence
    assert found.estimand == "population"
    assert found.df in (5, 4)  # of data sets, or of seeds where they leave more open
    name = TOST_OVER_DATA_SETS if rest.get("test") == "equivalence" else OVER_DATA_SETS
    assert found.test_name == name
    assert (found.low, found.high) == (found.population.low, found.population.high)
    assert (
        "For new data sets, of which these 6 are a sample (population estimand)" in found.sentence
    )
    assert "On these data sets, for new seeds (fixed estimand), it is" in found.sentence


def test_the_estimand_decides_where_data_sets_differ():
    table = tidy(memory(8.0, 8.0), data=MANY)
    fixed, new = (one(table, claim(estimand=name)) for name in ("fixed", "population"))
    assert (fixed.verdict, new.verdict) == ("supported", "inconclusive")
    assert fixed.estimate == pytest.approx(new.estimate)
    assert new.high - new.low > 3 * (fixed.high - fixed.low)
    for name in ("estimate", "low", "high", "df", "p"):
        assert getattr(fixed.fixed, name) == getattr(new.fixed, name)
    assert fixed.fixed.randomisation == "sign flips (all 32 arrangements)"
    assert fixed.population == new.population
    assert new.population.slope_sd == pytest.approx(8.0 * np.sqrt(3.5), rel=0.2)
    assert "mixed model with random slopes" in fixed.sentence
    assert "exact sign flips p = " in new.sentence


def test_one_seed_a_data_set_is_enough_for_new_data_sets():
    table = tidy(memory(8.0, 1.0), data=MANY, seeds=1, mixer=("gru",))
    assert one(table, claim()).verdict == "not tested"
    found = one(table, claim(estimand="population"))
    assert found.verdict == "supported"
    assert found.fixed.estimate is None
    assert "there is no interval: some cell has a single finished seed" in found.sentence
    assert "no mixed model: no cell has two seeds" in found.sentence
    assert np.isnan(found.details[0].by_data_set["d0"][1])


def test_one_data_set_cannot_speak_of_others():
    found = one(tidy(memory(8.0), data=MANY[:1]), claim(estimand="population"))
    assert found.verdict == "not tested"
    assert "It cannot be decided, because the estimand is new data sets" in found.sentence
    assert found.population.estimate is None


def test_an_effect_that_is_the_same_on_all_data_sets_has_no_interval():
    found = one(tidy(memory(8.0), data=MANY, noise=0.0), claim(estimand="population"))
    assert found.degenerate
    assert "The contrast is the same on all data sets" in found.sentence


def test_unequal_seeds_and_missing_cells_are_used_and_said():
    table = tidy(memory(8.0, 1.0), data=MANY)
    table = table.drop(index=table.index[(table["seed"] == 4) & (table["data"] == "d1")][:2])
    table = table[~((table["data"] == "d2") & (table["mixer"] == "mlp") & (table["context"] == 1))]
    for estimand in ("fixed", "population"):
        found = one(table, claim(estimand=estimand))
        assert found.verdict == "supported"
        assert "Paired within 4 to 5 seeds." in found.sentence
        assert "Left out of the average for lack of a cell: 1 combination" in found.sentence
        assert found.population.n_datasets == 6
        assert found.population.mixed_p is not None


def stairs(*levels: float):
    return lambda cell: dict(zip((1, 5, 20), levels, strict=True))[cell["context"]]


@pytest.mark.parametrize(
    ("levels", "noise", "verdict"),
    [
        ((50.0, 54.0, 55.0), 3.0, "supported"),
        ((55.0, 54.0, 50.0), 3.0, "refuted"),
        ((50.0, 50.0, 50.0), 1.0, "equivalent"),
        ((50.0, 50.0, 50.0), 40.0, "inconclusive"),
    ],
)
@pytest.mark.parametrize("estimand", ["fixed", "population"])
def test_the_rule_for_trends(levels, noise, verdict, estimand):
    table = tidy(stairs(*levels), context=(1, 5, 20), noise=noise, data=MANY[:4])
    found = one(table, claim("rise", TREND, test="trend", estimand=estimand))
    assert found.verdict == verdict, found.sentence
    assert found.test_name == (PAIRED if estimand == "fixed" else OVER_DATA_SETS)
    assert found.estimate == pytest.approx(levels[2] - levels[0], abs=noise)
    assert found.curve is not None
    assert found.curve.levels == ("1", "5", "20")
    assert "The nearest rising curve" in found.sentence
    assert "wanted a rise; one-sided" in found.sentence


def test_a_trend_sees_what_its_ends_hide():
    """The rise of the line uses the levels between."""
    table = tidy(stairs(50.0, 50.0, 58.0), context=(1, 5, 20), noise=2.0)
    found = one(table, claim("rise", "log_trend(context[1, 5, 20])", test="trend"))
    assert found.verdict == "supported"
    means = found.curve.means
    places = np.log([1.0, 5.0, 20.0])
    rise = np.polyfit(places, means, 1)[0] * (places[-1] - places[0])
    assert found.estimate == pytest.approx(rise)


def test_a_trend_in_the_answer():
    table = tidy(stairs(50.0, 54.0, 58.0), context=(1, 5, 20))
    result = analyse(table, [claim("rise", TREND, test="trend", primary=True)])
    assert result.answer.startswith("Memory: yes, +")
    assert " from context 1 to 20. Rise holds: supported" in result.answer


def test_a_trend_needs_all_its_levels():
    found = one(tidy(stairs(50.0, 0.0, 58.0)), claim("rise", TREND, test="trend"))
    assert found.verdict == "not tested"
    assert "It cannot be decided, because some cell that it needs wasn't run" in found.sentence


def test_an_interaction_with_a_trend_is_a_contrast_like_any_other():
    def steeper(cell):
        return {1: 0.0, 5: 3.0, 20: 6.0}[cell["context"]] * (cell["mixer"] == "gru")

    table = tidy(steeper, mixer=("mlp", "gru"), context=(1, 5, 20), seeds=8)
    found = one(table, claim("steeper", f"{TREND} : (mixer[gru] - mixer[mlp])"))
    assert found.verdict == "supported"
    assert found.fixed.randomisation == "sign flips (all 256 arrangements)"
    assert found.estimate == pytest.approx(6.0, abs=1.5)
    assert found.curve is None


def test_what_an_estimand_cannot_be_about_is_refused():
    with pytest.raises(ValueError, match="asks about new data sets"):
        claim(contrast="data[a] - data[b]", estimand="population")
    table = tidy(memory(8.0), data=MANY)
    with pytest.raises(UserError, match="needs a margin"):
        one(
            table.assign(action_error=1.0),
            claim(metric="action_error", test="equivalence", estimand="population", margin=None),
        )
