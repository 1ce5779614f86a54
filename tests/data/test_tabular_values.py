"""Exact tabular values against enumeration of every trajectory, linear algebra, simulation, and by hand."""

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate.data import tabular
from ablate.data.families.tabular import Member
from ablate.data.tabular import Law, clone, data_values, evaluate, expected_return, posterior
from ablate.data.tabular_returns import Conditioned, return_distribution, return_lattice
from ablate.data.tabular_windows import beliefs, window_actions, window_policies, window_returns
from ablate.data.trajectories import Trajectories
from ablate.envs.tabular import Tabular, TabularMDP, chain, cliff, sticky
from ablate.errors import UserError

EXACT = {"rtol": 0, "atol": 1e-8}
MEMBERS = [
    Member("chain", "gamble", 0, False, "episode"),
    Member("chain", "gamble", 25, True, "step"),
    Member("grid", "cliff", 0, False, "episode"),
    Member("grid", "cliff", 0, False, "step"),
    Member("grid", "cliff", 25, False, "episode"),
    Member("grid", "cliff", 25, True, "episode"),
]
ids = [member.name for member in MEMBERS]


# --- random laws, and every trajectory that they can give ---


def distributions(rng, *shape):
    """Random distributions along the last axis, with some zeros."""
    weights = rng.random(shape) * (rng.random(shape) < 0.7)
    weights[..., 0] += 0.2
    return weights / weights.sum(-1, keepdims=True)


def random_law(seed, mixing="episode", hidden=False, horizon=3, staged=False):
    rng = np.random.default_rng(seed)
    states, actions, policies = rng.integers(2, 5), rng.integers(2, 4), rng.integers(1, 4)
    terminal = np.arange(states) >= states - rng.integers(0, 2)
    transitions = distributions(rng, states, actions, states)
    rewards = rng.integers(-2, 3, size=transitions.shape).astype(float)
    transitions[terminal], rewards[terminal] = np.eye(states)[terminal][:, None], 0.0
    start = distributions(rng, states) * ~terminal
    # Hidden: of two states that look alike, only the second number tells which it is.
    looks = np.arange(states) // 2 if hidden else np.arange(states)
    features = np.stack([looks, np.arange(states)], axis=1).astype(float)
    process = TabularMDP(transitions, rewards, start / start.sum(), terminal, horizon, features)
    shape = (policies, horizon, states, actions) if staged else (policies, states, actions)
    return Law(
        process,
        distributions(rng, *shape)[..., looks, :],
        distributions(rng, policies),
        mixing,
        [0] if hidden else None,
    )


@dataclass
class Path:
    """A whole trajectory: its probability, the component that acted, and its steps (s, a, r, s')."""

    probability: float
    component: int
    steps: list


def paths(law):
    """Every trajectory of the law, by recursion and nothing else."""
    process = law.process
    components, weights = law.components
    found = []

    def go(component, t, state, probability, steps):
        if probability == 0.0:
            return
        if t == process.horizon or process.terminal[state]:
            found.append(Path(probability, component, steps))
            return
        for action, after in product(range(process.num_actions), range(process.num_states)):
            chance = components[component][t, state, action]
            chance = chance * process.transitions[state, action, after]
            step = (state, action, process.rewards[state, action, after], after)
            go(component, t + 1, after, probability * chance, [*steps, step])

    for component, weight in enumerate(weights):
        for state, chance in enumerate(process.start):
            go(component, 0, state, weight * chance, [])
    assert sum(p.probability for p in found) == pytest.approx(1.0, abs=1e-12)
    return found


def to_go(path, t, discount=1.0):
    return sum(discount**k * reward for k, (_, _, reward, _) in enumerate(path.steps[t:]))


def look(law, state):
    return int(law.looks[state])


