"""Random streams depend on (study, seed, name), and on nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from ablate.data.streams import entropy, stream, torch_stream


def test_a_stream_is_the_same_today_and_tomorrow() -> None:
    """These numbers stand in every result: change them, and raise CODE_VERSION."""
    assert entropy("study", 3, "batches/0") == 0x5959FDB0EC4A994AC156DF4F3D98543D
    assert stream("study", 3, "batches/0").integers(0, 1000, 5).tolist() == [636, 26, 414, 153, 509]
    drawn = torch.randint(0, 1000, (5,), generator=torch_stream("study", 3, "init"))
    assert drawn.tolist() == [521, 258, 812, 551, 703]


def test_no_draw_moves_another_stream() -> None:
    before = stream("s", 0, "eval-env").random(4)
    stream("s", 0, "batches").random(100)
    torch.randn(10)
    assert np.array_equal(stream("s", 0, "eval-env").random(4), before)


def test_streams_differ() -> None:
    keys = itertools.product(("s", "t", "s1"), (0, 1, 11), ("init", "batches/0", "batches/1"))
    assert len({entropy(*key) for key in keys}) == 27
    # neither does a border move between the parts
    assert entropy("s1", 1, "x") != entropy("s", 11, "x")
    assert entropy("s", 1, "1x") != entropy("s", 11, "x")


def test_a_torch_stream_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    torch.randn(10, generator=torch_stream("s", 0, "init"))
    assert torch.equal(torch.randn(3), expected)
