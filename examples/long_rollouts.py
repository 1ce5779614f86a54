"""Pictures and a film of long imagined rollouts beside the truth, as in the Trajectory Transformer's first figure.

    python examples/long_rollouts.py --out pictures

trains three models of the study `foresight` on a robot's data, lets each imagine 100 timesteps under the actions that
were logged, and writes long-rollouts.pdf, .png and .gif. What was trained or generated before, in the folder of
--results, is used again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import mujoco
import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

import ablate
from ablate.data import catalogue
from ablate.errors import unknown
from ablate.report import style

NAME = "long-rollouts"
DATA = "mujoco/hopper/medium-100k-v0"
SECONDS = {"hopper": 0.008, "halfcheetah": 0.05}  # of a timestep of each planar robot
SIZE = 128_000  # parameters
TRUTH = "truth:\nMuJoCo"
MODELS: dict[str, dict[str, Any]] = {  # levels of the study's factors
    "Transformer,\n10 timesteps": {"context": 10},
    "Transformer,\n2 timesteps": {"context": 2},
    "ensemble of\none-step\nmodels": {
        "algorithm": "one-step",
        "mixer": "mlp",
        "context": 2,
        "layout": "modality",
        "head": "gaussian",
        "settings.members": 5,
    },
}
COLUMNS = 6
TEXT = style.SMALL + 1.5  # points
MARGIN = 0.15  # metres around the robot
SHADE, GROUND = "#d2d2d2", "#808080"
# Of the film: timesteps from picture to picture, pictures a second, dots an inch.
EVERY, PER_SECOND, DOTS = 2, 20, 80
Floats = np.ndarray


# --- what is imagined ---


def imagined(
    data: str = DATA,
    *,
    study: str = "foresight",
    updates: int = 2400,
    horizon: int = 100,
    beginnings: int = 32,
    seed: int = 0,
    results: str = "results",
) -> dict[str, Any]:
    """By name of the model what it imagines (`ablate.measure.openloop.Futures`): two futures of each beginning.

    Raises ablate.UserError for data that the study doesn't have, or an option out of its bounds.
    """
    asked = {"horizon": horizon, "beginnings": beginnings, "samples": 2}
    changes = {f"measure.open-loop.{name}": value for name, value in asked.items()}
    # The fit itself measures hardly anything: what is drawn is imagined below.
    changes |= {
        "measure.open-loop.beginnings": 1,
        "train.updates": updates,
        "train.checkpoints": [],
    }
    opened = ablate.load_study(study, changes=changes)
    found = {}
    for name, levels in MODELS.items():
        levels = {**levels, "model.parameters": SIZE}
        model = ablate.fit(opened, data, levels=levels, seed=seed, folder=results)
        found[name] = model.imagine(**asked)
    return found


def errors(futures: Any) -> Floats:
    """Error of an imagined state, the median over beginnings and futures, by timesteps ahead (h,), in deviations of
    the training set."""
    apart = (futures.imagined - futures.there.truth[:, None]) / futures.deviation
    found: Floats = np.median(np.sqrt(np.square(apart).mean(-1)), axis=(0, 1))
    return found


# --- bodies ---


def robot(data: str) -> tuple[Any, float]:
    """The environment of a data set and the seconds of a timestep. Raises ablate.UserError for one that isn't of a
    planar robot."""
    family, _, rest = data.partition("/")
    task = rest.partition("/")[0]
    if family != "mujoco" or task not in SECONDS:
        allowed = [f"mujoco/{name}/..." for name in SECONDS]
        raise unknown("--data: a planar robot", data, allowed)
    return catalogue.spec(data).make_env(1), SECONDS[task]


def states(env: Any, observations: Floats, seconds: float) -> Floats:
    """Simulator states (T, S) of consecutive observations (T, N) of a planar robot. Where it is along the track isn't
    observed: it begins at 0 and goes as its velocity says, by the trapezoidal rule."""
    found: Floats = env.placed(observations)[0]
    speed = found[:, env.mujoco_model().nq]
    found[1:, 0] = np.cumsum(0.5 * seconds * (speed[1:] + speed[:-1]))
    return found


def capsules(model: Any, state: Floats) -> tuple[Floats, Floats]:
    """The parts of a robot in a state (S,): ends (C, 2, 3) of their axes, in metres, and their radii (C,)."""
    simulation = mujoco.MjData(model)
    simulation.qpos[:] = state[: model.nq]
    mujoco.mj_kinematics(model, simulation)
    parts = np.flatnonzero(model.geom_type == int(mujoco.mjtGeom.mjGEOM_CAPSULE))
    centre = simulation.geom_xpos[parts]
    along = simulation.geom_xmat[parts].reshape(-1, 3, 3)[:, :, 2] * model.geom_size[parts, 1:2]
    return np.stack([centre - along, centre + along], axis=1), model.geom_size[parts, 0].copy()


def outlines(model: Any, state: Floats) -> Floats:
    """The parts of a robot seen from the side: polygons (C, P, 2) in the plane of x and z, metres."""
    ends, radii = capsules(model, state)
    first, last = ends[:, 0, ::2], ends[:, 1, ::2]  # (C, 2)
    angle = np.arctan2(*(last - first).T[::-1])[:, None]
    half = np.linspace(-np.pi / 2, np.pi / 2, 13)
    turned = np.concatenate([angle + half, angle + half + np.pi], axis=1)  # (C, P)
    around = np.stack([np.cos(turned), np.sin(turned)], axis=-1) * radii[:, None, None]
    at = np.repeat(np.stack([last, first], axis=1), len(half), axis=1)
    return at + around


def bodies(
    env: Any, seconds: float, futures: Mapping[str, Any], beginning: int = 0
) -> dict[str, Floats]:
    """Outlines (h+1, C, P, 2) of the truth and of what each model imagines from a beginning on, its first future.

    env, seconds: as of `robot`. Raises ablate.UserError for a beginning that isn't there.
    """
    some = next(iter(futures.values()))
    count = len(some.observation)
    if not 0 <= beginning < count:
        raise ablate.UserError(f"--beginning {beginning}: allowed: 0 to {count - 1}.")
    seen = {TRUTH: some.there.truth[beginning]}
    seen |= {name: each.imagined[beginning, 0] for name, each in futures.items()}
    found = {}
    for name, ahead in seen.items():
        whole = np.concatenate([some.observation[beginning][None], ahead])
        each = states(env, whole, seconds)
        found[name] = np.stack([outlines(env.mujoco_model(), state) for state in each])
    return found


# --- pictures ---


def window(truth: Floats) -> tuple[float, float]:
    """Width and height in metres that show the true robot at all times: truth as of `bodies`."""
    across = truth[..., 0].max((1, 2)) - truth[..., 0].min((1, 2))
    return 2 * MARGIN + max(1.2, float(across.max())), MARGIN + float(truth[..., 1].max())


def show(axes: Axes, truth: Floats, body: Floats, colour: str, size: tuple[float, float]) -> None:
    """A robot (C, P, 2) before the shade of the true one, in a window that goes with the true one."""
    middle = (truth[..., 0].max() + truth[..., 0].min()) / 2
    left, right = middle - size[0] / 2, middle + size[0] / 2
    axes.set(xlim=(left, right), ylim=(-0.06, size[1]), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.axhline(0.0, color=GROUND, linewidth=0.8)
    if body is not truth:
        for part in truth:
            axes.add_patch(Polygon(part, facecolor=SHADE, edgecolor="none"))
    for part in body:
        axes.add_patch(Polygon(part, facecolor=colour, edgecolor="white", linewidth=0.5))
    inside = (body[..., 0] > left) & (body[..., 0] < right) & (abs(body[..., 1]) < size[1])
    if not inside.any():
        said = axes.text(0.5, 0.5, "out of view", ha="center", color=colour, fontsize=style.SMALL)
        said.set(
            transform=axes.transAxes, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}
        )


def colours(names: Mapping[str, Any]) -> dict[str, str]:
    """Of the truth nearly black, of each model its own."""
    looks = style.looks("", [name for name in names if name != TRUTH])
    return {TRUTH: "#303030", **{name: look.colour for name, look in looks.items()}}


def picture(robots: Mapping[str, Floats], futures: Mapping[str, Any]) -> Figure:
    """A row for the truth and for each model, a column for a timestep; below, on the same axis, the error of all
    beginnings. To be called under `style.paper_style`."""
    truth, tints = robots[TRUTH], colours(robots)
    size, horizon = window(truth), len(truth) - 1
    wide, left, top, below = style.width(), 0.82, 0.2, (0.42, 1.05, 0.36)  # inches
    panel = (wide - left) / COLUMNS
    tall = panel * (size[1] + 0.06) / size[0]
    whole = top + tall * len(robots) + sum(below)
    figure = Figure(figsize=(wide, whole), layout="none")

    def place(x: float, y: float, width: float, height: float) -> Axes:
        """Axes of so many inches, from the upper left corner."""
        return figure.add_axes((x / wide, 1 - (y + height) / whole, width / wide, height / whole))

    for row, (name, body) in enumerate(robots.items()):
        y = top + tall * row
        figure.text(
            0.004, 1 - (y + tall / 2) / whole, name, color=tints[name], va="center", fontsize=TEXT
        )
        for column, step in enumerate(np.linspace(0, horizon, COLUMNS).round().astype(int)):
            axes = place(left + panel * column, y, panel, tall)
            show(axes, truth[step], body[step], tints[name], size)
            if row == 0:
                axes.set_title("timestep 0" if step == 0 else f"{step}", loc="center", size=TEXT)
    axes = place(left, whole - sum(below[1:]), wide - left, below[1])
    ahead = np.arange(1, horizon + 1)
    for look, (name, each) in zip(style.looks("", futures).values(), futures.items(), strict=True):
        line = " ".join(name.split())
        axes.plot(ahead, errors(each), color=tints[name], linestyle=look.line, label=line)
    axes.set(xlim=(-0.1 * horizon, 1.1 * horizon), yscale="log", xlabel="timesteps ahead")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=len(futures))
    axes.set_xticks(np.linspace(0, horizon, COLUMNS).round())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    figure.text(
        0.004,
        (below[2] + below[1] / 2) / whole,
        "median\nerror, in\nstandard\ndeviations",
        va="center",
        fontsize=TEXT,
    )
    return figure


def film(robots: Mapping[str, Floats], path: Path) -> int:
    """Write the same robots side by side, moving; returns the number of pictures. Under `style.paper_style`."""
    truth, tints = robots[TRUTH], colours(robots)
    size, share = window(truth), 1 / len(robots)
    wide, above, below = style.width(), 0.5, 0.2  # inches
    tall = wide * share * (size[1] + 0.06) / size[0]
    whole = above + tall + below
    figure = Figure(figsize=(wide, whole), layout="none")
    FigureCanvasAgg(figure)
    panels = [
        figure.add_axes((column * share, below / whole, share, tall / whole))
        for column in range(len(robots))
    ]
    for column, name in enumerate(robots):
        x = (column + 0.5) * share
        figure.text(x, 0.99, name, color=tints[name], ha="center", va="top", fontsize=TEXT)
    said = figure.text(0.01, 0.01, "", fontsize=TEXT)
    steps = range(0, len(truth), EVERY)
    writer = PillowWriter(fps=PER_SECOND)
    # Every picture is saved, and without an engine of its own a figure would ask for one of the style's then.
    plain = matplotlib.rc_context({"figure.constrained_layout.use": False})
    with plain, writer.saving(figure, str(path), dpi=DOTS):
        for step in steps:
            for axes, (name, body) in zip(panels, robots.items(), strict=True):
                axes.clear()
                show(axes, truth[step], body[step], tints[name], size)
            said.set_text(f"timestep {step}")
            writer.grab_frame()
    return len(steps)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder of the pictures")
    parser.add_argument("--data", default=DATA, help="a data set of the study, of a planar robot")
    parser.add_argument("--beginning", type=int, default=0, help="which beginning is drawn")
    parser.add_argument("--study", default="foresight", help="its name or its file")
    parser.add_argument("--updates", type=int, default=2400, help="of each model")
    parser.add_argument("--horizon", type=int, default=100, help="timesteps")
    parser.add_argument("--beginnings", type=int, default=32, help="over which errors are taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", default="results", help="folder of models and generated data")
    asked = vars(parser.parse_args(arguments))
    out, beginning = asked.pop("out"), asked.pop("beginning")
    try:
        env, seconds = robot(asked["data"])
        out.mkdir(parents=True, exist_ok=True)
        futures = imagined(**asked)
        robots = bodies(env, seconds, futures, beginning)
    except (ablate.UserError, OSError) as error:
        print(f"long_rollouts: {error}", file=sys.stderr)
        return 2
    with style.paper_style():
        for kind, content in style.files(picture(robots, futures)).items():
            if kind != "svg":
                (out / f"{NAME}.{kind}").write_bytes(content)
        film(robots, out / f"{NAME}.gif")
    for name, each in futures.items():
        error = errors(each)
        shown = sorted({min(h, len(error)) for h in (1, 10, 50, 100)})
        told = ", ".join(f"{error[h - 1]:.3g} after {h}" for h in shown)
        print(f"{' '.join(name.split())}: median error {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
