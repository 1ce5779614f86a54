"""The tabular processes: by hand, against gymnasium's own tables and wrappers, and their refusals."""

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import StickyAction

from ablate.data.tabular import occupancy
from ablate.envs import tabular
from ablate.envs.tabular import DARE, LEFT, RIGHT, Tabular, TabularMDP, chain, cliff, sticky
from ablate.errors import UserError

UP, EAST, DOWN, WEST = range(4)


def one_hot(moves, actions):
    return np.where(np.arange(actions) == np.asarray(moves)[:, None], 1.0, -1.0)


def play(env, moves, seeds):
    """What B episodes see, get and how they end when all make the same moves."""
    seen, rewards = [env.reset(seeds)], []
    for move in moves:
        observation, reward, terminations, truncations, _ = env.step(
            one_hot([move] * env.num_envs, env.action_dim)
        )
        seen.append(observation)
        rewards.append(reward)
    return np.stack(seen), np.stack(rewards), terminations, truncations


def test_the_chain_by_hand():
    seen, rewards, done, cut = play(Tabular(2, chain()), [RIGHT] * 7, [0, 1])
    np.testing.assert_array_equal(seen[:6].argmax(-1), [[c, c] for c in range(3, 9)])
    assert (seen[6:] == 0).all()  # ended: nothing is seen
    assert rewards[:, 0].tolist() == [-1.0] * 5 + [11.0, 0.0]
    assert done.all()
    assert not cut.any()
    _, rewards, done, _ = play(Tabular(1, chain()), [DARE, LEFT, LEFT, LEFT, LEFT], [0])
    assert rewards[:, 0].tolist() == [-1.0] * 4 + [5.0]
    assert done.all()
    seen, _, done, cut = play(Tabular(1, chain()), [DARE] * 25, [0])
    assert (seen.argmax(-1) == 3).all()  # daring in the corridor is staying
    assert not done.any()
    assert cut.all()


def test_the_gamble_and_its_twin():
    moves = [RIGHT] * 5 + [DARE]
    _, rewards, done, _ = play(Tabular(4000, chain()), moves, range(4000))
    assert done.all()
    assert set(rewards[-1]) == {19.0, -13.0}
    assert (rewards[-1] == 19.0).mean() == pytest.approx(0.25, abs=0.03)
    _, rewards, *_ = play(Tabular(3, chain(gamble=False)), moves, [0, 1, 2])
    assert rewards[-1].tolist() == [-5.0] * 3  # -1 and the gamble's mean, -4
    np.testing.assert_allclose(chain().expected_rewards, chain(gamble=False).expected_rewards)


def test_the_grid_by_hand():
    still = cliff(slip=0.0)
    _, rewards, done, _ = play(Tabular(1, still), [UP] + [EAST] * 4 + [DOWN], [0])
    assert rewards.sum() == 14.0
    assert done.all()
    _, rewards, done, _ = play(Tabular(1, still), [EAST], [0])
    assert (rewards.sum(), done.all()) == (-21.0, True)
    # A wall and the border stop a move.
    seen, rewards, *_ = play(Tabular(1, still), [WEST, UP, EAST, UP, WEST], [0])
    cells = [tabular.free_cells()[i] for i in seen[:, 0].argmax(-1)]
    assert cells == [(3, 0), (3, 0), (2, 0), (2, 1), (2, 1), (2, 0)]
    slipping = cliff().transitions[tabular.free_cells().index((2, 1)), EAST]
    expected = {(2, 2): 0.875, (2, 1): 0.0625}  # aside: into the wall, or over the cliff
    for cell, probability in expected.items():
        assert slipping[tabular.free_cells().index(cell)] == probability
    assert slipping[-1] == 0.0625


