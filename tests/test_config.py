"""What a configuration holds, what it refuses, and what of it is hashed."""

import math

import pytest

from ablate.config import (
    FACTORS,
    OPTIONAL,
    SECTIONS,
    Converged,
    budgets,
    complete,
    fit_part,
    is_factor,
    settled,
)
from ablate.errors import UserError

LEAST = {
    "data": "lq-mix/single",
    "mixer": "gru",
    "context": 5,
    "condition": "none",
    "history": "states+actions",
    "head": "mse",
}


def test_defaults_are_filled_in_and_said_once() -> None:
    made = complete(LEAST)
    assert list(made) == [
        "data",
        *FACTORS,
        *OPTIONAL,
        "reading",
        "timesteps",
        "settings",
        *SECTIONS,
        "measure",
    ]
    assert complete(made) == made
    assert made["model"]["heads"] == 1
    assert list(made["measure"]) == ["rollout", "held-out"]
    assert made["measure"]["rollout"]["state"] == "re-encoded"


def test_what_came_later_is_hashed_only_where_it_is_not_at_its_default() -> None:
    first = settled(complete(LEAST))
    assert set(first) == {"data", *FACTORS, *SECTIONS}
    assert set(first["model"]) == {"parameters", "tolerance", "layers", "dropout"}
    assert "keep" not in first["train"]
    other = complete({**LEAST, "layout": "modality", "model": {"heads": 2}, "train": {"keep": 0.1}})
    assert settled(other)["layout"] == "modality"
    assert settled(other)["model"]["heads"] == 2
    assert settled(other)["train"]["keep"] == 0.1
    set_ = complete({**LEAST, "algorithm": "joint", "settings": {"bins": 7}})
    assert settled(set_)["settings"] == {"bins": 7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixr": "gru"}, "mixr"),
        ({"condition": "goals"}, "goal"),
        ({"history": "everything"}, "states"),
        ({"input": "bins"}, "discretised"),
        ({"mixer": ["gru"]}, "mixer: found .* allowed: one name"),
        ({"context": None}, "no whole number of timesteps"),
        ({"context": [1, 2]}, "as in '512 tokens'"),
        ({"settings": {"alpha": 1}}, "settings: 'alpha' is not known; allowed: nothing"),
        ({"settings": 3}, "allowed: keys with values"),
        ({"train": {"updates": True}}, "true and false are no numbers"),
        ({"model": {"depth": 3}}, "model: 'depth' is not known; allowed: .*layers"),
        ({"model": {"heads": 0}}, "model.heads: found '0'"),
        ({"train": {"keep": 1.5}}, "train.keep: found '1.5'"),
        ({"train": {"checkpoints": [5, 3]}}, "numbers of updates, 1 or more, that increase"),
        ({"train": {"updates": 9, "checkpoints": [10]}}, "found 10, after the last of 9 updates"),
        ({"train": {"converged": {"loss_fall": "200 %"}}}, "train.converged.loss_fall: found"),
        ({"measure": {"rollouts": {}}}, "the measurement: 'rollouts' is not known.*'rollout'"),
        ({"measure": {"rollout": {"target": "best"}}}, "measure.rollout.target: found 'best'"),
        (
            {"measure": {"plan": {"beams": 3}}},
            "measure.plan: 'beams' is not known; .*Did you mean 'beam'",
        ),
    ],
)
def test_refusals_say_where_and_what_is_allowed(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        complete({**LEAST, **change})


def test_what_is_kept_or_measured_of_a_fit_is_not_hashed() -> None:
    plain = complete(LEAST)
    asked = complete(
        {
            **LEAST,
            "train": {"checkpoints": [5, 800], "converged": {"loss_fall": "2%"}},
            "measure": {"rollout": {"episodes": 3}},
        }
    )
    assert settled(asked) == settled(plain)
    assert fit_part(asked).keys() == plain.keys() - {"measure"}
    assert asked["train"]["converged"] == {"loss_fall": 0.02, "excess_error": None}
    assert (budgets(plain), budgets(asked)) == ((800,), (5, 800))


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        *[(name, True) for name in ("data", "mixer", "preset", "train.updates", "settings.alpha")],
        *[(name, True) for name in ("measure.plan.beam", "measure.rollout.target")],
        *[(name, False) for name in ("rollout.score", "held-out.loss", "open-loop.error@5")],
        *[(name, False) for name in ("seed", "budget", "parameters", "trial", "failure")],
    ],
)
def test_a_column_is_a_factor_or_it_is_not(name: str, factor: bool) -> None:
    assert is_factor(name) is factor


def test_a_missing_factor_is_named() -> None:
    with pytest.raises(UserError, match="'mixer' is missing"):
        complete({name: value for name, value in LEAST.items() if name != "mixer"})


@pytest.mark.parametrize(
    ("criterion", "fall", "excess", "expected"),
    [
        ({"loss_fall": None, "excess_error": None}, 0.0, 0.0, math.nan),
        ({"loss_fall": 0.01}, 0.01, math.nan, 1.0),
        ({"loss_fall": 0.01}, 0.011, math.nan, 0.0),
        ({"loss_fall": 0.01}, math.nan, 0.0, math.nan),
        ({"excess_error": 0.02}, 0.9, 0.02, 1.0),
        ({"excess_error": 0.02}, 0.0, 0.03, 0.0),
        ({"loss_fall": 0.01, "excess_error": 0.02}, 0.0, 0.03, 0.0),
        ({"loss_fall": 0.01, "excess_error": 0.02}, 0.0, 0.01, 1.0),
        ({"loss_fall": 0.01, "excess_error": 0.02}, 0.0, math.nan, 1.0),
    ],
)
def test_a_criterion_of_convergence(
    criterion: dict, fall: float, excess: float, expected: float
) -> None:
    assert Converged(**criterion).met(fall, excess) == pytest.approx(expected, nan_ok=True)
