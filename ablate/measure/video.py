"""A film of one episode, drawn by MuJoCo from the simulator's states.

The drawing is done by a process of its own, `python -m ablate.measure.video FOLDER FILE`: MuJoCo chooses how to
draw when it is imported, and without a screen it chooses wrongly.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablate.envs.base import Floats, Step, VectorEnv, Wrapper
from ablate.errors import UserError
from ablate.registry import process

HEIGHT, WIDTH = 240, 320  # pixels
PICTURES_PER_SECOND = 25
SUFFIXES = (".gif", ".mp4")
MODEL, STATES = "model.mjb", "states.npy"


class Filmed(Wrapper):
    """An environment whose first episode's states are kept; `write` makes the film.

    Raises UserError for a file that is neither .gif nor .mp4, or an environment that can't be drawn.
    """

    def __init__(self, env: VectorEnv, path: Path) -> None:
        super().__init__(env)
        if path.suffix not in SUFFIXES:
            raise UserError(
                f"--video {path}: found '{path.suffix}'; allowed: {', '.join(SUFFIXES)}."
            )
        self.path = path
        self.states: list[np.ndarray] = []  # (qpos, then qvel) each
        self._done = False

    def reset(self, seeds: Sequence[int]) -> Floats:
        observations = self.env.reset(seeds)
        if self.env.mujoco_model() is None:
            raise UserError(f"--video {self.path}: this environment can't be drawn; MuJoCo's can.")
        self._add()
        return observations

    def step(self, actions: np.ndarray) -> Step:
        result = self.env.step(actions)
        if not self._done:
            self._add()
            self._done = bool(result[2][0] or result[3][0])
        return result

    def _add(self) -> None:
        state = self.env.simulator_state()
        assert state is not None
        self.states.append(state[0])

    def write(self) -> None:
        """Draw and write the film. Raises UserError when this machine can't draw, or the file can't be written."""
        import mujoco

        how = {} if os.environ.get("DISPLAY") else {"MUJOCO_GL": "egl"}
        with tempfile.TemporaryDirectory() as folder:
            mujoco.mj_saveModel(self.env.mujoco_model(), str(Path(folder) / MODEL))
            np.save(Path(folder) / STATES, np.stack(self.states))
            command, environment = process("ablate.measure.video", folder, str(self.path))
            drawn = subprocess.run(command, capture_output=True, text=True, env=how | environment)
        if drawn.returncode:
            line = (drawn.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(
                f"--video {self.path}: it can't be drawn or written here ({line}); MUJOCO_GL=egl, osmesa or "
                "glfw chooses how MuJoCo draws; an .mp4 needs imageio with ffmpeg."
            )


def draw(folder: Path, path: Path) -> None:
    """Draw the states in `folder` and write the film."""
    import imageio.v3 as imageio
    import mujoco

    model = mujoco.MjModel.from_binary_path(str(folder / MODEL))
    data, camera = mujoco.MjData(model), mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    if model.nq > 3:  # a robot, not a ball in a maze
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        camera.trackbodyid, camera.distance, camera.elevation = 1, 4.0, -15.0
    pictures = []
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        for state in np.load(folder / STATES):
            data.qpos[:], data.qvel[:] = state[: model.nq], state[model.nq : model.nq + model.nv]
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            pictures.append(renderer.render().copy())
    film: Any = np.stack(pictures)  # (T, H, W, 3) uint8
    if path.suffix == ".gif":
        imageio.imwrite(path, film, duration=round(1000 / PICTURES_PER_SECOND), loop=0)
    else:
        imageio.imwrite(path, film, fps=PICTURES_PER_SECOND)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