laws = st.builds(
    random_law,
    st.integers(0, 10**6),
    st.sampled_from(["episode", "step"]),
    st.booleans(),
    st.integers(1, 3),
    st.booleans(),
)
quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@quick
@given(laws, st.sampled_from([1.0, 0.8]))
def test_values_of_the_data_equal_enumeration(law, discount):
    """Returns, their distribution, and all that is said of (shown state, step, action)."""
    mass, total = defaultdict(float), defaultdict(float)
    acted, acted_total = defaultdict(float), defaultdict(float)
    who = defaultdict(lambda: np.zeros(len(law.components[1])))
    visits = np.zeros(law.joint.shape[1:])
    mean, square = 0.0, 0.0
    for path in paths(law):
        mean += path.probability * to_go(path, 0)
        square += path.probability * to_go(path, 0) ** 2
        for t, (state, action, _, _) in enumerate(path.steps):
            key = (t, look(law, state))
            mass[key] += path.probability
            total[key] += path.probability * to_go(path, t, discount)
            acted[*key, action] += path.probability
            acted_total[*key, action] += path.probability * to_go(path, t, discount)
            who[key][path.component] += path.probability
            visits[t, state] += path.probability
    assert law.expected_return == pytest.approx(mean, abs=1e-8)
    assert law.return_variance == pytest.approx(square - mean**2, abs=1e-8)
    np.testing.assert_allclose(law.joint.sum(0), visits, **EXACT)
    values, cloned, tells = data_values(law, discount), clone(law), posterior(law)
    for t, state in product(range(law.process.horizon), np.flatnonzero(law.acting)):
        key = (t, look(law, state))
        if key not in mass:
            continue
        assert values.state[t, state] == pytest.approx(total[key] / mass[key], abs=1e-8)
        if law.mixing == "episode":
            np.testing.assert_allclose(tells[t, state], who[key] / mass[key], **EXACT)
        for action in range(law.process.num_actions):
            share = acted[*key, action]
            assert cloned[t, state, action] == pytest.approx(share / mass[key], abs=1e-8)
            if share > 0:
                expected = acted_total[*key, action] / share
                assert values.action[t, state, action] == pytest.approx(expected, abs=1e-8)


@quick
@given(laws)
def test_distributions_of_returns_equal_enumeration(law):
    policies, weights = law.components
    found = [return_distribution(law.process, policy) for policy in policies]
    lattice = found[0].values
    expected = np.zeros((len(weights), len(lattice)))
    for path in paths(law):
        expected[path.component, np.flatnonzero(lattice == to_go(path, 0))] += path.probability
    for z, each in enumerate(found):
        start = law.process.start @ each.state[0]
        np.testing.assert_allclose(weights[z] * start, expected[z], **EXACT)
        values = law.values[z]
        np.testing.assert_allclose(each.state.sum(-1), 1.0, **EXACT)
        np.testing.assert_allclose(each.state @ lattice, values.state, **EXACT)
        np.testing.assert_allclose(each.action @ lattice, values.action, **EXACT)
        variance = tabular.return_variance(law.process, policies[z])
        second = start @ np.square(lattice) - (start @ lattice) ** 2
        assert variance == pytest.approx(second, abs=1e-8)
    np.testing.assert_allclose(Conditioned(law).returns, expected.sum(0), **EXACT)


