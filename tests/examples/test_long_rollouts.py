"""Pictures of long rollouts: bodies against MuJoCo and by hand, the place along the track, the whole run, refusals."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
from PIL import Image
from tiny_study import ROOT

from ablate.envs.locomotion import Locomotion
from ablate.report import style


def load() -> Any:
    spec = spec_from_file_location("long_rollouts", ROOT / "examples" / "long_rollouts.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    return module


example = load()


@pytest.fixture(scope="module")
def env() -> Locomotion:
    made = Locomotion(1, "hopper")
    made.reset([0])
    return made


def test_a_standing_hopper_is_as_its_description_says(env: Locomotion) -> None:
    state = np.zeros(12)
    state[1] = 1.25
    ends, radii = example.capsules(env.mujoco_model(), state)
    assert radii == pytest.approx([0.05, 0.05, 0.04, 0.06])
    heights = [{1.45, 1.05}, {1.05, 0.6}, {0.6, 0.1}, {0.1}]
    assert [set(each) for each in ends[:, :, 2].round(9)] == heights
    assert sorted(ends[3, :, 0]) == pytest.approx([-0.13, 0.26])


@pytest.mark.parametrize("task", ["hopper", "halfcheetah"])
def test_bodies_stand_where_mujoco_puts_them(task: str) -> None:
    env = Locomotion(1, task)
    env.reset([0])
    model, rng = env.mujoco_model(), np.random.default_rng(0)
    simulation = mujoco.MjData(model)
    for _ in range(20):
        state = rng.normal(size=model.nq + model.nv)
        env.set_simulator_state(state[None])
        simulation.qpos[:], simulation.qvel[:] = state[: model.nq], state[model.nq :]
        mujoco.mj_forward(model, simulation)
        ends, _ = example.capsules(model, env.simulator_state()[0])
        assert ends.mean(1) == pytest.approx(simulation.geom_xpos[1:])
        assert abs(ends[..., 1]).max() < 1e-9  # in the plane that is drawn
        if task == "hopper":  # each part but the foot ends in the joint below it
            apart = np.linalg.norm(ends[:3] - simulation.xanchor[3:, None], axis=-1).min(1)
            assert apart == pytest.approx(0.0, abs=1e-9)


def test_an_outline_keeps_the_radius_from_the_axis(env: Locomotion) -> None:
    state = np.random.default_rng(1).normal(size=12)
    ends, radii = example.capsules(env.mujoco_model(), state)
    for part, (first, last), radius in zip(
        example.outlines(env.mujoco_model(), state), ends[..., ::2], radii, strict=True
    ):
        along = (part - first) @ (last - first) / np.square(last - first).sum()
        nearest = first + np.clip(along, 0, 1)[:, None] * (last - first)
        assert np.linalg.norm(part - nearest, axis=1) == pytest.approx(radius)


def test_the_velocity_tells_where_it_is_along_the_track(env: Locomotion) -> None:
    seen, truth = [env.reset([3])[0]], [env.simulator_state()[0]]
    actions = np.random.default_rng(0).uniform(-1, 1, (200, 1, 3))
    for action in actions:
        observation, _, ended, _, _ = env.step(action)
        if ended[0]:
            break
        seen.append(observation[0])
        truth.append(env.simulator_state()[0])
    assert len(seen) > 15
    found, known = example.states(env, np.stack(seen), example.SECONDS["hopper"]), np.stack(truth)
    assert found[:, 1:] == pytest.approx(known[:, 1:], abs=1e-5)
    went = known[:, 0] - known[0, 0]
    assert abs(went).max() > 0.03
    assert abs(found[:, 0] - went).max() < 0.003


def test_a_timestep_takes_as_long_as_the_simulator_says() -> None:
    for task, seconds in example.SECONDS.items():
        env = Locomotion(1, task)
        env.reset([0])
        env.step(np.zeros((1, env.action_dim)))
        assert env._physics[0, 0] == pytest.approx(seconds)


def test_a_body_that_left_the_window_or_is_no_number_is_said_to_be_out_of_view(
    env: Locomotion, tmp_path: Path
) -> None:
    state = np.zeros(12)
    state[1] = 1.25
    truth = np.stack([example.outlines(env.mujoco_model(), state)] * 8)
    robots = {example.TRUTH: truth, "far": truth + np.array([9.0, 0.0]), "none": truth * np.nan}
    drawn = SimpleNamespace(
        there=SimpleNamespace(truth=np.zeros((1, 7, 11))),
        imagined=np.full((1, 2, 7, 11), 3.0),
        deviation=np.full(11, 2.0),
    )
    assert example.errors(drawn) == pytest.approx([1.5] * 7)
    with style.paper_style():
        figure = example.picture(robots, {"far": drawn, "none": drawn})
        pictures = example.film(robots, tmp_path / "film.gif")
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes[:-1]]
    assert said == [[]] * 6 + [["out of view"]] * 12
    with Image.open(tmp_path / "film.gif") as written:
        assert getattr(written, "n_frames", 1) == pictures == 4


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABLATE_CACHE", str(cache))
    for kind in ("yaml", "py"):
        text = (ROOT / "studies" / f"foresight.{kind}").read_text("utf-8")
        (tmp_path / f"foresight.{kind}").write_text(text.replace("medium-100k", "medium-10k"))
    small = ["--study", "foresight.yaml", "--data", "mujoco/hopper/medium-10k-v0", "--updates", "6"]
    small += ["--horizon", "8", "--beginnings", "3", "--out", "pictures"]
    assert example.main(small) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == [
        "Transformer, 10 timesteps",
        "Transformer, 2 timesteps",
        "ensemble of one-step models",
    ]
    assert all("after 1, " in line and line.endswith("after 8") for line in told)
    made = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert made == [f"long-rollouts.{kind}" for kind in ("gif", "pdf", "png")]
    for wrong, said in (
        (["--beginning", "3"], "--beginning 3: allowed: 0 to 2."),
        (["--data", "mujoco/ant/medium-v0"], "--data: a planar robot: 'mujoco/ant/medium-v0'"),
        (["--data", "lq-mix/single-3000"], "allowed: mujoco/hopper/..., mujoco/halfcheetah/..."),
        (["--data", "mujoco/hopper/expert-v0"], "the data set: 'mujoco/hopper/expert-v0'"),
        (["--updates", "0"], "updates"),
        (["--out", "foresight.yaml"], "File exists"),
    ):
        assert example.main([*small, *wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("long_rollouts: ")
        assert said in line


def test_it_is_run_as_its_text_says() -> None:
    assert "python examples/long_rollouts.py --out pictures" in example.__doc__
