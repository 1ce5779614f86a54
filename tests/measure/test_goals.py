"""What the study of goals adds: where a goal stands, which one hindsight tells, and how far its influence reaches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ablate import registry
from ablate.audit.audit import audit_config
from ablate.data.catalogue import spec
from ablate.data.families import fourrooms
from ablate.data.windows import PLACES, Visibility
from ablate.envs.fourrooms import FourRooms
from ablate.measure.base import Trained
from ablate.measure.rollout import rollout
from ablate.models.agent import stored
from ablate.systems import prepare

STUDY = Path(__file__).parents[2] / "studies" / "goals.py"
SEEDS = (3, 4)
K = 6


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDY))
        yield sys.modules[registry.get("measurement", "reaching").__module__]


@pytest.fixture(scope="module")
def cells(own: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Untrained models of a cell by their condition, context and mixer, on few episodes; each made once."""
    folder, made = tmp_path_factory.mktemp("data"), {}

    def cell(condition: str, context: int = K, mixer: str = "attention", **parts: Any) -> Trained:
        config = {
            **{"data": "fourrooms/seen-v0@mask-goal", "mixer": mixer, "context": context},
            **{"condition": condition, "history": "states+actions", "head": "mse"},
            "model": {"width": 8, "layers": 1},
            **parts,
        }
        if repr(config) not in made:
            system = prepare(config, folder)
            models = [system.model("name", seed) for seed in SEEDS]
            made[repr(config)] = Trained(system, models, "name", SEEDS, 0)
        return made[repr(config)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fourrooms, "STEPS", {"train": 4000, "held_out": 3000})
        patch.setattr(fourrooms, "BATCH", 30)
        yield cell


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("everywhere", [[9, 9, 0], [9, 9, 9], [9, 9, 9]]),
        ("first", [[9, 0, 0], [9, 0, 0], [9, 0, 0]]),
        ("start", [[9, 0, 0], [9, 0, 0], [0, 0, 0]]),
        ("behind", [[9, 0, 0], [9, 9, 0], [9, 9, 0]]),
    ],
)
def test_what_is_said_now_stands_where_it_is_placed(place: str, expected: Any) -> None:
    """Windows of 2 and 3 timesteps that begin with their episode, and one of 3 that doesn't."""
    visible = Visibility.of(3, [True] * 2, [True, False], placed=((place, 1, 2),))
    lengths, started = torch.tensor([2, 3, 3]), torch.tensor([True, True, False])
    windows = torch.tensor([[1.0, 5], [2, 6], [3, 7]]).repeat(3, 1, 1)
    windows[torch.arange(3), lengths - 1, 1] = 9.0
    shown = visible.show(windows, lengths, started)
    np.testing.assert_array_equal(shown[..., 1], expected)
    np.testing.assert_array_equal(shown[..., 0], [[1, 2, 0], [1, 2, 3], [1, 2, 3]])
    assert place in PLACES


def windows(trained: Trained, targets: np.ndarray) -> torch.Tensor:
    """What the models of a cell read of held-out windows, and what they answer."""
    agent = trained.system.program(trained.models)
    data = stored(trained.system.data.held_out, agent.layout)
    found = torch.from_numpy(targets).expand(len(SEEDS), -1)
    return agent.windows(agent.tokens(data.fields), data.timestep, found)[0], agent.predict(
        data, found
    )


def test_with_one_timestep_a_prefix_is_a_goal_at_every_timestep(cells: Any) -> None:
    """To the last bit: what is read, the models as they begin, and so what they become."""
    targets = np.arange(0, 1500, 7)
    once, everywhere = (windows(cells(f"goal-{name}", 1), targets) for name in ("prefix", "concat"))
    for a, b in zip(once, everywhere, strict=True):
        assert torch.equal(a, b)
    longer = [windows(cells(f"goal-{name}"), targets)[0] for name in ("prefix", "concat")]
    assert not torch.equal(*longer)


@pytest.mark.parametrize("mixer", ["attention", "gru", "mlp"])
def test_a_prefix_stays_and_one_before_the_episode_slides_out(
    own: Any, cells: Any, mixer: str
) -> None:
    spans = np.array(own.SPANS)
    found = {
        name: own.influence(cells(name, K, mixer))
        for name in ("goal-prefix", "goal-concat", "goal-sliding", "goal-behind", "none")
    }
    for name in ("goal-prefix", "goal-concat"):
        assert (found[name] > 0).all()
    assert (found["goal-sliding"][:, spans < K] > 0).all()
    np.testing.assert_array_equal(found["goal-sliding"][:, spans >= K], 0.0)
    np.testing.assert_allclose(
        found["goal-sliding"][:, spans < K], found["goal-prefix"][:, spans < K]
    )
    np.testing.assert_array_equal(found["goal-behind"][:, spans == 0], 0.0)
    assert (found["goal-behind"][:, spans > 0] > 0).all()
    np.testing.assert_array_equal(found["none"], 0.0)


@pytest.mark.parametrize("condition", ["goal-prefix", "goal-concat", "goal-sliding", "goal-behind"])
@pytest.mark.parametrize("mixer", ["attention", "gru"])
def test_the_audit_passes_every_placement(own: Any, mixer: str, condition: str) -> None:
    """In training and in acting shape: windows give the same answer, and nobody sees what is to come."""
    found = audit_config(mixer, 4, condition=condition)
    assert found.passed, found.findings