@quick
@given(laws)
def test_conditioning_on_a_return_equals_enumeration(law):
    """p(action | shown state, step, return-to-go), and what acting on it gets, trajectory by trajectory."""
    counts = defaultdict(lambda: np.zeros(law.process.num_actions))
    for path in paths(law):
        for t, (state, action, _, _) in enumerate(path.steps):
            counts[t, look(law, state), to_go(path, t)][action] += path.probability

    def act(t, state, wanted):
        seen = [g for (at, which, g) in counts if (at, which) == (t, look(law, state))]
        if not seen:
            return clone(law)[t, state], True
        nearest = min(seen, key=lambda g: (abs(g - wanted), -g))
        chances = counts[t, look(law, state), nearest]
        return chances / chances.sum(), nearest != wanted

    def follow(t, state, wanted):
        """Expected return, steps and steps at which the wanted return was never seen."""
        if t == law.process.horizon or law.process.terminal[state]:
            return np.zeros(3)
        chances, unseen = act(t, state, wanted)
        out = np.array([0.0, 1.0, float(unseen)])
        for action, after in product(range(len(chances)), range(law.process.num_states)):
            chance = chances[action] * law.process.transitions[state, action, after]
            if chance > 0:
                reward = law.process.rewards[state, action, after]
                rest = follow(t + 1, after, wanted - reward)
                out += chance * (rest + np.array([reward, 0.0, 0.0]))
        return out

    found = Conditioned(law)
    for (t, which, wanted), chances in counts.items():
        state = int(np.flatnonzero(law.acting & (law.looks == which))[0])
        given_return = found.probabilities(t, np.array([int(wanted)]))[state, 0]
        np.testing.assert_allclose(given_return, chances / chances.sum(), **EXACT)
    targets = found.targets()
    for target in {targets[0], targets[-1], float(np.rint(targets.mean())), targets[-1] + 3}:
        value, steps, unseen = sum(
            chance * follow(0, state, target)
            for state, chance in enumerate(law.process.start)
            if chance > 0
        )
        achieved = found.achieve(target)
        assert achieved.promised == target
        assert achieved.achieved == pytest.approx(value, abs=1e-8)
        assert achieved.unseen == pytest.approx(unseen / steps, abs=1e-8)


def as_trajectories(law, every):
    """Paths as the data room holds them."""
    steps = [step for path in every for step in path.steps]
    states, actions, rewards, _ = (np.array(column) for column in zip(*steps, strict=True))
    starts = np.cumsum([0, *(len(path.steps) for path in every)])
    ends = np.isin(np.arange(len(states)), starts[1:] - 1)
    one_hot = np.where(np.arange(law.process.num_actions) == actions[:, None], 1.0, -1.0)
    return Trajectories(
        name="paths",
        observations=law.shown[states].astype(np.float32),
        actions=one_hot.astype(np.float32),
        rewards=rewards.astype(np.float32),
        terminations=ends,
        truncations=np.zeros(len(states), dtype=bool),
        episode_starts=starts,
    )


def rows_of(law, every, context):
    """(path, step, window) of every row that `as_trajectories` makes."""
    for path in every:
        for t in range(len(path.steps)):
            first = max(0, t - context + 1)
            seen = tuple(look(law, state) for state, *_ in path.steps[first : t + 1])
            yield path, t, (t, seen, tuple(action for _, action, *_ in path.steps[first:t]))


@quick
@given(laws, st.integers(1, 3), st.sampled_from([1.0, 0.8]))
def test_what_a_window_tells_equals_enumeration(law, context, discount):
    context = min(context, law.process.horizon)
    every = paths(law)
    who = defaultdict(lambda: np.zeros((len(law.components[1]), law.process.num_states)))
    act = defaultdict(lambda: np.zeros(law.process.num_actions))
    returns, after = defaultdict(float), defaultdict(float)
    for path, t, key in rows_of(law, every, context):
        state, action, *_ = path.steps[t]
        who[key][path.component, state] += path.probability
        act[key][action] += path.probability
        returns[key] += path.probability * to_go(path, t, discount)
        after[key, action] += path.probability * to_go(path, t, discount)
    data = as_trajectories(law, every)
    found, clones = beliefs(law, data, context), window_actions(law, data, context)
    expected = window_returns(law, data, context, acted=False, discount=discount)
    given_action = window_returns(law, data, context, acted=True, discount=discount)
    tells = window_policies(law, data, context)
    rows = [(key, path.steps[t][1]) for path, t, key in rows_of(law, every, context)]
    mass = np.array([who[key].sum() for key, _ in rows])
    joint = np.array([who[key] for key, _ in rows]) / mass[:, None, None]
    np.testing.assert_allclose(found, joint, **EXACT)
    np.testing.assert_allclose(clones, [act[key] / who[key].sum() for key, _ in rows], **EXACT)
    np.testing.assert_allclose(expected, [returns[key] for key, _ in rows] / mass, **EXACT)
    later = [after[key, action] / act[key][action] for key, action in rows]
    np.testing.assert_allclose(given_action, later, **EXACT)
    who_acts = joint.sum(-1) if law.mixing == "episode" else np.tile(law.weights, (len(rows), 1))
    np.testing.assert_allclose(tells, who_acts, **EXACT)


