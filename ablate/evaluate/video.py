"""A film of one episode, drawn by MuJoCo from the simulator's states."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablate.envs.base import Floats, Step, VectorEnv, Wrapper
from ablate.errors import UserError

HEIGHT, WIDTH = 240, 320  # pixels
PICTURES_PER_SECOND = 25
SUFFIXES = (".gif", ".mp4")


class Filmed(Wrapper):
    """An environment whose first episode is drawn at every step; `write` makes the file.

    Raises UserError for a file that is neither .gif nor .mp4, an environment that can't be drawn or a
    machine that can't draw.
    """

    def __init__(self, env: VectorEnv, path: Path) -> None:
        super().__init__(env)
        if path.suffix not in SUFFIXES:
            raise UserError(
                f"--video {path}: found '{path.suffix}'; allowed: {', '.join(SUFFIXES)}."
            )
        self.path = path
        self.pictures: list[np.ndarray] = []  # (H, W, 3) uint8
        self._draw: Callable[[np.ndarray], np.ndarray] | None = None
        self._done = False

    def reset(self, seeds: Sequence[int]) -> Floats:
        observations = self.env.reset(seeds)
        self._draw = self._draw or _painter(self.path, self.env)
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
        assert self._draw is not None
        self.pictures.append(self._draw(state[0]))

    def write(self) -> None:
        """Write the film. Raises UserError when the file or its format can't be written."""
        import imageio.v3 as imageio

        try:
            if self.path.suffix == ".gif":
                delay = round(1000 / PICTURES_PER_SECOND)  # milliseconds
                imageio.imwrite(self.path, np.stack(self.pictures), duration=delay, loop=0)
            else:
                imageio.imwrite(self.path, np.stack(self.pictures), fps=PICTURES_PER_SECOND)
        except (OSError, ImportError, ValueError) as error:
            line = " ".join(str(error).split())[:200]
            raise UserError(
                f"--video {self.path}: it can't be written ({line}); a .gif needs nothing, an .mp4 "
                "needs imageio with ffmpeg."
            ) from None


def _painter(path: Path, env: VectorEnv) -> Callable[[np.ndarray], np.ndarray]:
    """Draws one state (qpos, then qvel) of the environment as (H, W, 3)."""
    model: Any = env.mujoco_model()
    if model is None:
        raise UserError(f"--video {path}: this environment can't be drawn; MuJoCo's can.")
    os.environ.setdefault("MUJOCO_GL", "egl" if not os.environ.get("DISPLAY") else "glfw")
    import mujoco

    try:
        renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"--video {path}: MuJoCo can't draw here ({line}); MUJOCO_GL=egl, osmesa or glfw chooses how."
        ) from None
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    tracked = model.nbody > 2 and model.nq > 3  # a robot, not a ball in a maze
    if tracked:
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        camera.trackbodyid, camera.distance, camera.elevation = 1, 4.0, -15.0

    def draw(state: np.ndarray) -> np.ndarray:
        data.qpos[:], data.qvel[:] = state[: model.nq], state[model.nq : model.nq + model.nv]
        mujoco.mj_forward(model, data)
        renderer.update_scene(data, camera)
        picture: np.ndarray = renderer.render()
        return picture.copy()

    return draw
