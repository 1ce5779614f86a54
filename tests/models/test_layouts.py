import pytest
import torch

from ablate.data.normalise import Scales
from ablate.errors import UserError
from ablate.models.layouts import Fields, Layout

HISTORIES = (
    "states+actions",
    "states",
    "actions",
    "states+actions+rewards",
    "states+actions+returns",
)
CONDITIONS = {  # a number for each, whatever the scales
    "none": {},
    "time": {"time": 5.0},
    "return-to-go": {"return-to-go": 4.0},
    "return-to-go+time": {"return-to-go": 4.0, "time": 5.0},
    "policy-id": {"policy-id": 6.0},
    "average-return": {"average-return": 7.0},
    "average-return+time": {"average-return": 7.0, "time": 5.0},
    "goal": {"goal": 8.0},
    "goal+time": {"goal": 8.0, "time": 5.0},
}
SCALES = Scales(torch.zeros(3), torch.ones(3), 1.0, 1.0, 1)


def fields(n: int = 3, m: int = 2, z: int = 2) -> Fields:
    return Fields(
        observation=torch.full((n,), 1.0),
        action=torch.full((m,), 2.0),
        reward=torch.tensor(3.0),
        time=torch.tensor(9.0),
        told={
            "return-to-go": torch.tensor([4.0]),
            "time": torch.tensor([5.0]),
            "policy-id": torch.full((z,), 6.0),
            "average-return": torch.tensor([7.0, 0.0]),  # 7 over the one timestep that is left
            "goal": torch.full((2,), 8.0),
        },
    )


def mask(layout: Layout, context: int, length: int) -> torch.Tensor:
    """(K, F): what a window of `length` shows."""
    return layout.visible(context).mask(torch.tensor(length))


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_present_shows_the_observation_and_the_condition_whatever_the_history(
    history, condition
):
    layout = Layout(3, 2, 2, history, condition, goal=(0, 2))
    token = layout.rows(fields(), SCALES) * mask(layout, 1, 1)[0]
    assert token.shape == (layout.features,)
    assert set(token.tolist()) - {0.0} == {1.0, *CONDITIONS[condition].values()}


@pytest.mark.parametrize(
    ("history", "condition", "past"),
    [
        ("states+actions", "none", {1.0, 2.0}),
        ("states", "time", {1.0, 5.0}),
        ("actions", "none", {2.0}),
        ("states+actions", "return-to-go", {1.0, 2.0}),
        ("states+actions+rewards", "return-to-go", {1.0, 2.0, 3.0, 4.0}),
        ("states+actions+returns", "return-to-go", {1.0, 2.0, 4.0}),
        ("states+actions", "average-return", {1.0, 2.0}),
        ("states+actions", "goal", {1.0, 2.0}),
    ],
)
def test_what_stays_visible_of_a_past_timestep(history, condition, past):
    layout = Layout(3, 2, 2, history, condition, goal=(0, 2))
    token = layout.rows(fields(), SCALES) * mask(layout, 4, 4)[1]
    assert set(token.tolist()) - {0.0} == past


@pytest.mark.parametrize(
    ("history", "condition", "carriable"),
    [
        ("states+actions", "none", True),
        ("states+actions", "time", True),
        ("actions", "none", False),
        ("states+actions", "return-to-go", False),
        ("states+actions+rewards", "return-to-go", True),
    ],
)
def test_a_state_can_be_carried_only_if_no_token_changes_once_it_is_past(
    history, condition, carriable
):
    assert Layout(3, 2, 0, history, condition).carriable is carriable


def test_the_timestep_is_the_last_column_where_a_model_has_a_table_of_them():
    layout = Layout(3, 2, 0, "states", "time", timesteps=True)
    assert layout.columns[-1] == ("timestep", 1, True, True)
    assert layout.rows(fields(), SCALES)[-2:].tolist() == [5.0, 9.0]


def test_the_action_before_the_window_is_not_visible():
    layout = Layout(3, 2, 0, "states+actions", "none")
    assert mask(layout, 4, 4)[0].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert mask(layout, 4, 4)[1].tolist() == [1.0] * 5


def test_nothing_is_visible_right_of_the_target():
    layout = Layout(3, 2, 0, "states+actions+rewards", "return-to-go+time")
    for length in range(6):
        assert mask(layout, 5, length)[length:].sum() == 0


@pytest.mark.parametrize(
    ("history", "condition", "line"),
    [
        ("state", "none", "history: 'state' is not known"),
        ("states", "tiem", "Did you mean 'time'"),
    ],
)
def test_a_misspelt_level_is_refused(history, condition, line):
    with pytest.raises(UserError, match=line):
        Layout(3, 2, 0, history, condition)
