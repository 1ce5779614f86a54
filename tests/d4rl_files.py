"""Small files in the ways D4RL's have been written, the same on every machine."""

import hashlib

import h5py
import numpy as np

HORIZON = 5  # the task's time limit where a file has no timeouts


def _at(steps, *rows):
    return np.isin(np.arange(steps), rows)


def _arrays(seed, steps, **more):
    rng = np.random.default_rng(seed)
    return {
        "observations": rng.uniform(-2, 2, (steps, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "rewards": rng.uniform(-1, 1, steps).astype(np.float32),
        **more,
    }


def _next(arrays):
    """What follows each row; behind an end a state that no row shows."""
    following = np.roll(arrays["observations"], -1, axis=0)
    following[arrays["terminals"] | arrays["timeouts"]] = 9.0
    return following


def _version_2():
    arrays = _arrays(
        2,
        20,
        terminals=_at(20, 3, 9),
        timeouts=_at(20, 6, 14),
    )
    arrays["next_observations"] = _next(arrays)
    arrays["infos/qpos"] = arrays["observations"][:, :2].astype(np.float64)
    arrays["infos/action_log_probs"] = arrays["rewards"] * 2
    return arrays


FILES = {
    # Terminals, timeouts and an unfinished tail.
    "version-2": _version_2(),
    # No timeouts: cut after HORIZON steps; a terminal before, on and right behind a cut; a tail.
    "version-0": _arrays(0, 27, terminals=_at(27, 6, 8, 17, 18, 23)),
    # A robot that falls at the time limit: both flags, or the timeout alone.
    "both": _arrays(1, 12, terminals=_at(12, 3, 7, 11), timeouts=_at(12, 3, 5, 11)),
    # maze2d: nothing terminates.
    "maze2d": _arrays(
        3,
        14,
        terminals=_at(14),
        timeouts=_at(14, 4, 10),
        **{"infos/goal": np.arange(28.0).reshape(14, 2)},
    ),
    # Replay buffers: float64 and columns instead of vectors.
    "replay": {
        key: array.astype(np.float64)[:, None] if key in ("rewards", "terminals") else array
        for key, array in _arrays(4, 11, terminals=_at(11, 2, 10), timeouts=_at(11, 6)).items()
    },
    # antmaze: a cluster of terminals near the goal, then the timeout.
    "antmaze": _arrays(5, 15, terminals=_at(15, 4, 5, 6, 7), timeouts=_at(15, 7, 13)),
}


def write(name, path, **changes):
    """Write one of FILES, with arrays changed, added, or left out (None)."""
    with h5py.File(path, "w") as file:
        for key, array in {**FILES[name], **changes}.items():
            if array is not None:
                file[key] = array
    return path


def summary(arrays):
    """For each array its type, shape and a hash of its bytes."""
    return {
        key: [
            array.dtype.str,
            list(array.shape),
            hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16],
        ]
        for key, array in arrays.items()
    }
