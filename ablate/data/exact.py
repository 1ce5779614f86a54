"""Yardsticks that are known exactly in the linear-quadratic system.

What the best possible learner would do there: the optimal controller, expected returns by
propagating covariances, the posterior over which controller acts given a window of K timesteps, and
the Bayes-optimal action for squared error, which is the posterior mean. All closed forms ignore
that 0.01 % of actions are clipped.

Notation: x' = A x + B u + w, u = -G x + N(0, sigma^2 I), G the controller's gain (2, 4).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_are
from scipy.special import logsumexp

from ablate.data.behaviour import censored_logp
from ablate.data.trajectories import Trajectories
from ablate.envs.lq import (
    ACTION_COST,
    ACTION_SCALE,
    COST_DIVISOR,
    HORIZON,
    PROCESS_NOISE,
    STATE_COST,
    A,
    B,
    LinearQuadratic,
)
from ablate.errors import UserError, unknown

EXPLORATION = 0.3  # standard deviation of both controllers' noise, in units of force
EARLY = 8  # steps 0 to 7 of an episode are "early": there the past says least about the controller
MIXINGS = ("episode", "step", "single")
Array = NDArray[np.float64]


@functools.cache
def optimal_gain() -> Array:
    """Gain (2, 4) of the infinite-horizon linear-quadratic regulator, from the Riccati equation.

    Rounded, so that the data it generates don't depend on a machine's linear algebra.
    """
    value = solve_discrete_are(A, B, STATE_COST, ACTION_COST)  # (4, 4), cost-to-go x'Vx
    gain: Array = np.linalg.solve(ACTION_COST + B.T @ value @ B, B.T @ value @ A)
    return np.round(gain, 9)


@functools.cache
def controllers(policies: int = 2) -> Array:
    """Gains (Z, 2, 4) of Z >= 2 controllers, from the best (optimal) to the worst (weak, and it swirls).

    The worst one has 0.3 times the optimal gain, and pushes each position's force with the other's sign
    turned: a rotation of the positions by 0.5 (its return is about four times as bad). The others lie on the
    straight line between the two, at equal distances.
    """
    swirl = np.array([[0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    worse = np.arange(policies)[:, None, None] / (policies - 1)  # (Z, 1, 1)
    gains: Array = (1.0 - 0.7 * worse) * optimal_gain() + 0.5 * worse * swirl
    gains[-1] = 0.3 * optimal_gain() + 0.5 * swirl  # to the last bit
    return gains


def controller_actions(states: np.ndarray, policies: int = 2) -> Array:
    """Noise-free stored actions of Z controllers at states (..., 4): (..., Z, 2)."""
    force = -np.einsum("zij,...j->...zi", controllers(policies), states.astype(np.float64))
    return np.clip(force / ACTION_SCALE, -1.0, 1.0)


# --- expected returns and state densities ---


def state_covariances(gains: Array, exploration: float, weights: Array | None = None) -> Array:
    """Covariance of the state (mean zero) at steps 0 to HORIZON - 1, (HORIZON, 4, 4).

    gains: (2, 4), or (Z, 2, 4) drawn anew at every step with probabilities `weights` (Z,).
    """
    gains = gains if gains.ndim == 3 else gains[None]
    weights = np.full(len(gains), 1 / len(gains)) if weights is None else weights
    closed = A - B @ gains  # (Z, 4, 4)
    noise = exploration**2 * B @ B.T + PROCESS_NOISE**2 * np.eye(4)
    covariances = [np.eye(4)]
    for _ in range(HORIZON - 1):
        each = closed @ covariances[-1] @ closed.transpose(0, 2, 1)  # (Z, 4, 4)
        covariances.append(np.einsum("z,zij->ij", weights, each) + noise)
    return np.stack(covariances)


def expected_return(gains: Array, exploration: float, weights: Array | None = None) -> float:
    """Expected return of a linear controller (2, 4), or of a step mixture of several (Z, 2, 4)."""
    covariances = state_covariances(gains, exploration, weights)
    gains = gains if gains.ndim == 3 else gains[None]
    weights = np.full(len(gains), 1 / len(gains)) if weights is None else weights
    # E[x'Qx + u'Ru] = tr((Q + G'RG) S) + sigma^2 tr R
    cost = STATE_COST + np.einsum("z,zki,kl,zlj->ij", weights, gains, ACTION_COST, gains)
    total = np.einsum("ij,tji->", cost, covariances)
    total += HORIZON * exploration**2 * np.trace(ACTION_COST)
    return float(-total / COST_DIVISOR)


@functools.cache
def optimal_gains() -> tuple[Array, float]:
    """Gains (HORIZON, 2, 4) of the best policy there is, by the Riccati recursion, and its expected return.

    Towards the end it saves force that no longer pays, which `optimal_gain` doesn't.
    """
    value, noise, gains = np.zeros((4, 4)), 0.0, []  # cost-to-go x'Vx + noise
    for _ in range(HORIZON):
        gain = np.linalg.solve(ACTION_COST + B.T @ value @ B, B.T @ value @ A)
        gains.append(gain)
        noise += PROCESS_NOISE**2 * np.trace(value)
        closed = A - B @ gain
        value = STATE_COST + gain.T @ ACTION_COST @ gain + closed.T @ value @ closed
    # The first state is from N(0, I).
    return np.stack(gains[::-1]), float(-(np.trace(value) + noise) / COST_DIVISOR)


def optimal_return() -> float:
    """Expected return of the optimal policy: no policy beats it."""
    return optimal_gains()[1]


def optimal_returns(seeds: Sequence[int]) -> Array:
    """Returns (B,) of the optimal policy in the environment, one episode a seed."""
    env = LinearQuadratic(len(seeds))
    state, total = env.reset(seeds), np.zeros(len(seeds))
    for gain in optimal_gains()[0]:
        force = -np.einsum("ij,bj->bi", gain, state.astype(np.float64))
        state, rewards, *_ = env.step(force / ACTION_SCALE)
        total += rewards
    return total


# --- what an action is worth ---


def cost_to_go(
    gains: Array | None, discount: float, exploration: float = EXPLORATION
) -> tuple[Array, Array]:
    """P (HORIZON + 1, 4, 4) and c (HORIZON + 1,) of the value -(x'P_t x + c_t) / COST_DIVISOR of a state at step t.

    gains: (2, 4) of a controller with that exploration, or (Z, 2, 4) drawn anew at every step, all equally likely;
    None: of the optimal policy, which doesn't explore. The backward recursions of Lyapunov and Riccati.
    """
    noise = PROCESS_NOISE**2 * np.eye(4)
    value, rest = [np.zeros((4, 4))], [0.0]
    for _ in range(HORIZON):
        after, explored = value[-1], exploration
        if gains is None:
            towards = discount * B.T @ after
            each, explored = np.linalg.solve(ACTION_COST + towards @ B, towards @ A)[None], 0.0
        else:
            each = gains if gains.ndim == 3 else gains[None]
        closed = A - B @ each  # (Z, 4, 4)
        paid = np.einsum("zki,kl,zlj->ij", each, ACTION_COST, each) / len(each)
        moved = np.einsum("zki,kl,zlj->ij", closed, after, closed) / len(each)
        value.append(STATE_COST + paid + discount * moved)
        drift = np.trace(after @ (explored**2 * B @ B.T + noise)) + rest[-1]
        rest.append(explored**2 * np.trace(ACTION_COST) + discount * drift)
    return np.stack(value[::-1]), np.array(rest[::-1])


def worth(trajectories: Trajectories, gains: Array | None, discount: float) -> Array:
    """Exact value (T,) of what each row does, if `gains` act from the next step on (see `cost_to_go`)."""
    state = trajectories.observations.astype(np.float64)
    force, time = ACTION_SCALE * trajectories.actions.astype(np.float64), trajectories.timestep + 1
    value, rest = cost_to_go(gains, discount)
    after = state @ A.T + force @ B.T
    future = np.einsum("ti,tij,tj->t", after, value[time], after) + rest[time]
    future += PROCESS_NOISE**2 * np.trace(value[time], axis1=1, axis2=2)
    now = np.einsum("ti,ij,tj->t", state, STATE_COST, state)
    now += np.einsum("ti,ij,tj->t", force, ACTION_COST, force)
    return -(now + discount * future) / COST_DIVISOR


def window_worth(
    trajectories: Trajectories, context: int, mixing: str, discount: float, policies: int = 2
) -> Array:
    """The same (T,) of the behaviour, given a window of `context` timesteps, the action and the time: the controllers'
    values, weighed by how likely each made them."""
    if mixing == "step":
        return worth(trajectories, controllers(policies), discount)
    with np.errstate(divide="ignore"):  # of controllers that can't have acted
        logits = np.log(posterior(trajectories, context, mixing, policies=policies))
    logits += action_evidence(trajectories.observations, trajectories.actions, policies)
    weights = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))  # (T, Z)
    each = [worth(trajectories, gain, discount) for gain in controllers(policies)]
    return np.einsum("tz,zt->t", weights, np.stack(each))


@functools.cache
def _densities(policies: int) -> tuple[Array, Array]:
    """Inverse Cholesky factors (Z, T, 4, 4) and log scales (Z, T) of the controllers' states."""
    covariances = np.stack([state_covariances(gain, EXPLORATION) for gain in controllers(policies)])
    factors = np.linalg.cholesky(covariances)
    scales = np.log(np.diagonal(factors, axis1=-2, axis2=-1)).sum(-1) + 2.0 * np.log(2 * np.pi)
    return np.linalg.inv(factors), scales


def _log_density(states: np.ndarray, times: np.ndarray, policies: int) -> Array:
    """log N(states (R, 4); 0, covariance at times (R,)) under each controller, (R, Z)."""
    inverse, scales = _densities(policies)
    white = np.einsum("zrij,rj->rzi", inverse[:, times], states.astype(np.float64))
    return -0.5 * np.square(white).sum(-1) - scales[:, times].T


def _log_mean_density(states: np.ndarray, count: int, policies: int) -> Array:
    """log of the mean over times 0 to count - 1 of the state density, (R, Z)."""
    inverse, scales = _densities(policies)
    white = np.einsum("ztij,rj->rzti", inverse[:, :count], states.astype(np.float64))
    each = -0.5 * np.square(white).sum(-1) - scales[None, :, :count]  # (R, Z, count)
    return logsumexp(each, axis=-1) - np.log(count)


# --- which controller acts ---


def action_evidence(states: np.ndarray, actions: np.ndarray, policies: int = 2) -> Array:
    """log p(stored action (R, 2) | state (R, 4), controller), (R, Z)."""
    means = controller_actions(states, policies)  # (R, Z, 2)
    return censored_logp(actions[:, None], means, EXPLORATION / ACTION_SCALE)


def window_posterior(
    first_state: np.ndarray,
    first_time: np.ndarray,
    length: np.ndarray,
    evidence: np.ndarray,
    context: int,
    timed: bool,
) -> Array:
    """p(controller | a window of at most K timesteps), all equally likely before: (R, Z).

    first_state: (R, 4), the oldest visible state, at step first_time (R,). length: (R,), timesteps
    in the window, the current one included. evidence: (R, Z), log-likelihood of the window's past
    actions. The dynamics factors of the window don't depend on the controller once the actions are
    given, and cancel, so that

        p(z | window) ~ N(s_first; 0, S_first^z) * prod_j p(a_j | s_j, z).

    timed: whether the timestep is known. If not, a full window starts at any of the first
    HORIZON - K + 1 steps, equally likely; one that the episode's start cuts short tells its time.
    """
    policies = evidence.shape[1]
    density = _log_density(first_state, first_time, policies)
    if not timed:
        full = length == context
        density[full] = _log_mean_density(first_state[full], HORIZON - context + 1, policies)
    logits = density + evidence
    return np.exp(logits - logsumexp(logits, axis=-1, keepdims=True))


def posterior(
    trajectories: Trajectories,
    context: int,
    mixing: str = "episode",
    timed: bool = True,
    policies: int = 2,
) -> Array:
    """p(controller | the last K - 1 states and actions and the current state) at every row, (T, Z).

    In a step mixture the past says nothing about who acts now: all are equally likely. Raises UserError for
    an unknown mixing, a context outside 1..HORIZON, or observations that aren't the full state.
    """
    _check(mixing, context)
    if trajectories.observations.shape[1] != 4:
        raise UserError(
            f"{trajectories.name}: the exact posterior needs the full state (4 coordinates); found"
            f" {trajectories.observations.shape[1]}."
        )
    if mixing != "episode":
        return _told(mixing, len(trajectories.rewards), policies)
    time = trajectories.timestep
    length = np.minimum(time + 1, context)  # (T,)
    rows = np.arange(len(time))
    first = rows - length + 1
    each = action_evidence(trajectories.observations, trajectories.actions, policies)  # (T, Z)
    before = np.concatenate([np.zeros((1, policies)), np.cumsum(each, axis=0)])  # (T + 1, Z)
    evidence = before[rows] - before[first]  # rows first .. t - 1
    return window_posterior(
        trajectories.observations[first], time[first], length, evidence, context, timed
    )


def _told(mixing: str, rows: int, policies: int) -> Array:
    """p(controller) where the past tells nothing, (rows, Z)."""
    if mixing == "step":
        return np.full((rows, policies), 1 / policies)
    return np.tile(np.eye(policies)[0], (rows, 1))


def posterior_actions(
    trajectories: Trajectories,
    context: int,
    mixing: str = "episode",
    timed: bool = True,
    policies: int = 2,
) -> Array:
    """The prediction of the noise-free action with the least squared error, (T, 2), as stored."""
    weights = posterior(trajectories, context, mixing, timed, policies)  # (T, Z)
    means = controller_actions(trajectories.observations, policies)  # (T, Z, 2)
    return np.einsum("tz,tzi->ti", weights, means)


@dataclass(frozen=True)
class ActionError:
    """Mean squared error per action coordinate, in stored units: all steps, and steps 0 to 7."""

    all: float
    early: float


def posterior_action_error(
    trajectories: Trajectories,
    context: int,
    mixing: str = "episode",
    timed: bool = True,
    policies: int = 2,
) -> ActionError:
    """How far the Bayes-optimal prediction stays from the acting controller's noise-free action.

    No model that sees K timesteps (and the time, if `timed`) can be expected to do better.
    """
    predicted = posterior_actions(trajectories, context, mixing, timed, policies)
    return posterior_error(trajectories, predicted)


def posterior_error(trajectories: Trajectories, predicted: np.ndarray) -> ActionError:
    """The same of given predictions (T, 2)."""
    assert trajectories.behaviour_action is not None
    squares = np.square(predicted - trajectories.behaviour_action)
    early = trajectories.timestep < EARLY
    return ActionError(all=float(squares.mean()), early=float(squares[early].mean()))


def posterior_returns(
    context: int,
    seeds: Sequence[int],
    mixing: str = "episode",
    timed: bool = True,
    policies: int = 2,
) -> Array:
    """Returns (B,) of acting by the posterior mean in the environment, one episode a seed.

    The policy takes its own actions as evidence, as any policy with memory does.
    """
    _check(mixing, context)
    env = LinearQuadratic(len(seeds))
    state = env.reset(seeds)
    states: list[np.ndarray] = []
    evidence: list[np.ndarray] = []
    total = np.zeros(len(seeds))
    for t in range(HORIZON):
        states.append(state)
        length = min(t + 1, context)
        first = t + 1 - length
        if mixing == "episode":
            past = sum(evidence[first:], np.zeros((len(seeds), policies)))
            weights = window_posterior(
                states[first],
                np.full(len(seeds), first),
                np.full(len(seeds), length),
                past,
                context,
                timed,
            )
        else:
            weights = _told(mixing, len(seeds), policies)
        action = np.einsum("bz,bzi->bi", weights, controller_actions(state, policies))
        evidence.append(action_evidence(state, action, policies))
        state, rewards, _, _, _ = env.step(action)
        total += rewards
    return total


def _check(mixing: str, context: int) -> None:
    if mixing not in MIXINGS:
        raise unknown("mixing", mixing, MIXINGS)
    if not 1 <= context <= HORIZON:
        raise UserError(f"context: {context} timesteps; allowed: 1 to {HORIZON}.")