@quick
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_a_clone_with_a_memory_gets_what_the_data_get(seed, context):
    """The equivalence holds for windows in the place of states: every K has the score of the data."""
    law = random_law(seed)
    every, process = paths(law), law.process
    chances = window_actions(law, as_trajectories(law, every), context)
    policy = {key: chances[row] for row, (_, _, key) in enumerate(rows_of(law, every, context))}

    def follow(t, states, actions):
        if t == process.horizon or process.terminal[states[-1]]:
            return 0.0
        looks = tuple(look(law, state) for state in states[-context:])
        chances = policy[t, looks, actions[max(0, t - context + 1) :]]
        value = 0.0
        for action, after in product(range(len(chances)), range(process.num_states)):
            chance = chances[action] * process.transitions[states[-1], action, after]
            if chance > 0:
                rest = follow(t + 1, (*states, after), (*actions, action))
                value += chance * (process.rewards[states[-1], action, after] + rest)
        return value

    value = sum(process.start[s] * follow(0, (s,), ()) for s in np.flatnonzero(process.start))
    assert value == pytest.approx(law.expected_return, abs=1e-8)


# --- other algorithms, other people's ---


@quick
@given(laws, st.sampled_from([1.0, 0.9]))
def test_values_solve_the_bellman_equation(law, discount):
    """One linear system over all (step, state) pairs, and the occupancy by matrix powers."""
    process = law.process
    horizon, states = process.horizon, process.num_states
    stationary = np.random.default_rng(0).dirichlet(np.ones(process.num_actions), size=states)
    for policy in (law.components[0][0], stationary):
        every = np.broadcast_to(policy, (horizon, *stationary.shape))
        size = (horizon + 1) * states
        system, rewards = np.eye(size), np.zeros(size)
        for t in range(horizon):
            here, then = slice(t * states, (t + 1) * states), slice((t + 1) * states, None)
            step = np.einsum("sa,sat->st", every[t], process.transitions)
            system[here, then][:, :states] -= discount * step
            rewards[here] = (every[t] * process.expected_rewards).sum(-1)
        solved = np.linalg.solve(system, rewards).reshape(horizon + 1, states)
        np.testing.assert_allclose(evaluate(process, policy, discount).state, solved, **EXACT)
    step = np.einsum("sa,sat->st", stationary, process.transitions)
    for t, found in enumerate(tabular.occupancy(process, stationary)):
        expected = process.start @ np.linalg.matrix_power(step, t)
        np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize(
    "make", [chain, cliff, lambda horizon: sticky(cliff(horizon=horizon), 0.25)]
)
def test_long_horizons_are_the_stationary_solution(make):
    """Discounted, or until the end is reached: (I - discount P)^-1 r."""
    process = make(horizon=4000)
    rng = np.random.default_rng(0)
    # Not too far from uniform, so that an end is reached long before the time is up.
    policy = 0.5 * rng.dirichlet(np.ones(process.num_actions), size=process.num_states)
    policy += 0.5 / process.num_actions
    going = ~process.terminal
    step = np.einsum("sa,sat->st", policy, process.transitions)[np.ix_(going, going)]
    reward = (policy * process.expected_rewards).sum(-1)[going]
    for discount in (1.0, 0.95):
        solved = np.linalg.solve(np.eye(len(step)) - discount * step, reward)
        found = evaluate(process, policy, discount).state[0, going]
        np.testing.assert_allclose(found, solved, **EXACT)
    # The fixed point of value iteration is where the optimality equation holds.
    best = tabular.optimise(process, 0.95)[0].state[0]
    again = tabular.backup(process, best, 0.95).max(-1)
    np.testing.assert_allclose(again, best, **EXACT)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_no_policy_is_better_and_no_plan_either(seed):
    """V* and look-ahead against every deterministic policy there is."""
    rng = np.random.default_rng(seed)
    transitions = distributions(rng, 2, 2, 2)
    rewards = rng.normal(size=transitions.shape)
    process = TabularMDP(
        transitions, rewards, np.array([0.5, 0.5]), np.zeros(2, dtype=bool), 3, np.eye(2)
    )
    every = [np.eye(2)[list(choice)] for choice in product(range(2), repeat=2)]  # (S, A) each
    beta = distributions(rng, 3, 2, 2)
    heuristic = evaluate(process, beta).state

    def best_of(steps):
        """max over the first `steps` stages, beta afterwards, of the return from each state."""
        plans = product(every, repeat=steps)
        return np.max(
            [evaluate(process, np.stack([*plan, *beta[steps:]])).state[0] for plan in plans], axis=0
        )

    for steps in (1, 2, 3):
        promise, _ = tabular.lookahead(process, heuristic, steps)
        np.testing.assert_allclose(promise[0], best_of(steps), **EXACT)
    optimum, policy = tabular.optimise(process)
    np.testing.assert_allclose(optimum.state[0], best_of(3), **EXACT)
    np.testing.assert_allclose(evaluate(process, policy).state, optimum.state, **EXACT)
    np.testing.assert_allclose(tabular.lookahead(process, heuristic, 99)[0], optimum.state, **EXACT)


