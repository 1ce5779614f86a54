"""The benchmark of data measures what it says; how fast it is, no test asks."""

import numpy as np
import torch

from ablate.bench import data
from ablate.data.families import mujoco


def test_both_ways_of_collecting_do_the_same_work(monkeypatch) -> None:
    monkeypatch.setattr(data, "COLLECTED", 1500)
    steps = []
    ladder = data.ladders.load("hopper")
    mean = type(ladder).mean
    monkeypatch.setattr(
        type(ladder), "mean", lambda self, s, seen: steps.append(len(seen)) or mean(self, s, seen)
    )
    mix = mujoco.mixture("hopper", "medium")
    data._plain_loop("hopper", mix.snapshots[0])
    assert sum(steps) == 1500
    made = mujoco.make("bench", "train", "hopper", mix, 1500)
    assert 700 < len(made.rewards) <= 1500


def test_both_ways_of_reading_windows_give_the_same(monkeypatch) -> None:
    monkeypatch.setattr(data, "MILLION", 200)
    seen = {}

    def run(bodies, **_):
        seen.update({name: body() for name, body in bodies.items()})
        return dict.fromkeys(bodies, 1.0)

    monkeypatch.setattr(data, "alternate", run)
    row = data.windows()
    tokens, lengths = seen["loop"]
    ours, _, our_lengths = seen["ours"]
    torch.testing.assert_close(ours, tokens)
    np.testing.assert_array_equal(our_lengths, lengths)
    assert (lengths < data.CONTEXT).any()
    assert row["ratio"] == 1.0
