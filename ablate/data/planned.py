"""What plans are worth in the linear-quadratic system, and how likely its controllers do what is planned, exactly.

With x' = A x + B u + w, w ~ N(0, W), a plan u_0 .. u_{H-1} from a known state leads to states of mean m_h and
covariance S_h,

    m_{h+1} = A m_h + B u_h,  S_{h+1} = A S_h A' + W,  S_0 = 0,    E[x'Qx + u'Ru] = m'Qm + tr(Q S) + u'Ru,

and k timesteps of a controller u = -G x + e, e ~ N(0, E), from x on cost x'P_k x + c_k, discounted by g each:

    P_{k+1} = Q + G'RG + g C'P_k C,  C = A - B G,    c_{k+1} = tr(R E) + g (c_k + tr(P_k (W + B E B'))),  P_0 = c_0 = 0.

Where one of several controllers is drawn at every step, the terms with G are means over them. That costs are capped and
actions clipped is ignored, as in `ablate.data.exact`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ablate.data.exact import EXPLORATION, action_evidence, controllers
from ablate.envs.lq import (
    ACTION_COST,
    ACTION_SCALE,
    COST_DIVISOR,
    HORIZON,
    PROCESS_NOISE,
    STATE_COST,
    A,
    B,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearLaw:
    """The law of `lq-mix/...`, see `ablate.data.catalogue.Law`. mixing: when controllers change; policies: Z >= 2, of
    which only the best acts where there is one policy (`single`)."""

    mixing: str
    policies: int

    def log_density(self, observations: np.ndarray, actions: np.ndarray) -> Array:
        """Under the mixture of the controllers, none of which the past excludes."""
        flat = observations.reshape(-1, 4), actions.reshape(-1, 2)
        each = action_evidence(*flat, self.policies)  # (R, Z)
        if self.mixing == "single":
            each = each[:, :1]
        found: Array = logsumexp(each, axis=1) - np.log(each.shape[1])
        return found.reshape(observations.shape[:-1])

    def plan_value(
        self,
        states: np.ndarray,
        times: np.ndarray,
        ids: np.ndarray,
        actions: np.ndarray,
        discount: float,
    ) -> tuple[Array, Array]:
        """See `ablate.data.catalogue.Law.plan_value`."""
        mean, spread = states.astype(np.float64), np.zeros((4, 4))
        noise, cost = PROCESS_NOISE**2 * np.eye(4), np.zeros(len(states))
        steps = actions.shape[1]
        for h in range(steps):
            force = ACTION_SCALE * actions[:, h].astype(np.float64)
            cost += discount**h * (_form(mean, STATE_COST) + np.trace(STATE_COST @ spread))
            cost += discount**h * _form(force, ACTION_COST)
            mean, spread = mean @ A.T + force @ B.T, A @ spread @ A.T + noise
        after = np.zeros(len(states))
        left = np.maximum(HORIZON - times - steps, 0)
        gains = controllers(self.policies)
        for acting in np.unique(ids):
            mine = ids == acting
            matrices, constants = costs(
                gains if self.mixing == "step" else gains[[acting]], discount
            )
            form, constant = matrices[left[mine]], constants[left[mine]]  # (R, 4, 4), (R,)
            after[mine] = np.einsum("ri,rij,rj->r", mean[mine], form, mean[mine])
            after[mine] += np.einsum("rij,ji->r", form, spread) + constant
        return -cost / COST_DIVISOR, -(discount**steps) * after / COST_DIVISOR


def costs(gains: Array, discount: float) -> tuple[Array, Array]:
    """P_k (HORIZON + 1, 4, 4) and c_k (HORIZON + 1,) of controllers (Z, 2, 4), one drawn at each step."""
    closed = A - B @ gains  # (Z, 4, 4)
    each = STATE_COST + gains.transpose(0, 2, 1) @ ACTION_COST @ gains
    explored = EXPLORATION**2 * np.eye(2)
    noise = PROCESS_NOISE**2 * np.eye(4) + B @ explored @ B.T
    matrices, constants = [np.zeros((4, 4))], [0.0]
    for _ in range(HORIZON):
        later = matrices[-1]
        constant = discount * (constants[-1] + np.trace(later @ noise))
        constants.append(float(np.trace(ACTION_COST @ explored) + constant))
        matrices.append((each + discount * closed.transpose(0, 2, 1) @ later @ closed).mean(0))
    return np.stack(matrices), np.array(constants)


def _form(values: Array, matrix: np.ndarray) -> Array:
    """x'Mx of values (R, n): (R,)."""
    found: Array = np.einsum("ri,ij,rj->r", values, matrix, values)
    return found
