"""Finite Markov decision processes with a time limit: the process as arrays, and its batched environment.

Two tasks in which every value is known exactly (`ablate.data.tabular`):

`chain(...)`, nine cells, start in the fourth; actions left, right, dare; each step costs 1.

    +6 <- [0] [1] [2] [3: start] [4] [5] [6] [7] [8] -> +12 for sure, or dare: +20 or -12

Daring elsewhere is staying. It wins with probability 1/4: a higher best outcome, and a lower mean (-4), than what
is sure.

`cliff(...)`, a grid; actions up, right, down, left; each step costs 1, the goal pays 20 and the cliff (`x`)
costs 20; both end the episode, walls (`#`) and the border stop a move. With probability `slip` a move
turns aside, to either side alike.

    . . . . .
    . # # # .
    . . . . .
    S x x x G

`sticky(process, p)`: with probability p the action executed last is executed again (Machado et al. 2018,
"Revisiting the Arcade Learning Environment"); the state then holds that action too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ablate.envs.base import Info, SimulatedEnv, episode_rng, pick
from ablate.errors import UserError

Array = NDArray[np.float64]

_TAG = 0x7B
_SUM_TOLERANCE = 1e-12

CELLS = 9
FIRST_CELL = 3
LEFT, RIGHT, DARE = range(3)
STEP_COST = 1.0
LEFT_PAYS, RIGHT_PAYS = 6.0, 12.0
WIN_PAYS, LOSS_PAYS, WIN_PROBABILITY = 20.0, -12.0, 0.25
CHAIN_HORIZON = 20

GRID = (".....", ".###.", ".....", "SxxxG")
MOVES = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])  # up, right, down, left: (row, column)
GOAL_PAYS, CLIFF_PAYS = 20.0, -20.0
SLIP = 0.125
GRID_HORIZON = 30


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A process of S states and A actions that is cut off after `horizon` steps.

    Attributes:
        transitions: (S, A, S), probability of the next state.
        rewards: (S, A, S), reward of a step, known once the next state is.
        start: (S,), distribution of the first state.
        terminal: (S,) bool; such a state returns to itself and pays nothing.
        horizon: H, steps after which an episode is truncated.
        features: (S, N), what is seen in a state when nothing is hidden.

    Raises UserError naming the array and the broken rule.
    """

    transitions: Array
    rewards: Array
    start: Array
    terminal: NDArray[np.bool_]
    horizon: int
    features: Array

    def __post_init__(self) -> None:
        if self.transitions.ndim != 3 or self.transitions.shape[0] != self.transitions.shape[2]:
            _refuse("transitions", f"has shape {self.transitions.shape}; (S, A, S) is needed")
        states, actions, _ = self.transitions.shape
        shapes = {
            "rewards": (states, actions, states),
            "start": (states,),
            "terminal": (states,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                _refuse(name, f"has shape {getattr(self, name).shape}; {shape} is needed")
        if self.features.ndim != 2 or len(self.features) != states:
            _refuse("features", f"has shape {self.features.shape}; ({states}, N) is needed")
        if self.terminal.dtype != np.bool_:
            _refuse("terminal", f"has type {self.terminal.dtype}; bool is needed")
        for name in ("transitions", "rewards", "start", "features"):
            if not np.isfinite(getattr(self, name)).all():
                _refuse(name, "has values that are not finite")
        for name in ("transitions", "start"):
            check_distribution(name, getattr(self, name))
        if self.horizon < 1:
            _refuse("horizon", f"is {self.horizon}; at least 1 is needed")
        if self.start[self.terminal].any():
            _refuse("start", "gives a terminal state some probability")
        stays = self.transitions[self.terminal] == np.eye(states)[self.terminal][:, None]
        if not stays.all():
            _refuse("transitions", "lets a terminal state be left; it must return to itself")
        if self.rewards[self.terminal].any():
            _refuse("rewards", "pays in a terminal state; 0 is needed there")

    @property
    def num_states(self) -> int:
        return self.transitions.shape[0]

    @property
    def num_actions(self) -> int:
        return self.transitions.shape[1]

    @cached_property
    def expected_rewards(self) -> Array:
        """Mean reward of each action in each state, (S, A)."""
        mean: Array = np.einsum("sat,sat->sa", self.transitions, self.rewards)
        return mean


def check_distribution(name: str, probabilities: Array) -> None:
    """Refuses probabilities (..., n) that are negative or don't sum to 1 along the last axis."""
    if (probabilities < 0).any():
        _refuse(name, f"has the value {probabilities.min()}; probabilities are at least 0")
    sums = probabilities.sum(-1)
    wrong = np.argwhere(np.abs(sums - 1.0) > _SUM_TOLERANCE)
    if len(wrong):
        where = tuple(int(i) for i in wrong[0])
        _refuse(name, f"sums to {sums[where]!r} at {where}; 1 is needed")


def _refuse(array: str, problem: str) -> None:
    raise UserError(f"tabular process: {array} {problem}.")


class Tabular(SimulatedEnv):
    """B episodes of a tabular process. An action is (B, A), one number each; the largest is executed.

    The observation is the state's row of `features`, the simulator state its index.
    """

    per_place = ("_state", "_luck")

    def __init__(self, num_envs: int, process: TabularMDP) -> None:
        super().__init__(num_envs, process.features.shape[1], process.num_actions, process.horizon)
        self.process = process
        self._next = _cumulative(process.transitions)  # (S, A, S)
        self._first = _cumulative(process.start)  # (S,)

    def simulator_state(self) -> NDArray[np.float64]:
        return self._state[:, None].astype(np.float64)

    def _start(self, seeds: list[int]) -> np.ndarray:
        # Every episode's luck is drawn at once, from its own seed, so that stepping is vectorised.
        self._luck = np.stack([episode_rng(s, _TAG).random(self.horizon + 1) for s in seeds])
        self._state = (self._luck[:, :1] >= self._first).sum(axis=1)  # (B,)
        return self.process.features[self._state]

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        before, chosen = self._state, actions.argmax(axis=1)
        luck = pick(self._luck, self._now + 1)[:, None]  # (B, 1)
        after = (luck >= self._next[before, chosen]).sum(axis=1)  # (B,)
        self._state = after  # nobody leaves an ended episode: its state returns to itself
        rewards = self.process.rewards[before, chosen, after]
        return self.process.features[after], rewards, self.process.terminal[after], {}


def _cumulative(probabilities: Array) -> Array:
    """Distribution function along the last axis, exactly 1 from the last possible value on."""
    total: Array = probabilities.cumsum(-1)
    return total / total[..., -1:]


# --- the tasks ---


def chain(gamble: bool = True, horizon: int = CHAIN_HORIZON) -> TabularMDP:
    """The chain above; without `gamble`, daring pays its mean for sure (the deterministic twin).

    After the nine cells come the terminal states: left end, right end, won, lost.
    """
    left_end, right_end, won, lost = range(CELLS, CELLS + 4)
    states = CELLS + 4
    transitions, rewards = np.zeros((states, 3, states)), np.zeros((states, 3, states))
    cells = np.arange(CELLS)
    transitions[cells, LEFT, np.where(cells > 0, cells - 1, left_end)] = 1.0
    transitions[cells, RIGHT, np.where(cells < CELLS - 1, cells + 1, right_end)] = 1.0
    transitions[cells[:-1], DARE, cells[:-1]] = 1.0
    transitions[CELLS - 1, DARE, won] = WIN_PROBABILITY
    transitions[CELLS - 1, DARE, lost] = 1.0 - WIN_PROBABILITY
    rewards[:CELLS] = -STEP_COST
    rewards[:CELLS, :, left_end] += LEFT_PAYS
    rewards[:CELLS, :, right_end] += RIGHT_PAYS
    mean = WIN_PROBABILITY * WIN_PAYS + (1.0 - WIN_PROBABILITY) * LOSS_PAYS
    rewards[:CELLS, :, won] += WIN_PAYS if gamble else mean
    rewards[:CELLS, :, lost] += LOSS_PAYS if gamble else mean
    return _process(transitions, rewards, FIRST_CELL, CELLS, horizon)


def cliff(slip: float = SLIP, horizon: int = GRID_HORIZON) -> TabularMDP:
    """The grid above; its states are the free cells in reading order, then goal and cliff (terminal)."""
    index = {cell: i for i, cell in enumerate(free_cells())}
    goal, fallen = len(index), len(index) + 1
    states = len(index) + 2
    transitions, rewards = np.zeros((states, 4, states)), np.zeros((states, 4, states))
    for (row, column), state in index.items():
        for move, (down, right) in enumerate(MOVES):
            at = (row + int(down), column + int(right))
            inside = 0 <= at[0] < len(GRID) and 0 <= at[1] < len(GRID[0])
            kind = GRID[at[0]][at[1]] if inside else "#"
            after = {"G": goal, "x": fallen, "#": state}.get(kind, index.get(at, state))
            # Reached when meant, and when either neighbouring move turns aside to it.
            for meant, probability in ((0, 1.0 - slip), (1, slip / 2), (-1, slip / 2)):
                transitions[state, (move + meant) % 4, after] += probability
    rewards[: len(index)] = -STEP_COST
    rewards[: len(index), :, goal] += GOAL_PAYS
    rewards[: len(index), :, fallen] += CLIFF_PAYS
    first = next(i for (row, column), i in index.items() if GRID[row][column] == "S")
    return _process(transitions, rewards, first, len(index), horizon)


def free_cells() -> list[tuple[int, int]]:
    """(row, column) of the grid's cells where an episode may be, in reading order."""
    return [(r, c) for r, line in enumerate(GRID) for c, kind in enumerate(line) if kind in ".S"]


def _process(
    transitions: Array, rewards: Array, first: int, cells: int, horizon: int
) -> TabularMDP:
    """States from `cells` on are terminal; they look like nothing, the others are one-hot."""
    states = len(transitions)
    terminal = np.arange(states) >= cells
    transitions[terminal] = np.eye(states)[terminal][:, None]
    return TabularMDP(
        transitions=transitions,
        rewards=rewards,
        start=np.eye(states)[first],
        terminal=terminal,
        horizon=horizon,
        features=np.eye(states, cells),
    )


def sticky(process: TabularMDP, probability: float) -> TabularMDP:
    """The process in which the action executed last is executed again with the given probability.

    Its states are the pairs (state, action executed last or none) that can be reached; after the old
    features come A more, the last action one-hot (zeros before the first). What a step pays is what the
    executed action pays.
    """
    states, actions = process.num_states, process.num_actions
    none = actions
    shape = (states, actions + 1, actions, states, actions + 1)  # s, last, a, s', executed
    transitions, rewards = np.zeros(shape), np.zeros(shape)
    for last in range(actions + 1):
        for chosen in range(actions):
            again = probability if last != none else 0.0
            for executed, weight in ((chosen, 1.0 - again), (last, again)):
                if weight > 0:
                    moved = weight * process.transitions[:, executed]
                    transitions[:, last, chosen, :, executed] += moved
                    rewards[:, last, chosen, :, executed] = process.rewards[:, executed]
    pairs = states * (actions + 1)
    flat = transitions.reshape(pairs, actions, pairs)
    paid = rewards.reshape(pairs, actions, pairs)
    terminal = np.repeat(process.terminal, actions + 1)
    flat[terminal], paid[terminal] = np.eye(pairs)[terminal][:, None], 0.0
    start = np.zeros((states, actions + 1))
    start[:, none] = process.start
    lasts = np.concatenate([np.eye(actions), np.zeros((1, actions))])  # (A + 1, A)
    features = np.concatenate(
        [np.repeat(process.features, actions + 1, axis=0), np.tile(lasts, (states, 1))], axis=1
    )
    features[terminal] = 0.0
    kept = _reachable(start.reshape(-1), flat)
    return TabularMDP(
        transitions=np.ascontiguousarray(flat[kept][:, :, kept]),
        rewards=np.ascontiguousarray(paid[kept][:, :, kept]),
        start=start.reshape(-1)[kept],
        terminal=terminal[kept],
        horizon=process.horizon,
        features=features[kept],
    )


def _reachable(start: Array, transitions: Array) -> NDArray[np.int64]:
    """Indices of the states that some actions reach from the start, in order."""
    step = transitions.max(axis=1) > 0  # (S, S)
    reached = start > 0
    while True:
        more = reached | step[reached].any(axis=0)
        if (more == reached).all():
            return np.flatnonzero(reached)
        reached = more
