"""Files of every format for the tests, and what was made by the real packages."""

import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from data_samples import make
from hypothesis import strategies as st

from ablate.data.trajectories import Trajectories

# Made by the packages themselves: Minari sets by minari 0.3.1, 0.4.3 and 0.5.4 (random actions in
# Pendulum-v1 and FrozenLake-v1 with a limit of 5 steps, and in an environment Goal-v0 with Dict
# observations), with what `minari` reads from them as <set>.npz; pickles of the Decision
# Transformer's layout by numpy 1.26 in every protocol, with their arrays as numpy1.npz.
GENUINE = Path(__file__).parent / "genuine.tar.xz"


def genuine(folder):
    """Unpacks GENUINE; returns the folder."""
    with tarfile.open(GENUINE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def full(lengths=(3, 4, 1), seed=0):
    """Valid trajectories with every optional array."""
    data = make(list(lengths), seed)
    last = np.random.default_rng(seed).standard_normal((len(lengths), 3)).astype(np.float32)
    return replace(data, final_observations=last)


def d4rl_file(path, steps=10, **changes):
    """A small file as D4RL writes them: episodes of 4 and 4 steps and an unfinished tail of 2."""
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.standard_normal((steps, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "rewards": np.arange(steps, dtype=np.float32),
        "terminals": np.arange(steps) == 3,
        "timeouts": np.arange(steps) == 7,
        "infos/qpos": rng.standard_normal((steps, 4)),
        "metadata/algorithm": np.bytes_("SAC"),
    }
    arrays.update(changes)
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
    return path


def minari_04(folder, episodes=2, steps=4):
    """A set as minari 0.4 writes it: chunked arrays, and what describes it in the HDF5 attributes."""
    rng = np.random.default_rng(1)
    (folder / "data").mkdir(parents=True)
    box = '{{"type": "Box", "dtype": "float32", "shape": [{0}], "low": {1}, "high": {2}}}'
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        file.attrs["observation_space"] = box.format(3, [-9.0] * 3, [9.0] * 3)
        file.attrs["action_space"] = box.format(2, [-2.0, 0.0], [2.0, 1.0])
        file.attrs["env_spec"] = '{"id": "Toy-v0", "kwargs": {}, "max_episode_steps": 9}'
        file.attrs["dataset_id"] = folder.name
        file.attrs["total_episodes"] = episodes
        for episode in range(episodes):
            group = file.create_group(f"episode_{episode}")
            arrays = {
                "observations": rng.standard_normal((steps + 1, 3)).astype(np.float32),
                "actions": rng.uniform(0, 1, (steps, 2)).astype(np.float32),
                "rewards": rng.standard_normal(steps),
                "terminations": np.arange(steps) == steps - 1,
                "truncations": np.zeros(steps, dtype=bool),
                "infos/qpos": rng.standard_normal((steps + 1, 2)),
                "infos/qvel": rng.standard_normal((steps + 1, 1)),
            }
            for key, value in arrays.items():
                group.create_dataset(
                    key, data=value, chunks=True, maxshape=(None, *value.shape[1:])
                )
    return folder


def dt_pickle(path, protocol=4, **changes):
    """A pickle as the Decision Transformer's download script writes it, episodes of 3 and 4 steps."""
    rng = np.random.default_rng(2)
    episodes = []
    for steps in (3, 4):
        episode = {
            "observations": rng.standard_normal((steps, 3)).astype(np.float32),
            "next_observations": rng.standard_normal((steps, 3)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
            "rewards": rng.standard_normal(steps).astype(np.float32),
            "terminals": np.arange(steps) == 2,
        }
        if steps == 4:
            episode["terminals"][:] = False
            episode.update(changes)
        episodes.append({key: value for key, value in episode.items() if value is not None})
    path.write_bytes(pickle.dumps(episodes, protocol=protocol))
    return path


def floats(shape, low=-(2.0**100), high=2.0**100):
    """Strategy of float32 arrays; a few of the values are drawn, the others repeat them."""
    values = st.floats(low, high, width=32)
    return st.lists(values, min_size=1, max_size=6).map(
        lambda drawn: np.resize(np.array(drawn, dtype=np.float32), shape)
    )


@st.composite
def trajectories(draw):
    """Any valid trajectories, small: episodes may end with any flags, arrays may be missing."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    steps, episodes = sum(lengths), len(lengths)
    seen, done = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    ends = np.zeros((2, steps), dtype=bool)
    ends[:, np.cumsum(lengths) - 1] = draw(
        st.lists(st.booleans(), min_size=2 * episodes, max_size=2 * episodes).map(
            lambda drawn: np.array(drawn).reshape(2, episodes)
        )
    )
    optional = {
        "behaviour_id": st.integers(0, 2**62).map(lambda n: np.full(steps, n, dtype=np.int64)),
        "behaviour_logp": floats(steps),
        "behaviour_action": floats((steps, done), -1.0, 1.0),
        "goal": floats((steps, 2)),
        "simulator_state": floats((steps, 3)),
        "final_observations": floats((episodes, seen)),
    }
    present = draw(st.sets(st.sampled_from(sorted(optional))))
    return Trajectories(
        name=draw(
            st.sampled_from(["a", "mujoco/hopper/medium-v0@mask", "Größe ∂ 観測", "x" * 300])
        ),
        observations=draw(floats((steps, seen))),
        actions=draw(floats((steps, done), -1.0, 1.0)),
        rewards=draw(floats(steps)),
        terminations=ends[0],
        truncations=ends[1],
        episode_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        **{key: draw(optional[key]) for key in sorted(present)},
    ).validate()