@quick
@given(laws)
def test_properties(law):
    process, horizon = law.process, law.process.horizon
    policies, weights = law.components
    average = np.einsum("c,chsa->hsa", weights, policies)
    values, optimum = evaluate(process, average).state, tabular.optimise(process)[0]
    tolerance = 1e-10
    for policy in (*policies, average, clone(law)):
        assert (evaluate(process, policy).state <= optimum.state + tolerance).all()
        reached = tabular.occupancy(process, policy)
        np.testing.assert_allclose(reached.sum(-1), 1.0, **EXACT)
        # Where it goes times what it gets there is what it is worth.
        staged = tabular.staged(process, policy)
        got = np.einsum("hs,hsa,sa->", reached[:-1], staged, process.expected_rewards)
        assert got == pytest.approx(expected_return(process, policy), abs=1e-8)
    # Look-ahead on a policy's value: promises rise with the steps, are kept, and end at V*.
    before = values
    for steps in range(1, horizon + 1):
        promise, plan = tabular.lookahead(process, values, steps)
        assert (promise >= before - tolerance).all()
        assert (evaluate(process, plan).state >= promise - tolerance).all()
        before = promise
    np.testing.assert_allclose(before, optimum.state, **EXACT)
    # Mixtures.
    both = {mixing: replace(law, mixing=mixing) for mixing in ("episode", "step")}
    each = [expected_return(process, policy) for policy in law.staged_policies]
    assert both["episode"].expected_return == pytest.approx(law.weights @ each, abs=1e-8)
    mean = np.einsum("z,zhsa->hsa", law.weights, law.staged_policies)
    assert both["step"].expected_return == pytest.approx(expected_return(process, mean), abs=1e-8)
    # Total probability: what the posterior says, averaged, is what was so before.
    tells = posterior(both["episode"])
    np.testing.assert_allclose(tells.sum(-1), 1.0, **EXACT)
    if not process.terminal.any():
        averaged = np.einsum("hs,hsz->hz", both["episode"].joint.sum(0), tells)
        np.testing.assert_allclose(averaged, np.tile(law.weights, (horizon, 1)), **EXACT)
    if law.observable is None:
        cloned = clone(law)
        assert expected_return(process, cloned) == pytest.approx(law.expected_return, abs=1e-8)
        reached = tabular.occupancy(process, cloned)[:-1] * law.acting
        np.testing.assert_allclose(reached, law.joint.sum(0), **EXACT)
    # The mean of the values given the action is the value.
    values = data_values(law)
    averaged = (clone(law) * values.action).sum(-1)
    somewhere = law.pooled(law.joint.sum(0)) > 0
    np.testing.assert_allclose(averaged[somewhere], values.state[:-1][somewhere], **EXACT)


