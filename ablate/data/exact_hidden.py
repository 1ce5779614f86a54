"""The exact posterior over who acts, where a part of the state is hidden too.

A mixture by episode of the linear-quadratic controllers is, given who acts, a Gaussian process: of each controller z
a Kalman filter over the window gives the state's law and the window's density, in which the logged actions are
evidence of the state, as the controllers saw it. The prediction with the least squared error is then

    E[a | window] = sum_z p(z | window) E[-G_z x | window, z],    p(z | window) ~ p(window | z)

But for clipped actions, about two in ten thousand: one that is expected beyond its bounds tells nothing of the state
and is compared with the bound (`Filter`, bounded), and the mean is clipped in the place of what it is the mean of.
With everything shown it is that of `ablate.data.exact`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import softmax

from ablate.data import exact
from ablate.data.exact import EXPLORATION, Array
from ablate.data.kalman import Filter, Seen
from ablate.data.trajectories import Trajectories
from ablate.envs.base import VectorEnv
from ablate.envs.lq import HORIZON


class Posterior:
    """What windows tell of who acts and of the state.

    seen: what is shown of the state. gains: (Z, 2, 4), of the controllers, equally likely before. context: K.
    """

    def __init__(self, seen: Seen, gains: Array, context: int) -> None:
        self.context = context
        self.laws = [Filter(seen, told=True, gain=gain, bounded=True) for gain in gains]
        # (Z, T, 4, 4): of the first state of a window, which may begin at any timestep
        self.before = [exact.state_covariances(gain, EXPLORATION) for gain in gains]

    def first(self, time: int) -> int:
        """The timestep at which the window begins that ends at `time`."""
        return max(0, time + 1 - self.context)

    def action(self, shown: np.ndarray, actions: np.ndarray, time: int) -> Array:
        """The mean of the noise-free stored action (B, 2) at `time`, given what was shown (B, T, n) and the stored
        actions (B, T, 2) of each timestep; of those from `time` on nothing is read."""
        first, evidence, means = self.first(time), [], []
        for law, before in zip(self.laws, self.before, strict=True):
            law.start(len(shown), before[first])
            for t in range(first, time):
                law.observe(shown[:, t])
                law.acted(actions[:, t])
            law.observe(shown[:, time])
            evidence.append(law.evidence)
            means.append(law.act())
        found: Array = np.einsum("zb,zbi->bi", softmax(np.stack(evidence), axis=0), np.stack(means))
        return found


def actions(part: Trajectories, seen: Seen, context: int, gains: Array) -> Array:
    """The prediction with the least squared error (T, 2), as stored, at every row of episodes of full length, of which
    `part` holds what is shown."""
    shape = (-1, HORIZON)
    shown, done = (
        each.reshape(*shape, each.shape[1]) for each in (part.observations, part.actions)
    )
    law = Posterior(seen, gains, context)
    return np.stack([law.action(shown, done, t) for t in range(HORIZON)], axis=1).reshape(-1, 2)


def returns(
    make_env: Callable[[int], VectorEnv], seeds: Sequence[int], context: int, gains: Array
) -> Array:
    """Returns (B,) of acting by that mean in the environment, one episode a seed. Its own actions are evidence to
    it, as to any policy with memory."""
    env = make_env(len(seeds))
    law = Posterior(Seen.of(env), gains, context)
    now, total = env.reset(seeds), np.zeros(len(seeds))
    shown = np.zeros((len(seeds), HORIZON, now.shape[1]), np.float32)
    done = np.zeros((len(seeds), HORIZON, 2))
    for t in range(HORIZON):
        shown[:, t] = now
        done[:, t] = law.action(shown, done, t)
        now, rewards, *_ = env.step(done[:, t])
        total += rewards
    return total
