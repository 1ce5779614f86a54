"""Exact values in a tabular process with a time limit, and of the data that mixtures of policies make there.

Everything is dynamic programming in float64 over steps t = 0 to H - 1. A policy is an array of action
probabilities, (S, A), or (H, S, A) where it depends on the step. A value at (t, s) counts the rewards from step t
on, so that V(H, s) = 0. Returns are undiscounted unless a discount is given.

A `Law` says how data are made: which policies act, and whether one is drawn per episode or anew at every step. What
a learner makes of such data depends on what it is shown of the state. Without memory it is given here for each
state, states that look alike sharing it:

    data_values      E[return-to-go | shown state, step]: what a regressor of the return-to-go converges to
    clone            p(action | shown state, step): what behaviour cloning converges to

`ablate.data.tabular_returns` has the same given the return-to-go, `ablate.data.tabular_windows` given the past.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from ablate.envs.tabular import Array, Tabular, TabularMDP, check_distribution
from ablate.errors import UserError, unknown

MIXINGS = ("episode", "step")
# Of actions whose values differ by less, the first is taken, so that rounding doesn't decide.
TIE = 1e-9


@dataclass(frozen=True)
class Values:
    """state: (H + 1, S), value of each state at each step. action: (H, S, A), value of each action there."""

    state: Array
    action: Array


# --- one policy ---


def staged(process: TabularMDP, policy: Array) -> Array:
    """The policy at every step, (H, S, A).

    Raises UserError when it isn't (S, A) or (H, S, A), or its rows aren't distributions.
    """
    table = (process.num_states, process.num_actions)
    if policy.shape not in (table, (process.horizon, *table)):
        raise UserError(
            f"policy: has shape {policy.shape}; {table} or {(process.horizon, *table)} is needed."
        )
    check_distribution("policy", policy)
    return np.broadcast_to(policy, (process.horizon, *table))


def backup(process: TabularMDP, after: Array, discount: float = 1.0) -> Array:
    """Value (..., S, A) of acting now, where `after` (..., S) is the value of the next state."""
    return process.expected_rewards + discount * np.einsum(
        "sat,...t->...sa", process.transitions, after
    )


def evaluate(process: TabularMDP, policy: Array, discount: float = 1.0) -> Values:
    """V and Q of a policy."""
    policy = staged(process, policy)
    state = np.zeros((process.horizon + 1, process.num_states))
    action = np.zeros(policy.shape)
    for t in reversed(range(process.horizon)):
        action[t] = backup(process, state[t + 1], discount)
        state[t] = (policy[t] * action[t]).sum(-1)
    return Values(state, action)


def optimise(process: TabularMDP, discount: float = 1.0) -> tuple[Values, Array]:
    """V* and Q*, and a greedy policy (H, S, A)."""
    state = np.zeros((process.horizon + 1, process.num_states))
    action = np.zeros((process.horizon, process.num_states, process.num_actions))
    for t in reversed(range(process.horizon)):
        action[t] = backup(process, state[t + 1], discount)
        state[t] = action[t].max(-1)
    return Values(state, action), greedy(action)


def greedy(values: Array) -> Array:
    """The policy that takes the best action by values (..., A), the first one where several tie."""
    best = values >= values.max(-1, keepdims=True) - TIE
    policy: Array = np.eye(values.shape[-1])[best.argmax(-1)]
    return policy


def optimal_returns(process: TabularMDP, seeds: Sequence[int]) -> Array:
    """Returns (B,) of the greedy policy by Q* in the environment, which it sees whole, one episode a seed."""
    env, policy = Tabular(len(seeds), process), optimise(process)[1]
    env.reset(seeds)
    total = np.zeros(len(seeds))
    for decision in policy:
        states = env.simulator_state()[:, 0].astype(np.int64)
        total += env.step(decision[states])[1]
    return total


def optimal_values(process: TabularMDP) -> Callable[[Array, Array, int, float], Array]:
    """Q* of observations and actions as the environment has them; see `DataSpec.optimal_values`."""
    found = cache(lambda discount: optimise(process, discount)[0].action)
    states = np.flatnonzero(~process.terminal)

    def values(observations: Array, actions: Array, timestep: int, discount: float) -> Array:
        table = np.zeros((len(states) + 1, process.num_actions))  # its last row: no state
        if timestep < process.horizon:
            table[:-1] = found(discount)[timestep][states]
        same = (np.rint(observations)[:, None] == process.features[states]).all(-1)  # (R, S')
        row = np.where(same.any(1), same.argmax(1), len(states))
        looked_up: Array = table[row, actions.argmax(1)]
        return looked_up

    return values


def occupancy(process: TabularMDP, policy: Array) -> Array:
    """Probability of being in each state at steps 0 to H, (H + 1, S); ended episodes stay where they ended."""
    policy = staged(process, policy)
    found = [process.start]
    for t in range(process.horizon):
        found.append(np.einsum("s,sa,sat->t", found[-1], policy[t], process.transitions))
    return np.stack(found)


def expected_return(process: TabularMDP, policy: Array, discount: float = 1.0) -> float:
    """Expected return of a policy."""
    return float(process.start @ evaluate(process, policy, discount).state[0])


def return_variance(process: TabularMDP, policy: Array) -> float:
    """Variance of the return, for any rewards, by the second moment of the return-to-go."""
    policy, first = staged(process, policy), evaluate(process, policy).state
    second = np.zeros(process.num_states)
    for t in reversed(range(process.horizon)):
        # E[(r + G)^2] = E[r^2 + 2 r V' + M']
        squares = np.square(process.rewards) + 2.0 * process.rewards * first[t + 1] + second
        second = np.einsum("sa,sat,sat->s", policy[t], process.transitions, squares)
    # A sure return leaves a rounding error, which may be negative.
    return max(0.0, float(process.start @ second - (process.start @ first[0]) ** 2))


def lookahead(
    process: TabularMDP, after: Array, steps: int, discount: float = 1.0
) -> tuple[Array, Array]:
    """Plan `steps` steps optimally and value the state that is then reached by `after` (H + 1, S), zero at step H.

    It is the Trajectory Transformer's objective, rewards plus return-to-go, searched without error. Returns what the
    plan promises at each step and state, (H + 1, S), and the policy (H, S, A) that plans anew at each step and takes
    the plan's first action. Where `after` is the value of a policy, promises never fall as `steps` grows, and are kept
    or exceeded; from H steps on they are V*. Raises UserError for less than one step.
    """
    if steps < 1:
        raise UserError(f"lookahead: {steps} steps; at least 1 is needed.")
    promise = after
    for _ in range(min(steps, process.horizon)):
        action = backup(process, promise[1:], discount)  # (H, S, A)
        promise = np.concatenate([action.max(-1), np.zeros((1, process.num_states))])
    return promise, greedy(action)


# --- the law of a data set ---


@dataclass(frozen=True, eq=False)
class Law:
    """How data are made: Z policies act in a process.

    Attributes:
        process: where they act.
        policies: (Z, S, A) or (Z, H, S, A). Each acts alike in states that look alike.
        weights: (Z,), how often each is drawn.
        mixing: `episode`, one policy acts for a whole episode; `step`, one is drawn anew at every step.
        observable: shown coordinates of the process's features; None when all are.

    Raises UserError when a policy isn't one of the process, acts on what is hidden, or a number of policies doesn't
    fit.
    """

    process: TabularMDP
    policies: Array
    weights: Array
    mixing: str
    observable: list[int] | None = None

    def __post_init__(self) -> None:
        if self.mixing not in MIXINGS:
            raise unknown("mixing", self.mixing, MIXINGS)
        if self.weights.shape != (len(self.policies),):
            raise UserError(
                f"weights: has shape {self.weights.shape}; there are {len(self.policies)} policies."
            )
        check_distribution("weights", self.weights)
        for policy in self.staged_policies:
            alike = policy[:, self.representatives[self.looks]]
            if not np.array_equal(policy[:, self.acting], alike[:, self.acting]):
                raise UserError("policies: states that look alike have different probabilities.")

    @cached_property
    def staged_policies(self) -> Array:
        """(Z, H, S, A)."""
        return np.stack([staged(self.process, policy) for policy in self.policies])

    @cached_property
    def shown(self) -> Array:
        """(S, N), what is shown of each state."""
        every = self.process.features
        return every if self.observable is None else every[:, self.observable]

    @cached_property
    def looks(self) -> NDArray[np.int64]:
        """(S,), which of O looks each state has; terminal states, in which nobody acts, included."""
        return np.unique(self.shown, axis=0, return_inverse=True)[1].reshape(-1)

    @cached_property
    def components(self) -> tuple[Array, Array]:
        """The policies (C, H, S, A) of which each acts for a whole episode, and their weights (C,).

        A step mixture is a single one: the average.
        """
        if self.mixing == "episode":
            return self.staged_policies, self.weights
        average = np.einsum("z,zhsa->hsa", self.weights, self.staged_policies)
        return average[None], np.ones(1)

    @cached_property
    def values(self) -> list[Values]:
        """V and Q of each component."""
        return self.valued(1.0)

    def valued(self, discount: float) -> list[Values]:
        """V and Q of each component at a discount."""
        return [evaluate(self.process, policy, discount) for policy in self.components[0]]

    @cached_property
    def joint(self) -> Array:
        """p(component, state at step t, the episode goes on), (C, H, S)."""
        policies, weights = self.components
        each = np.stack([occupancy(self.process, policy)[:-1] for policy in policies])
        return np.where(self.process.terminal, 0.0, weights[:, None, None] * each)

    @property
    def expected_return(self) -> float:
        """Expected return of an episode of the data."""
        each = [float(self.process.start @ values.state[0]) for values in self.values]
        return float(self.components[1] @ each)

    @property
    def return_variance(self) -> float:
        """Variance of the return of an episode of the data, between policies included."""
        policies, weights = self.components
        means = np.array([self.process.start @ values.state[0] for values in self.values])
        within = np.array([return_variance(self.process, policy) for policy in policies])
        return float(weights @ (within + np.square(means - weights @ means)))

    @cached_property
    def acting(self) -> NDArray[np.bool_]:
        """(S,), whether the episode goes on in a state."""
        return ~self.process.terminal

    @cached_property
    def representatives(self) -> NDArray[np.int64]:
        """(O,), a state of each look, one in which somebody acts where there is one."""
        order = np.argsort(self.process.terminal, kind="stable")
        first = np.zeros(self.looks.max() + 1, dtype=np.int64)
        first[self.looks[order[::-1]]] = order[::-1]
        return first

    def pooled(self, array: Array) -> Array:
        """Sums over the states that look alike, at each of them: (..., S) -> (..., S)."""
        return array @ (self.looks[:, None] == self.looks)


def posterior(law: Law) -> Array:
    """p(policy | shown state, step), (H, S, Z); the weights where the data never come."""
    if law.mixing == "step":
        return np.broadcast_to(law.weights, (*law.joint.shape[1:], len(law.weights)))
    mass = np.moveaxis(law.pooled(law.joint), 0, -1)  # (H, S, Z)
    total = mass.sum(-1, keepdims=True)
    found: Array = np.where(total > 0, mass / np.where(total > 0, total, 1.0), law.weights)
    return found


def clone(law: Law) -> Array:
    """p(action | shown state, step) in the data, (H, S, A); the average policy where they never come.

    When the whole state is shown, its occupancy and so its expected return are the data's: the equivalence of
    Laroche & Tachet des Combes (2022). Returns are distributed otherwise, and values differ.
    """
    policies, weights = law.components
    acting = np.einsum("chs,chsa->has", law.joint, policies)  # (H, A, S)
    some = np.einsum("c,chsa->has", weights, policies)
    total = law.pooled(law.joint.sum(0))[:, None]  # (H, 1, S)
    found = np.where(total > 0, law.pooled(acting) / np.where(total > 0, total, 1.0), some)
    return np.ascontiguousarray(np.moveaxis(found, 1, -1))


def data_values(law: Law, discount: float = 1.0) -> Values:
    """E[return-to-go | shown state, step] and the same given the action too, in the data.

    It is the value of no policy when policies are mixed per episode: each is weighed by how likely it is to have come
    there. Where the data never come, or never act so, the components are weighed by their share.
    """
    policies, weights = law.components
    every = law.valued(discount)
    states = np.stack([values.state[:-1] for values in every])  # (C, H, S)
    actions = np.moveaxis(np.stack([values.action for values in every]), -1, 1)  # (C, A, H, S)
    acted = law.joint[:, None] * np.moveaxis(policies, -1, 1)  # (C, A, H, S)
    state = _weighed(law, law.joint, states, weights)
    action = np.moveaxis(_weighed(law, acted, actions, weights), 0, -1)
    ended = np.zeros((1, law.process.num_states))
    return Values(np.concatenate([state, ended]), np.ascontiguousarray(action))


def _weighed(law: Law, mass: Array, values: Array, weights: Array) -> Array:
    """Mean of values (C, ..., S) over components and states that look alike, by mass: (..., S)."""
    total = law.pooled(mass.sum(0))
    mean = law.pooled((mass * values).sum(0)) / np.where(total > 0, total, 1.0)
    found: Array = np.where(total > 0, mean, np.einsum("c...,c->...", values, weights))
    return found