# --- by hand ---


def test_one_choice_by_hand():
    """One choice: 1 for sure, or 4 with probability 1/8 and else nothing; then it is over."""
    transitions, rewards = np.zeros((3, 2, 3)), np.zeros((3, 2, 3))
    transitions[0, 0, 1], transitions[0, 1, 1], transitions[0, 1, 2] = 1.0, 0.875, 0.125
    transitions[1:] = np.eye(3)[1:, None]
    rewards[0, 0, 1], rewards[0, 1, 2] = 1.0, 4.0
    terminal = np.array([False, True, True])
    process = TabularMDP(transitions, rewards, np.eye(3)[0], terminal, 2, np.eye(3, 1))
    sure, bold = np.array([[0.75, 0.25]] * 3), np.array([[0.0, 1.0]] * 3)
    assert expected_return(process, bold) == 0.5
    assert expected_return(process, sure) == 0.875
    assert tabular.return_variance(process, bold) == 2.0 - 0.25
    assert tabular.optimise(process)[0].state[0, 0] == 1.0
    law = Law(process, np.stack([sure, bold]), np.array([0.5, 0.5]), "episode")
    assert law.expected_return == 0.6875
    assert clone(law)[0, 0].tolist() == [0.375, 0.625]
    values = data_values(law)
    assert values.action[0, 0].tolist() == [1.0, 0.5]
    asked = Conditioned(law)
    assert asked.targets().tolist() == [0.0, 1.0, 4.0]
    # Asked for the most, it gambles: the promise is 4, the truth a half.
    for target, value in ((4.0, 0.5), (1.0, 1.0), (0.0, 0.5), (2.0, 1.0), (9.0, 0.5)):
        assert asked.achieve(target).achieved == value
    assert asked.achieve(9.0).unseen == 1.0
    assert asked.quantile(0.9) == 1.0
    assert asked.quantile(0.99) == 4.0


def test_the_chain_by_hand():
    process = chain()
    best, policy = tabular.optimise(process)
    # From the start: five steps right, one out, 12; at the left end 6 is nearer.
    assert best.state[0, 3] == 12 - 6
    assert best.state[0, 0] == 6 - 1
    assert best.state[0, 8] == 12 - 1
    assert best.action[0, 8].tolist() == [10 - 1, 12 - 1, -4 - 1]
    np.testing.assert_array_equal(policy[0, 3:9], np.tile([0, 1, 0], (6, 1)))
    assert best.state[-3, 5] == -2  # too late to reach an end
    always = np.tile([0.0, 0.0, 1.0], (13, 1))
    assert expected_return(process, always) == -20


def test_luck_in_the_chain_and_none_in_its_twin():
    risky, twin = (Member("chain", task, 0, False, "episode").law for task in ("gamble", "certain"))
    lured, honest = (Conditioned(law) for law in (risky, twin))
    assert lured.targets().max() == 20 - 6
    assert lured.achieve(14.0).achieved == pytest.approx(-4 - 6)
    assert honest.targets().max() == 12 - 6
    assert honest.achieve(6.0).achieved == pytest.approx(6.0)
    # Values don't tell the twins apart.
    np.testing.assert_allclose(data_values(risky).state, data_values(twin).state, **EXACT)


def test_short_plans_stop_at_the_near_end():
    law = Member("chain", "gamble", 0, False, "episode").law
    after = data_values(law).state
    got = [
        expected_return(law.process, tabular.lookahead(law.process, after, k)[1])
        for k in range(1, 21)
    ]
    assert got == pytest.approx([2.0] * 5 + [6.0] * 15)