def test_without_a_goal_nobody_can_tell_where_to_go(own: Any, cells: Any) -> None:
    """The goal is nowhere in what such a model sees: it goes the same way whatever the goal."""
    trained = cells("none")
    agent = trained.system.actor(trained.models, {"context": None, "state": "re-encoded"})
    lengths = []
    for pairs in (((0, 1),), ((0, 2),), ((0, 3),)):
        env = trained.system.data.spec.hiding.wrap(FourRooms(2 * 4, pairs), np.ones(6))
        seen: list[np.ndarray] = []
        step = env.step
        env.step = lambda a, step=step, seen=seen: (seen.append(a), step(a))[1]
        found = rollout(agent, env, 4, study="name", seeds=SEEDS, target=0.0, policy=None, sample=False)  # fmt: skip
        lengths.append(np.stack(seen[:20]))
        assert found.success.mean() < 0.5
    # starts are drawn with the goals, so that only what follows from the same start is compared
    assert lengths[0].shape == lengths[1].shape
    shown = trained.system.data.held_out.observations
    assert shown.shape[1] == 4
    assert trained.system.layout.features == 4 + 2


def test_a_model_goes_where_it_is_told(own: Any) -> None:
    env = FourRooms(6, ((0, 2),))
    told = {
        name: own.Watching(FourRooms(6, ((0, 2),)), name) for name in ("goal", "other", "constant")
    }
    env.reset(range(6))
    goals = {name: (each.reset(range(6)), each.goals())[1] for name, each in told.items()}
    np.testing.assert_array_equal(goals["goal"], env.goals())
    np.testing.assert_array_equal(goals["other"], np.roll(env.goals(), -1, axis=0))
    np.testing.assert_array_equal(goals["constant"], 0.0)
    told["goal"].step(np.zeros((6, 2)))
    apart = np.linalg.norm(told["goal"].simulator_state()[:, :2] - env.goals(), axis=1)
    np.testing.assert_allclose(told["goal"].distance, apart, rtol=1e-6)


def test_hindsight_chooses_as_its_rule_says(own: Any, cells: Any) -> None:
    part = cells("none").system.data.held_out
    last = np.repeat(part.episode_starts[1:] - 1, part.lengths)
    rows = np.arange(len(last))
    ahead = {rule: own.relabelled(part, rule) - rows for rule in own.RULES}
    np.testing.assert_array_equal(ahead["final"], last - rows)
    for rule in ("uniform", "geometric"):
        assert (ahead[rule][rows < last] >= 1).all()
        assert (ahead[rule] <= last - rows).all()
    left = (last - rows)[rows < last]
    assert (ahead["uniform"][rows < last] / left).mean() == pytest.approx(
        (0.5 * (left + 1) / left).mean(), abs=0.02
    )
    expected = (
        1 - (1 - own.SOON) ** left
    ) / own.SOON  # of the smaller of a geometric number and what is left
    assert ahead["geometric"][rows < last].mean() == pytest.approx(expected.mean(), rel=0.06)
    moved = own.relabelled(part, "shuffled")
    np.testing.assert_array_equal(np.sort(moved), np.sort(own.relabelled(part, "uniform")))
    assert (np.abs(ahead["shuffled"]) > 300).mean() > 0.5


def test_success_by_path_length(own: Any) -> None:
    success = np.array([[1.0, 1.0, 0.0]])
    found = own.spl(success, np.array([[100, 100, 100]]), np.array([[100, 200, 80]]))
    np.testing.assert_allclose(found, [[1.0, 0.5, 0.0]])
    needed = own.shortest(FourRooms(40, fourrooms.MIRRORED), list(range(40)))
    assert (needed <= 380).all()  # as the environment's own text says
    env = FourRooms(40, fourrooms.MIRRORED)
    start = env.reset(range(40))
    straight = np.linalg.norm(start[:, :2] - start[:, 4:6], axis=1) - 0.5
    assert (needed > straight / 0.05).all()  # at most 5 cells a second, a hundred timesteps


def test_film_scales_the_features(own: Any, cells: Any) -> None:
    trained = cells("goal-concat", layout="film")
    plain = cells("goal-concat")
    embed, reference = trained.models[0].embed, plain.models[0].embed
    low, high = embed.goal
    assert trained.system.layout.columns[2][:2] == ("goal-concat", high - low)
    with torch.no_grad():
        reference.weight.copy_(embed.weight)
        reference.bias.copy_(embed.bias)
        rows = torch.randn(5, 3, trained.system.layout.features)
        scaled = 1 + rows[..., low:high] @ embed.scale.weight.T + embed.scale.bias
        torch.testing.assert_close(
            embed.content(rows), reference.content(rows) * scaled[:, :, None]
        )


def test_rooms_can_hide_the_goal(own: Any) -> None:
    hidden = spec("fourrooms/seen-v0@mask-goal")
    assert hidden.observable == [0, 1, 2, 3]
    assert hidden.shown_goal == (0, 1)
    config = {"data": "pointmaze/umaze-v1", "condition": "none"}
    assert "rooms" in own.Reaching.refusal(config)
    assert "told" not in own.Reaching.reads({"condition": "none"})
