"""gymnasium's MuJoCo locomotion tasks behind the vectorised interface.

Version 4 is the one that D4RL's data were made for (v5 changed Walker2d's friction and Ant's
reward).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
import mujoco
import numpy as np

from ablate.envs.base import Floats, Info, SimulatedEnv, State, Step, Wrapper, episode_rng
from ablate.envs.gymnasium_env import quiet_mujoco
from ablate.errors import UserError, unknown

ENVIRONMENTS = {
    "hopper": "Hopper-v4",
    "halfcheetah": "HalfCheetah-v4",
    "walker2d": "Walker2d-v4",
    "ant": "Ant-v4",
}
HORIZON = 1000
# The first coordinates of the observation are positions (qpos without the root's x, and y for the ant),
# the rest velocities.
POSITIONS = {"hopper": 5, "halfcheetah": 8, "walker2d": 8, "ant": 13}
WIDTHS = {"hopper": 11, "halfcheetah": 17, "walker2d": 17, "ant": 27}
# What a step depends on besides the model and the action: time, positions, velocities, and the accelerations from
# which the solver starts.
PHYSICS = int(mujoco.mjtState.mjSTATE_FULLPHYSICS) | int(mujoco.mjtState.mjSTATE_WARMSTART)
ROWS = 4  # episodes below which a further thread doesn't pay
_TAG = 0x10C0


def coordinates(task: str) -> dict[str, list[int]]:
    """The coordinates of a task's observation that are positions, and those that are velocities."""
    first = POSITIONS[task]
    return {"position": list(range(first)), "velocity": list(range(first, WIDTHS[task]))}