# --- the members: estimates from the data's own law, and simulation ---


@pytest.mark.parametrize("member", MEMBERS, ids=ids)
def test_estimates_from_endless_data_reproduce_the_closed_forms(member):
    """Tabular maximum likelihood, each row weighed by its exact probability, then plain averages."""
    law = member.law
    process, (policies, _) = law.process, law.components
    # (C, H, S, A, S'): the weight of every transition in endless data.
    rows = np.einsum("chs,chsa,sat->chsat", law.joint, policies, process.transitions)
    by_pair = rows.sum((0, 1))
    visits = by_pair.sum(-1)
    estimated = by_pair[visits > 0] / visits[visits > 0][:, None]
    np.testing.assert_allclose(estimated, process.transitions[visits > 0], **EXACT)
    # Without the step or a memory of who acts, per shown state: the clone.
    shown = np.eye(law.looks.max() + 1)[law.looks]  # (S, O)
    acted = np.einsum("chsat,so->hoa", rows, shown)
    total = acted.sum(-1, keepdims=True)
    share = np.where(total > 0, acted / np.where(total > 0, total, 1.0), 0.0)[:, law.looks]
    met = (total[:, law.looks, 0] > 0) & law.acting
    np.testing.assert_allclose(share[met], clone(law)[met], **EXACT)
    # Each policy's value from its own rows, by backward averages over estimated moves.
    for z, policy in enumerate(policies):
        value = np.zeros(process.num_states)
        for t in reversed(range(process.horizon)):
            weight = rows[z, t].sum((1, 2))
            moves = rows[z, t] / np.where(weight > 0, weight, 1.0)[:, None, None]
            value = np.einsum("sat,sat->s", moves, process.rewards + value)
            here = weight > 0
            np.testing.assert_allclose(value[here], law.values[z].state[t, here], **EXACT)
        assert process.start @ value == pytest.approx(expected_return(process, policy), abs=1e-8)
    # Rewards as they fall, weighed: the return of the data.
    got = float(np.einsum("chsat,sat->", rows, process.rewards))
    assert got == pytest.approx(law.expected_return, abs=1e-8)


def simulate(process, act, episodes=2500, seed=0):
    """Returns (E,) in the vectorised environment; act: (t, states, rng) -> actions."""
    env, rng = Tabular(episodes, process), np.random.default_rng(seed)
    env.reset(range(seed * 10**6, seed * 10**6 + episodes))
    total = np.zeros(episodes)
    for t in range(process.horizon):
        moves = act(t, env.simulator_state()[:, 0].astype(int), rng, total)
        one_hot = np.where(np.arange(process.num_actions) == moves[:, None], 1.0, -1.0)
        total = total + env.step(one_hot)[1]
    return total


def draw(chances, rng):
    return (rng.random((len(chances), 1)) >= chances.cumsum(-1)[:, :-1]).sum(1)


def agrees(returns, expected):
    """Whether the mean lies within the 99.9 % interval around what it should be."""
    return abs(returns.mean() - expected) <= 3.29 * returns.std() / np.sqrt(len(returns)) + 1e-9


@pytest.mark.parametrize("member", MEMBERS, ids=ids)
def test_simulation_agrees(member):
    """Every kind of policy in the table, run in the environment: 99.9 % intervals, fixed seeds."""
    law, process = member.law, member.law.process
    cloned, after = clone(law), data_values(law).state
    kinds = {f"policy {z}": policy for z, policy in enumerate(law.staged_policies)}
    kinds |= {"clone": cloned, "likeliest": tabular.greedy(cloned)}
    kinds |= {f"look-ahead {k}": tabular.lookahead(process, after, k)[1] for k in (1, 3, 6)}
    kinds["optimal"] = tabular.optimise(process)[1]
    kinds["average"] = np.einsum("z,zhsa->hsa", law.weights, law.staged_policies)
    for seed, (name, policy) in enumerate(kinds.items()):
        returns = simulate(
            process, lambda t, s, rng, total, p=policy: draw(p[t, s], rng), seed=seed
        )
        assert agrees(returns, expected_return(process, policy)), name
        spread = tabular.return_variance(process, policy) ** 0.5
        assert returns.std() == pytest.approx(spread, rel=0.1, abs=1e-9), name
    asked = Conditioned(law)
    for seed, target in enumerate((asked.quantile(0.5), asked.quantile(0.9)), start=50):

        def act(t, states, rng, total, target=target):
            wanted = np.arange(-80, 81)
            table = asked.probabilities(t, wanted)
            return draw(table[states, (target - total).astype(int) + 80], rng)

        returns = simulate(process, act, seed=seed)
        assert agrees(returns, asked.achieve(target).achieved), target


