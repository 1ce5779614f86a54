"""Small, valid trajectories that the tests of the data room break."""

import numpy as np

from ablate.data.trajectories import Trajectories


def make(lengths, seed=0, extras=True):
    """Random, valid trajectories with episodes of the given lengths."""
    rng = np.random.default_rng(seed)
    steps, starts = sum(lengths), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ends = np.zeros(steps, dtype=bool)
    ends[starts[1:] - 1] = True
    kind = rng.random(steps) < 0.5
    more = {
        "behaviour_id": rng.integers(3, size=steps),
        "behaviour_logp": rng.standard_normal(steps).astype(np.float32),
        "behaviour_action": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "goal": rng.standard_normal((steps, 1)).astype(np.float32),
        "simulator_state": rng.standard_normal((steps, 5)).astype(np.float32),
    }
    return Trajectories(
        name="sample",
        observations=rng.standard_normal((steps, 3)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rewards=rng.standard_normal(steps).astype(np.float32),
        terminations=ends & kind,
        truncations=ends & ~kind,
        episode_starts=starts,
        **(more if extras else {}),
    )