def test_the_grid_is_gymnasiums_frozen_lake(monkeypatch):
    """A lake is such a grid: holes for the cliff, and a slip of 2/3."""
    lake = gymnasium.make("FrozenLake-v1").unwrapped
    rows = [b"".join(row).decode() for row in lake.desc]
    monkeypatch.setattr(tabular, "GRID", [r.replace("F", ".").replace("H", "x") for r in rows])
    found = cliff(slip=2 / 3)
    cells = {r * 4 + c: i for i, (r, c) in enumerate(tabular.free_cells())}
    goal, hole = len(cells), len(cells) + 1
    for place, state in cells.items():
        for theirs, ours in zip(range(4), (WEST, DOWN, EAST, UP), strict=True):
            expected = np.zeros(found.num_states)
            for probability, after, _, _ in lake.P[place][theirs]:
                kind = rows[after // 4][after % 4]
                expected[{"G": goal, "H": hole}.get(kind, cells.get(after))] += probability
            np.testing.assert_allclose(found.transitions[state, ours], expected, atol=1e-12)


def test_sticky_actions_are_gymnasiums():
    """The chance to end at the goal under random actions, by the arrays and by gymnasium's wrapper."""
    lake = gymnasium.make("FrozenLake-v1", is_slippery=False, max_episode_steps=30)
    env = StickyAction(lake, repeat_action_probability=0.5)
    states, actions = 16, 4
    transitions = np.zeros((states, actions, states))
    terminal = np.zeros(states, dtype=bool)
    for place in range(states):
        for action in range(actions):
            ((_, after, _, ended),) = lake.unwrapped.P[place][action]
            transitions[place, action, after] = 1.0
            terminal[after] |= ended
    transitions[terminal] = np.eye(states)[terminal][:, None]
    process = TabularMDP(
        transitions, np.zeros_like(transitions), np.eye(states)[0], terminal, 30, np.eye(states)
    )
    sticking = sticky(process, 0.5)
    policy = np.full((sticking.num_states, actions), 0.25)
    ended = occupancy(sticking, policy)[30]
    # The features of terminal states are blank, so count by the survivors.
    plain = occupancy(process, policy[:states])[30][~terminal].sum()
    exact = ended[~sticking.terminal].sum()
    rng = np.random.default_rng(0)
    survived = 0
    for episode in range(2000):
        env.reset(seed=episode)
        over = False
        while not over:
            _, _, ended_now, cut, _ = env.step(int(rng.integers(4)))
            over = ended_now or cut
        survived += not ended_now
    error = 3.29 * np.sqrt(exact * (1 - exact) / 2000)
    assert abs(survived / 2000 - exact) < error
    assert abs(plain - exact) > error  # it does make a difference


def test_what_sticky_states_hold():
    process = sticky(chain(), 0.25)
    cells, lasts = process.features[:, :9], process.features[:, 9:]
    assert (cells.sum(1)[~process.terminal] == 1).all()
    assert (process.features[process.terminal] == 0).all()
    first = int(process.start.argmax())
    assert lasts[first].sum() == 0  # no action yet
    row = process.transitions[first, RIGHT]
    after = int(row.argmax())
    assert row[after] == 1.0
    assert (cells[after].argmax(), lasts[after].argmax()) == (4, RIGHT)
    row = process.transitions[after, DARE]
    found = {(int(cells[s].argmax()), int(lasts[s].argmax())): row[s] for s in np.flatnonzero(row)}
    assert found == {(4, DARE): 0.75, (5, RIGHT): 0.25}
    # Nothing that can't be reached is kept, and no stickiness changes nothing.
    reached = occupancy(process, np.full((process.num_states, 3), 1 / 3))
    assert (reached.max(0) > 0).all()
    plain, none = chain(), sticky(chain(), 0.0)
    for move in ([RIGHT] * 6, [LEFT] * 4, [DARE] * 20):
        _, ours, *_ = play(Tabular(1, plain), move, [3])
        _, theirs, *_ = play(Tabular(1, none), move, [3])
        np.testing.assert_array_equal(ours, theirs)


def test_sticky_actions_pay_what_the_executed_action_pays():
    rng = np.random.default_rng(0)
    states, actions = 3, 2
    transitions = rng.dirichlet(np.ones(states), size=(states, actions))
    rewards = rng.integers(-3, 4, size=transitions.shape).astype(float)
    start, going = np.eye(states)[0], np.zeros(states, dtype=bool)
    plain = TabularMDP(transitions, rewards, start, going, 5, np.eye(states))
    stuck = sticky(plain, 0.25)
    for state, features in enumerate(stuck.features):
        where, last = features[:states].argmax(), features[states:]
        for action in range(actions):
            executed = 0.25 * last + (1 - 0.25 * last.sum()) * np.eye(actions)[action]
            expected = executed @ plain.expected_rewards[where]
            assert stuck.expected_rewards[state, action] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("process", [chain(), cliff(), sticky(cliff(), 0.25)])
def test_rows_depend_on_their_own_seed_and_freeze(process):
    seeds = [11, 3, 3, 7, 10_000_000_019]
    rng = np.random.default_rng(0)
    moves = rng.integers(process.num_actions, size=(40, 5))
    moves[:, 2] = moves[:, 1]
    # The last row stays where it starts until the time is up, and would leave then.
    moves[:, 4] = process.num_actions - 1
    moves[process.horizon :, 4] = 1

    def run(rows):
        env = Tabular(len(rows), process)
        out = [(env.reset([seeds[b] for b in rows]), env.simulator_state())]
        for move in moves:
            observation, *rest, _ = env.step(one_hot(move[rows], process.num_actions))
            state = env.simulator_state()
            np.testing.assert_array_equal(observation, process.features[state[:, 0].astype(int)])
            out.append((observation, *rest, state))
        return out

    together = run([0, 1, 2, 3, 4])
    for b in range(5):
        for one, every in zip(run([b]), together, strict=True):
            for mine, ours in zip(one, every, strict=True):
                np.testing.assert_array_equal(mine[0], ours[b])
    for each in together:
        for array in each:
            np.testing.assert_array_equal(array[1], array[2])
    _, rewards, terminations, truncations, state = together[-1]
    assert (terminations | truncations).all()
    np.testing.assert_array_equal(rewards, 0.0)
    np.testing.assert_array_equal(state, together[-2][-1])


def test_no_impossible_state_is_ever_entered():
    process = cliff()
    env = Tabular(2000, process)
    env.reset(range(2000))
    rng = np.random.default_rng(1)
    env._luck[:100], env._luck[100:200] = 0.0, np.nextafter(1.0, 0.0)  # the ends of [0, 1)
    for _ in range(10):
        before = env.simulator_state()[:, 0].astype(int)
        moves = rng.integers(4, size=2000)
        env.step(one_hot(moves, 4))
        after = env.simulator_state()[:, 0].astype(int)
        assert (process.transitions[before, moves, after] > 0).all()


def broken(**change):
    made = chain()
    parts = {
        name: getattr(made, name)
        for name in ("transitions", "rewards", "start", "terminal", "horizon", "features")
    }
    return {**parts, **change}


def leaky():
    transitions = chain().transitions.copy()
    transitions[-1] = np.eye(13)[0]
    return transitions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": np.ones((2, 3))}, r"transitions has shape \(2, 3\); \(S, A, S\)"),
        ({"rewards": np.zeros((13, 2, 13))}, r"rewards has shape .*; \(13, 3, 13\) is needed"),
        ({"features": np.zeros(13)}, r"features has shape \(13,\); \(13, N\) is needed"),
        ({"start": np.zeros(3)}, r"start has shape \(3,\); \(13,\) is needed"),
        ({"terminal": np.zeros(13)}, "terminal has type float64; bool"),
        ({"rewards": np.full((13, 3, 13), np.nan)}, "rewards has values that are not finite"),
        ({"transitions": chain().transitions * 0.5}, r"transitions sums to .* at \(0, 0\); 1 is"),
        ({"start": np.eye(13)[0] * 3 - 2 / 13}, "start has the value"),
        ({"horizon": 0}, "horizon is 0; at least 1"),
        ({"start": np.eye(13)[12]}, "start gives a terminal state"),
        ({"transitions": leaky()}, "transitions lets a terminal state be left"),
        ({"rewards": np.ones((13, 3, 13))}, "rewards pays in a terminal state"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(UserError, match=f"^tabular process: {message}"):
        TabularMDP(**broken(**change))


def test_the_environment_refuses_what_every_one_does():
    env = Tabular(2, chain())
    env.reset([0, 1])
    with pytest.raises(UserError, match="actions have shape"):
        env.step(np.zeros((2, 4)))