# --- refusals ---


def test_refusals():
    law = random_law(3)
    process = law.process
    shape = law.policies.shape[1:]
    with pytest.raises(UserError, match=r"policy: has shape \(1, 1\)"):
        evaluate(process, np.ones((1, 1)))
    with pytest.raises(UserError, match="policy sums to"):
        evaluate(process, np.full(shape, 0.9))
    with pytest.raises(UserError, match="lookahead: 0 steps; at least 1"):
        tabular.lookahead(process, law.values[0].state, 0)
    with pytest.raises(UserError, match=r"mixing: 'episodes' is not known.*Did you mean 'episode'"):
        replace(law, mixing="episodes")
    with pytest.raises(UserError, match=r"weights: has shape \(9,\)"):
        replace(law, weights=np.full(9, 1 / 9))
    with pytest.raises(UserError, match="weights sums to"):
        replace(law, weights=law.weights * 0.5)
    hidden = random_law(5, hidden=True)
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="states that look alike"):
        replace(hidden, policies=distributions(rng, *hidden.policies.shape))
    uneven = replace(process, rewards=process.rewards + 0.25 * ~process.terminal[:, None, None])
    with pytest.raises(UserError, match="is no multiple of 1"):
        return_lattice(uneven)
    assert len(return_lattice(uneven, unit=0.25)) > len(return_lattice(process))
    with pytest.raises(UserError, match=r"0.5 is no multiple of 1"):
        Conditioned(law).achieve(0.5)
    data = as_trajectories(law, paths(law)[:1])
    for context in (0, 4):
        with pytest.raises(UserError, match=f"context: {context} timesteps; allowed: 1 to 3"):
            beliefs(law, data, context)
    with pytest.raises(UserError, match="observations have 1 numbers; the process shows 2"):
        beliefs(law, data.observe([0], "less"), 1)
    strange = replace(data, observations=data.observations + 7)
    with pytest.raises(UserError, match="row 0 shows what no state"):
        beliefs(law, strange, 1)


def test_what_the_policies_never_do_is_refused():
    member = Member("grid", "calm", 0, False, "single")
    law = member.law
    data = as_trajectories(law, [Path(1.0, 0, [(0, 0, -1.0, 0)])])  # doesn't start there
    with pytest.raises(UserError, match="row 0 shows what the law's policies never do"):
        beliefs(law, data, 1)


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_optimal_values_are_asked_by_what_is_seen(discount):
    """As a search asks: observations as the environment shows them, rounding included, and none that is no state."""
    process = sticky(chain(), 0.25)
    best = tabular.optimise(process, discount)[0].action
    ask = tabular.optimal_values(process)
    acting = np.flatnonzero(~process.terminal)
    seen = process.features[acting] + 1e-4
    for t, action in ((0, 2), (7, 0), (19, 1)):
        actions = np.tile(2.0 * np.eye(3)[action] - 1.0, (len(acting), 1))
        np.testing.assert_array_equal(ask(seen, actions, t, discount), best[t, acting, action])
        assert not ask(
            np.ones_like(seen), actions, t, discount
        ).any()  # the end, as a search reads it
        assert not ask(np.zeros_like(seen), actions, t, discount).any()
        assert not ask(seen, actions, t + 20, discount).any()
