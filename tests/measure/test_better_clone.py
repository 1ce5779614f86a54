"""The interventions of the study of clones that act worse, against closed forms and by what they do."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from ablate import registry
from ablate.data import exact
from ablate.data.catalogue import spec
from ablate.data.families.lq import simulate
from ablate.envs.lq import PROCESS_NOISE, A, B, LinearQuadratic
from ablate.measure.rollout import rollout

STUDY = Path(__file__).parents[2] / "studies" / "better_clone.py"
EPISODES, SEEDS = 12, (3, 4)


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDY))
        yield sys.modules[registry.get("measurement", "intervene").__module__]


class Recorder:
    """Two policies that do half of what the better controller does, and note what they are shown."""

    size, device, noise_dim = len(SEEDS), torch.device("cpu"), 0

    def __init__(self) -> None:
        self.layout = SimpleNamespace(conditions={})
        self.shown: list[np.ndarray] = []
        self.wanted: list[np.ndarray] = []

    def eval(self) -> Recorder:
        return self

    def start(self, batch: int) -> Recorder:
        return self

    def act(self, raw: Any, noise: Any) -> torch.Tensor:
        self.shown.append(raw.action.numpy())
        action = 0.5 * exact.controller_actions(raw.observation.numpy())[:, :, 0]
        self.wanted.append(action)
        return torch.from_numpy(action).float()


def run(own: Any, what: str, itself: bool = False, context: int = 20) -> tuple[Any, Recorder, Any]:
    agent = Recorder()
    clone = own.ExactClone(context, "episode", 2, what != "masked")
    whole = own.Intervened(agent, clone, what, "name", SEEDS, itself)
    env = LinearQuadratic(len(SEEDS) * EPISODES)
    done: list[np.ndarray] = []
    step = env.step
    env.step = lambda actions: (
        done.append(actions.reshape(len(SEEDS), EPISODES, 2)),
        step(actions),
    )[1]  # type: ignore[method-assign]
    found = rollout(
        whole, env, EPISODES, study="name", seeds=SEEDS, target=0.0, policy=0, sample=True
    )
    agent.done = done  # type: ignore[attr-defined]
    return found, agent, whole


def test_the_exact_clone_acts_as_the_closed_form(own):
    found, _, _ = run(own, "none", itself=True, context=1)
    for returns, seeds in zip(found.returns, found.env_seeds, strict=True):
        np.testing.assert_allclose(returns, exact.posterior_returns(1, seeds.tolist()), rtol=1e-3)


@pytest.mark.parametrize(("context", "policies"), [(1, 2), (7, 2), (20, 3)])
def test_the_exact_clone_follows_the_posterior(own, context, policies):
    """On given episodes. In its own, rounding decides: the mean of two controllers tells nothing of either."""
    episodes = simulate("sample", "episode", 6, "train", policies)
    states, actions = (x.reshape(6, 100, -1) for x in (episodes.observations, episodes.actions))
    clone = own.ExactClone(context, "episode", policies)
    clone.start()
    before = np.zeros((6, 2))
    expected = exact.posterior(episodes, context, policies=policies).reshape(6, 100, policies)
    for t in range(100):
        np.testing.assert_allclose(clone.weights(states[:, t], before), expected[:, t], atol=1e-9)
        before = actions[:, t]


def test_transitions_tell_of_the_controller_as_their_density_does(own):
    rng = np.random.default_rng(0)
    state, following = rng.standard_normal((2, 6, 4))
    found = own.transition_evidence(state, following, 2)
    covariance = exact.EXPLORATION**2 * B @ B.T + PROCESS_NOISE**2 * np.eye(4)
    for row in range(6):
        density = [
            multivariate_normal.logpdf(following[row], (A - B @ gain) @ state[row], covariance)
            for gain in exact.controllers()
        ]
        assert found[row, 0] - found[row, 1] == pytest.approx(density[0] - density[1], abs=1e-8)


def test_without_an_intervention_nothing_changes(own):
    found, agent, whole = run(own, "none")
    np.testing.assert_array_equal(agent.shown[0], 0.0)
    for before, shown in zip(agent.done, agent.shown[1:], strict=False):
        np.testing.assert_array_equal(before, shown)
    assert np.shape(whole.apart) == (100, len(SEEDS), EPISODES)
    assert (found.lengths == 100).all()


def test_each_intervention_changes_what_it_says(own):
    for what, (_, shown) in own.INTERVENTIONS.items():
        _, agent, _ = run(own, what)
        done, seen = np.stack(agent.done[:-1]), np.stack(agent.shown[1:])
        wanted = np.stack(agent.wanted[:-1]).astype(np.float32)
        as_wanted = np.isclose(done, wanted, atol=1e-6).all(axis=(1, 2, 3))  # (T,)
        if what in ("none", "noise-shown", "masked", "resampled", "unrelated", "better"):
            assert as_wanted.all()
        elif what == "noise-executed":
            assert (done - wanted).std() == pytest.approx(own.NOISE, rel=0.1)
        else:
            steps = int(what.split("-")[1])
            assert not as_wanted[:steps].any()
            assert as_wanted[steps:].all()
        if what == "masked":
            assert not seen.any()
        elif what == "noise-shown":
            assert (seen - done).std() == pytest.approx(own.NOISE, rel=0.1)
        elif shown is own.as_it_is:
            np.testing.assert_array_equal(seen, done)
        else:
            assert np.abs(seen - done).mean() > own.NOISE / 2


def test_what_is_shown_changes_nothing_without_memory(own):
    plain = run(own, "none", itself=True, context=1)[0].returns
    for what in own.INTERVENTIONS:
        if what not in own.ACTED:
            same = run(own, what, itself=True, context=1)[0].returns
            np.testing.assert_allclose(same, plain, rtol=1e-6)


def test_a_clone_that_is_shown_the_better_controller_becomes_it(own):
    found = run(own, "better", itself=True)[0]
    optimal = np.stack([exact.optimal_returns(each.tolist()) for each in found.env_seeds])
    plain = run(own, "none", itself=True)[0].returns
    assert (optimal - found.returns).mean() < (optimal - plain).mean()
    unrelated = run(own, "unrelated", itself=True)[0].returns
    assert unrelated.mean() < found.returns.mean()


def test_the_exact_clone_knows_how_its_data_are_mixed(own):
    names = ("lq-mix/step-9", "lq-mix/single", "lq-mix/episode-9-of-4", "lq-clone/20-7")
    found = [own.mixture(spec(name)) for name in names]
    assert found == [("step", 2), ("single", 2), ("episode", 4), ("episode", 2)]


def test_the_clones_own_episodes_are_data(own):
    found = spec("lq-clone/20-7")
    train, held_out = found.generate()
    assert (train.num_episodes, held_out.num_episodes) == (7, 100)
    np.testing.assert_array_equal(train.actions, train.behaviour_action)
    # What it did is what the exact posterior of its own windows says.
    wanted = exact.posterior_actions(train, 20)
    np.testing.assert_allclose(train.actions, wanted, atol=1e-5)
    again, _ = found.generate()
    assert train.content_hash == again.content_hash
