"""What a window of the past tells in the data of a tabular process, exactly.

A window holds the last K - 1 shown states and actions and the current shown state, less at an episode's start; the step
is known, and rewards are not used. The forward algorithm over hidden states gives how likely each policy and state is,
and from that what a learner with a memory of K timesteps converges to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ablate.data.tabular import Law
from ablate.data.trajectories import Trajectories
from ablate.envs.tabular import Array
from ablate.errors import UserError


def beliefs(law: Law, trajectories: Trajectories, context: int) -> Array:
    """p(component, state | the window that ends here, the step) at every row, (T, C, S).

    Raises UserError for a context outside 1..H, or a row that the law can't give.
    """
    process = law.process
    if not 1 <= context <= process.horizon:
        raise UserError(f"context: {context} timesteps; allowed: 1 to {process.horizon}.")
    look = _looks_of(law, trajectories)  # (T,)
    alike = (law.looks == look[:, None]) & law.acting  # (T, S)
    actions = trajectories.actions.argmax(axis=1)
    policies = np.moveaxis(law.components[0], 0, 1)  # (H, C, S, A)
    time = trajectories.timestep
    length = np.minimum(time + 1, context)
    first = np.arange(len(time)) + 1 - length
    found = np.moveaxis(law.joint, 1, 0)[time[first]] * alike[first][:, None]  # (T, C, S)
    for step in range(context - 1):
        rows = np.flatnonzero(length > step + 1)
        if not len(rows):
            break
        at = first[rows] + step
        for action in range(process.num_actions):
            chosen = actions[at] == action
            mine, when = rows[chosen], at[chosen]
            weighed = found[mine] * policies[time[when], :, :, action]
            found[mine] = (weighed @ process.transitions[:, action]) * alike[when + 1][:, None]
    total = found.sum(axis=(1, 2), keepdims=True)
    impossible = np.flatnonzero(total[:, 0, 0] <= 0)
    if len(impossible):
        raise UserError(
            f"{trajectories.name}: row {impossible[0]} shows what the law's policies never do."
        )
    return found / total


def _looks_of(law: Law, trajectories: Trajectories) -> NDArray[np.int64]:
    """Which look each row's observation is, (T,)."""
    shown = law.shown[law.representatives].astype(np.float32)  # (O, N)
    seen = trajectories.observations
    if seen.shape[1] != shown.shape[1]:
        raise UserError(
            f"{trajectories.name}: observations have {seen.shape[1]} numbers; the process shows"
            f" {shown.shape[1]}."
        )
    every, inverse = np.unique(seen, axis=0, return_inverse=True)
    same = (every[:, None] == shown).all(-1)  # (U, O)
    strange = ~same.any(1)[inverse.reshape(-1)]
    if strange.any():
        raise UserError(
            f"{trajectories.name}: row {int(strange.argmax())} shows what no state of the process"
            " shows."
        )
    return same.argmax(1)[inverse.reshape(-1)]


def window_actions(law: Law, trajectories: Trajectories, context: int) -> Array:
    """p(action | the window, the step) at every row, (T, A): what a clone that sees K timesteps converges to."""
    found = beliefs(law, trajectories, context)
    policies = np.moveaxis(law.components[0], 0, 1)[trajectories.timestep]  # (T, C, S, A)
    probabilities: Array = np.einsum("tcs,tcsa->ta", found, policies)
    return probabilities


def window_policies(law: Law, trajectories: Trajectories, context: int) -> Array:
    """p(policy | the window, the step) at every row, (T, Z): who acts, as far as the past tells."""
    if law.mixing == "step":
        return np.tile(law.weights, (len(trajectories.rewards), 1))
    found: Array = beliefs(law, trajectories, context).sum(-1)
    return found


def window_returns(
    law: Law, trajectories: Trajectories, context: int, acted: bool, discount: float = 1.0
) -> Array:
    """E[return-to-go | the window, the step] at every row, (T,); `acted`: given the row's action too.

    What a return-to-go head that sees K timesteps converges to: the behaviour's value, weighed by who acts as far as
    the past tells.
    """
    found, every = beliefs(law, trajectories, context), law.valued(discount)
    time = trajectories.timestep
    if not acted:
        states = np.stack([values.state for values in every], axis=1)[time]  # (T, C, S)
        return np.einsum("tcs,tcs->t", found, states)
    actions = trajectories.actions.argmax(axis=1)
    found *= np.moveaxis(law.components[0], 0, 1)[time, :, :, actions]  # (T, C, S)
    values = np.stack([values.action for values in every], axis=1)[time, :, :, actions]
    return np.einsum("tcs,tcs->t", found, values) / found.sum(axis=(1, 2))
