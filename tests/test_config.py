"""What a configuration holds, what it refuses, and what of it is hashed."""

import pytest

from ablate.config import FACTORS, OPTIONAL, SECTIONS, complete, settled
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
    assert list(made) == ["data", *FACTORS, *OPTIONAL, "timesteps", "settings", *SECTIONS]
    assert complete(made) == made
    assert made["model"]["heads"] == 1
    assert made["evaluate"]["state"] == "re-encoded"


def test_what_came_later_is_hashed_only_where_it_is_not_at_its_default() -> None:
    first = settled(complete(LEAST))
    assert set(first) == {"data", *FACTORS, *SECTIONS}
    assert set(first["model"]) == {"parameters", "tolerance", "layers", "dropout"}
    assert "keep" not in first["train"]
    assert "plan" not in first["evaluate"]
    other = complete({**LEAST, "layout": "modality", "model": {"heads": 2}, "train": {"keep": 0.1}})
    assert settled(other)["layout"] == "modality"
    assert settled(other)["model"]["heads"] == 2
    assert settled(other)["train"]["keep"] == 0.1
    assert settled(complete({**LEAST, "settings": {"alpha": 1}}))["settings"] == {"alpha": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixr": "gru"}, "mixr"),
        ({"condition": "goals"}, "goal"),
        ({"history": "everything"}, "states"),
        ({"input": "bins"}, "discretised"),
        ({"model": {"depth": 3}}, "there is no 'model.depth'; allowed: .*layers"),
        ({"model": {"heads": 0}}, "model.heads: found '0'"),
        ({"train": {"keep": 1.5}}, "train.keep: found '1.5'"),
        ({"evaluate": {"target": "best"}}, "evaluate.target: found 'best'"),
    ],
)
def test_refusals_say_where_and_what_is_allowed(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        complete({**LEAST, **change})


def test_a_missing_factor_is_named() -> None:
    with pytest.raises(UserError, match="'mixer' is missing"):
        complete({name: value for name, value in LEAST.items() if name != "mixer"})
