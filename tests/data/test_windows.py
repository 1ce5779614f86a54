import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.windows import BLOCK, Visibility, draw_targets, gather_windows, window_rows


def episode_timesteps(lengths: list[int]) -> torch.Tensor:
    return torch.cat([torch.arange(n) for n in lengths])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    context=st.integers(1, 12),
)
def test_a_window_holds_the_last_timesteps_of_its_own_episode(lengths, context):
    timestep = episode_timesteps(lengths)
    starts = np.cumsum([0, *lengths])
    targets = torch.arange(len(timestep))
    rows, sizes = window_rows(targets, timestep, context)
    for target in range(len(timestep)):
        episode = int(np.searchsorted(starts, target, side="right")) - 1
        expected = [r for r in range(target - context + 1, target + 1) if r >= starts[episode]]
        assert int(sizes[target]) == len(expected)
        assert rows[target, : len(expected)].tolist() == expected


def test_targets_do_not_depend_on_the_variant_and_any_block_can_be_redrawn():
    whole = [draw_targets("s", 3, block, 7, 100) for block in range(3)]
    assert all(draws.shape == (BLOCK, 7) for draws in whole)
    assert np.array_equal(draw_targets("s", 3, 2, 7, 100), whole[2])
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(draw_targets("s", 4, 0, 7, 100), whole[0])


def test_every_context_sees_the_same_targets():
    timestep = episode_timesteps([30, 4])
    table = torch.arange(34.0).unsqueeze(-1)
    targets = torch.tensor([[0, 5, 29, 31]])
    for context in (1, 5, 20):
        visible = Visibility(context, torch.ones(1), torch.ones(1))
        windows, _, lengths = gather_windows(table, timestep, visible, targets)
        last = windows.gather(2, (lengths - 1).view(1, 4, 1, 1))
        assert last.flatten().tolist() == [0.0, 5.0, 29.0, 31.0]
