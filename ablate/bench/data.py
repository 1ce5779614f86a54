"""Collecting, loading and reading windows of data, each beside the obvious way of doing it.

CPU time of one thread. Collection is measured on a part and given for a million transitions.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import torch

from ablate.bench.update import Row, alternate, one_thread
from ablate.data import ladders
from ablate.data.families import mujoco, pointmaze
from ablate.data.formats.hdf5 import read_own, write_hdf5
from ablate.data.trajectories import Trajectories
from ablate.data.windows import Visibility, gather_windows
from ablate.envs.gymnasium_env import quiet_mujoco
from ablate.envs.locomotion import ENVIRONMENTS

MILLION = 1_000_000
COLLECTED = 100_000  # transitions of the measurement
BATCH, CONTEXT = 64, 20


def data_rows() -> list[Row]:
    """All measurements: what, seconds, the goal, the other way's seconds, and their ratio."""
    with one_thread():
        return [*collection(), loading(), windows()]


def row(what: str, seconds: float, goal: float, other: str, others: float) -> Row:
    """ratio: above 1 when ours takes less time than the other."""
    return {
        "what": what,
        "seconds": seconds,
        "goal": goal,
        "beside": other,
        "its seconds": others,
        "ratio": others / seconds,
    }


def collection() -> list[Row]:
    """A million transitions of Hopper (medium) and of the point maze."""
    mix = mujoco.mixture("hopper", "medium")
    ours = _spent(lambda: mujoco.make("bench", "train", "hopper", mix, COLLECTED))
    loop = _spent(lambda: _plain_loop("hopper", mix.snapshots[0]))
    walked, steps = pointmaze_part()
    return [
        row(
            "1M transitions of Hopper",
            ours * MILLION / COLLECTED,
            150.0,
            "a loop over gymnasium's own step, observations and actions only",
            loop * MILLION / COLLECTED,
        ),
        row("1M transitions of PointMaze", walked * MILLION / steps, 60.0, "the goal", 60.0),
    ]


def pointmaze_part() -> tuple[float, int]:
    """CPU seconds of walking in the umaze, and how many transitions that gave."""
    made: list[Trajectories] = []
    noise = pointmaze.ACTION_NOISE

    def walk() -> None:
        made.append(pointmaze.walk("pointmaze/bench", "umaze", "train", noise, MILLION))

    return _spent(walk), len(made[0].rewards)


def loading() -> Row:
    """A cached set of a million transitions of Hopper's sizes, with every optional array, from file to memory."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, MILLION + 1, 500)
    ends = np.zeros(MILLION, dtype=bool)
    ends[starts[1:] - 1] = True

    def floats(width: int) -> np.ndarray:
        return rng.uniform(-1, 1, (MILLION, width)).astype(np.float32)

    made = Trajectories(
        name="bench",
        observations=floats(11),
        actions=floats(3),
        rewards=floats(1)[:, 0],
        terminations=ends,
        truncations=np.zeros(MILLION, dtype=bool),
        episode_starts=starts,
        behaviour_id=np.zeros(MILLION, dtype=np.int64),
        behaviour_logp=floats(1)[:, 0],
        behaviour_action=floats(3),
        simulator_state=floats(12),
        final_observations=floats(11)[: len(starts) - 1],
    )
    with tempfile.TemporaryDirectory() as folder:
        path, packed = Path(folder) / "own.hdf5", Path(folder) / "gzip.hdf5"
        write_hdf5(path, made)
        with h5py.File(packed, "w") as file:
            for name, array in made.arrays.items():
                file.create_dataset(name, data=array, compression="gzip")

        def plain() -> None:
            with h5py.File(packed, "r") as file:
                for name in file:
                    file[name][()]

        found = alternate({"ours": lambda: read_own(path), "plain": plain}, chunks=2, repeats=1)
    return row(
        "load 1M transitions, checked",
        found["ours"],
        1.0,
        "the same arrays from gzipped HDF5, as D4RL's are, unchecked",
        found["plain"],
    )


def windows() -> Row:
    """A batch of 64 windows of 20 timesteps from a million."""
    generator = torch.Generator().manual_seed(0)
    features = 16
    table = torch.randn(MILLION, features, generator=generator)
    timestep = torch.arange(MILLION) % 500
    visible = Visibility(CONTEXT, torch.ones(features), torch.ones(features))
    targets = torch.randint(MILLION, (BATCH,), generator=generator)
    arrays, steps, ends = table.numpy(), timestep.numpy(), targets.tolist()

    def loop() -> tuple[torch.Tensor, torch.Tensor]:
        batch, lengths = [], []
        for end in ends:
            length = min(int(steps[end]) + 1, CONTEXT)
            window = arrays[end - length + 1 : end + 1]
            padding = np.zeros((CONTEXT - length, features), dtype=np.float32)
            batch.append(np.concatenate([window, padding])[None])
            lengths.append(length)
        return torch.from_numpy(np.concatenate(batch)), torch.tensor(lengths)

    found = alternate(
        {"ours": lambda: gather_windows(table, timestep, visible, targets), "loop": loop},
        chunks=20,
        repeats=50,
    )
    return row(
        f"batch of {BATCH} windows, K = {CONTEXT}",
        found["ours"],
        0.0002,
        "the same windows sliced and padded in a Python loop",
        found["loop"],
    )


def _plain_loop(task: str, snapshot: int) -> None:
    """What a script would do: one environment, one action at a time."""
    ladder, rng = ladders.load(task), np.random.default_rng(0)
    with quiet_mujoco(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of newer versions
        env = gymnasium.make(ENVIRONMENTS[task], disable_env_checker=True)
        observation, _ = env.reset(seed=0)
        log = []
        for _ in range(COLLECTED):
            mean = ladder.mean(snapshot, observation[None].astype(np.float32))[0]
            noise = ladder.std(snapshot) * rng.standard_normal(len(mean))
            action = np.clip(mean + noise, -1.0, 1.0)
            after, reward, terminated, truncated, _ = env.step(action)
            log.append((observation, action, reward, terminated, truncated))
            observation = env.reset()[0] if terminated or truncated else after


def _spent(body: Callable[[], object]) -> float:
    start = time.process_time()
    body()
    return time.process_time() - start
