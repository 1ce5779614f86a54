import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.windows import (
    BLOCK,
    Visibility,
    counted,
    draw_targets,
    gather_windows,
    window_rows,
    windows_that_count,
)


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


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    context=st.integers(1, 8),
    least=st.integers(1, 10),
    by=st.sampled_from(["end", "start"]),
)
def test_every_timestep_is_counted_in_as_many_windows_as_said(lengths, context, least, by):
    """Against a plain enumeration of all windows and of what each of their positions sees."""
    timestep = episode_timesteps(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    times = np.zeros(len(timestep), dtype=int)
    for drawn in range(len(timestep)):
        rows = [
            row
            for row in range(len(timestep))
            if episode[row] == episode[drawn]
            and (drawn - context < row <= drawn if by == "end" else drawn <= row < drawn + context)
        ]
        oldest = timestep[rows[0]][None]
        mask = counted(oldest, torch.tensor([len(rows)]), context, least)[0]
        for place, row in enumerate(rows):
            seen, could = place + 1, int(timestep[row]) + 1
            expected = seen >= min(least, context) or seen == could
            assert bool(mask[place]) == expected
            times[row] += expected
        assert not mask[len(rows) :].any()
    assert windows_that_count(timestep, context, least, by).tolist() == times.tolist()