class Locomotion(SimulatedEnv):
    """B episodes of one of ENVIRONMENTS; terminates when the robot falls.

    gymnasium starts an episode, MuJoCo steps it: where an episode stands is a row of numbers, which is laid into one
    simulation and taken out again. So a step costs no more than MuJoCo's own, and what it gives is, to the last bit,
    what gymnasium's environment gives (`mujoco.rollout` doesn't return the solver's warm start, without which the
    next step differs in its last bits). Episodes are shared out among as many threads as PyTorch may use.

    mass_spread: s in [0, 1); each episode multiplies all masses and inertias by a hidden factor drawn
    uniformly from [1 - s, 1 + s].
    """

    per_place = ("_physics", "_torso", "_factor")

    def __init__(self, num_envs: int, task: str, mass_spread: float = 0.0) -> None:
        if task not in ENVIRONMENTS:
            raise unknown("Locomotion: task", task, ENVIRONMENTS)
        if not 0.0 <= mass_spread < 1.0:
            raise UserError(
                f"Locomotion: mass_spread is {mass_spread}; allowed: 0 or more, below 1."
            )
        self._task, self._spread = task, mass_spread
        with warnings.catch_warnings(), quiet_mujoco():
            # gymnasium advises v5; v4 is what the data were made for. MuJoCo would log what it deprecates in
            # HalfCheetah's model to a file where we stand.
            warnings.simplefilter("ignore")
            made: Any = gymnasium.make(ENVIRONMENTS[task])
        self._env = made.unwrapped
        observations, actions = self._env.observation_space, self._env.action_space
        super().__init__(num_envs, observations.shape[0], actions.shape[0], HORIZON)

        model = self._env.model
        self._mass, self._inertia = model.body_mass.copy(), model.body_inertia.copy()
        # Every episode has masses of its own, or all share a model.
        self._models = [copy.copy(model) if mass_spread else model for _ in range(num_envs)]
        self._width = mujoco.mj_stateSize(model, PHYSICS)
        self._simulations = [self._env.data]  # one a thread
        self._pool: ThreadPoolExecutor | None = None

    def _start(self, seeds: list[int]) -> np.ndarray:
        env = self._env
        self._physics = np.zeros((self.num_envs, self._width))
        self._torso = np.zeros((self.num_envs, 2))  # its place, as old as MuJoCo's own after a step
        self._factor = np.ones(self.num_envs)
        for row, seed in enumerate(seeds):
            if self._spread:
                drawn = episode_rng(seed, _TAG).uniform(-1.0, 1.0)
                self._factor[row] = 1.0 + self._spread * drawn
                self._weigh(row)
            env.model = self._models[row]
            env.reset(seed=seed)
            mujoco.mj_getState(env.model, env.data, self._physics[row], PHYSICS)
            self._torso[row] = env.data.xpos[1, :2]
        return self._observed()

    def _weigh(self, row: int) -> None:
        """Give the model of an episode the masses that its factor says."""
        model = self._models[row]
        model.body_mass[:] = self._factor[row] * self._mass
        model.body_inertia[:] = self._factor[row] * self._inertia
        mujoco.mj_setConst(model, self._simulations[0])

    def _advance(
        self, actions: np.ndarray, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Info]:
        env = self._env
        before = self._place()
        self._simulate(actions, np.flatnonzero(alive))
        rewards = (self._place() - before) / env.dt
        if self._task != "halfcheetah":
            rewards = rewards + env._healthy_reward
        rewards = rewards - env._ctrl_cost_weight * np.square(actions).sum(axis=1)
        return self._observed(), rewards, self._fallen(), {}

    def _simulate(self, actions: np.ndarray, rows: np.ndarray) -> None:
        """One step of those rows."""
        threads = max(1, min(_threads(), len(rows) // ROWS))
        if threads == 1:
            return self._run(self._simulations[0], actions, rows)
        while len(self._simulations) < threads:
            self._simulations.append(mujoco.MjData(self._models[0]))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_threads())
        parts = np.array_split(rows, threads)
        running = [
            self._pool.submit(self._run, simulation, actions, part)
            for simulation, part in zip(self._simulations, parts, strict=False)
        ]
        for each in running:
            each.result()
        return None

    def _run(self, simulation: Any, actions: np.ndarray, rows: np.ndarray) -> None:
        # Views, made once: they show what the simulation holds at any time.
        control, place = simulation.ctrl, simulation.xpos[1, :2]
        models, skip = self._models, self._env.frame_skip
        for row in rows.tolist():
            model, state = models[row], self._physics[row]
            mujoco.mj_setState(model, simulation, state, PHYSICS)
            control[:] = actions[row]
            mujoco.mj_step(model, simulation, skip)
            mujoco.mj_getState(model, simulation, state, PHYSICS)
            self._torso[row] = place

    def _place(self) -> np.ndarray:
        """Where the robots are along the track (B,), of which the reward is the speed."""
        # The first number of a state is the time.
        return (self._torso[:, 0] if self._task == "ant" else self._physics[:, 1]).copy()

    def _positions(self) -> np.ndarray:
        """qpos (B, nq)."""
        return self._physics[:, 1 : 1 + self._env.model.nq]

    def _velocities(self) -> np.ndarray:
        """qvel (B, nv)."""
        first = 1 + self._env.model.nq
        return self._physics[:, first : first + self._env.model.nv]

    def _observed(self) -> np.ndarray:
        """What gymnasium shows, (B, N)."""
        positions, velocities = self._positions(), self._velocities()
        if self._task in ("hopper", "walker2d"):
            velocities = velocities.clip(-10.0, 10.0)
        return np.concatenate([positions[:, 2 if self._task == "ant" else 1 :], velocities], axis=1)

    def _fallen(self) -> np.ndarray:
        """Which robots have left the range in which gymnasium takes them for healthy, (B,)."""
        env, positions = self._env, self._positions()
        if self._task == "halfcheetah":
            return np.zeros(self.num_envs, dtype=bool)
        low, high = env._healthy_z_range
        if self._task == "ant":
            height = positions[:, 2]
            healthy = np.isfinite(self.simulator_state()).all(axis=1)
            return ~(healthy & (low <= height) & (height <= high))
        height, angle = positions[:, 1], positions[:, 2]
        healthy = (low < height) & (height < high)
        low, high = env._healthy_angle_range
        healthy &= (low < angle) & (angle < high)
        if self._task == "hopper":
            low, high = env._healthy_state_range
            rest = self.simulator_state()[:, 2:]
            healthy &= ((low < rest) & (rest < high)).all(axis=1)
        return ~healthy

    def _lay_more(self, state: State, places: np.ndarray) -> None:
        if self._spread:
            for place in places:
                self._weigh(place)

    def mujoco_model(self) -> mujoco.MjModel:
        return self._models[0]

    def simulator_state(self) -> np.ndarray:
        return np.concatenate([self._positions(), self._velocities()], axis=1)

    def placed(self, observations: np.ndarray) -> tuple[np.ndarray, None]:
        """See `VectorEnv.placed`: at the track's beginning, as the place along it isn't shown. Velocities that the
        observation clips are taken as clipped."""
        hidden = 2 if self._task == "ant" else 1
        room = [(0, 0)] * (observations.ndim - 1) + [(hidden, 0)]
        return np.pad(observations.astype(np.float64), room), None

    def _lay_simulator_state(self, states: np.ndarray, goals: np.ndarray | None) -> np.ndarray:
        """The solver then starts from rest: it has no accelerations of a step before."""
        places = self._env.model.nq
        for row, state in enumerate(states):
            model, simulation = self._models[row], self._simulations[0]
            mujoco.mj_setState(model, simulation, self._physics[row], PHYSICS)
            simulation.qpos[:], simulation.qvel[:] = state[:places], state[places:]
            simulation.qacc_warmstart[:] = 0.0
            mujoco.mj_forward(model, simulation)
            mujoco.mj_getState(model, simulation, self._physics[row], PHYSICS)
            self._torso[row] = simulation.xpos[1, :2]
        return self._observed()


def _threads() -> int:
    import torch  # late: who steps no robot needs no PyTorch here

    return torch.get_num_threads()


class D4RLAnt(Wrapper):
    """Ant as D4RL's files show it: 111 numbers, of which the last 84 are 0.

    They are the contact forces of gym's Ant-v2, which MuJoCo 2 no longer computed by itself, so that
    neither the observations nor the rewards of the files have any (Farama-Foundation/D4RL#143,
    openai/gym#1711). Ant-v4 leaves them away: its observation is the first 27.
    """

    FORCES = 84

    def __init__(self, num_envs: int) -> None:
        super().__init__(Locomotion(num_envs, "ant"))
        self.observation_dim += self.FORCES

    def reset(self, seeds: Sequence[int]) -> Floats:
        return self._shown_of(self.env.reset(seeds))

    def step(self, actions: np.ndarray) -> Step:
        observations, *rest = self.env.step(actions)
        return self._shown_of(observations), *rest  # type: ignore[return-value]

    def full_observation(self) -> Floats:
        return self._shown_of(self.env.full_observation())

    def _shown_of(self, observations: Floats) -> Floats:
        return np.pad(observations, ((0, 0), (0, self.FORCES)))
