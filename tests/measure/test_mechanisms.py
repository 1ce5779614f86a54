"""The switches of the study of mechanisms, against laws of Gaussians, closed forms and what they must leave alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.signal import lfilter
from scipy.stats import norm

from ablate import registry
from ablate.analyse.estimators import Untold
from ablate.data import exact
from ablate.data.families.lq import simulate
from ablate.data.trajectories import action_variance
from ablate.envs.lq import ACTION_SCALE, PROCESS_NOISE, A, B
from ablate.measure.base import Trained
from ablate.models.agent import stored
from ablate.study import expand
from ablate.study.contrast import parse
from ablate.study.load import load
from ablate.systems import prepare

STUDIES = Path(__file__).parents[2] / "studies"
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def own() -> Any:
    """The study's own file, forgotten after these tests."""
    with registry.scope():
        registry.load_plugin(str(STUDIES / "mechanisms.py"))
        yield sys.modules[registry.get("measurement", "past").__module__]


@pytest.fixture(scope="module")
def figures(own: Any) -> Any:
    """What is drawn of it."""
    with registry.scope():
        registry.load_plugin(str(STUDIES / "mechanisms_figures.py"))
        yield sys.modules[registry.get("figure", "probe").__module__]


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Any:
    """Untrained models of a cell by their mixer, context and other parts; each made once."""
    made: dict[str, Trained] = {}

    def cell(mixer: str, context: int = 6, **parts: Any) -> Trained:
        config = {
            **{"data": "lq-mix/episode-20", "mixer": mixer, "context": context},
            **{"condition": "time", "history": "states+actions", "head": "mse"},
            "model": {"width": 8, "layers": 1},
            **parts,
        }
        if repr(config) not in made:
            system = prepare(config, tmp_path_factory.mktemp("data"))
            models = [system.model("name", seed) for seed in SEEDS]
            made[repr(config)] = Trained(system, models, "name", SEEDS, 0)
        return made[repr(config)]

    return cell


def windows(own: Any, context: int = 20, episodes: int = 100, policies: int = 2) -> tuple[Any, Any]:
    """All windows of some episodes, and who acts in each."""
    part = simulate("sample", "episode", episodes, "train", policies)
    rows = torch.arange(len(part.rewards))
    layout = type("Layout", (), {"told": lambda self, found: {"time": found.timestep[:, None]}})()
    data = stored(part, layout)
    return own.logged(data.fields, data.timestep, rows, context), part


def options(**given: Any) -> Any:
    return registry.get("measurement", "past").Options(episodes=6, **given)


# --- a past that ends in a given state ---


@pytest.mark.parametrize("policy", [0, 1])
def test_a_past_has_the_law_of_the_controllers_episodes(own, policy):
    """The joint Gaussian of four states and three forces, conditioned on the last state by matrices."""
    gain, first, rows = exact.controllers()[policy], 2, 40_000
    size = 4 + 3 * 6  # the first state; force noise and process noise of each step
    state = np.hstack([np.eye(4), np.zeros((4, size - 4))])
    states, forces = [state], []
    for step in range(3):
        drawn = np.zeros((6, size))
        drawn[:, 4 + 6 * step : 10 + 6 * step] = np.eye(6)
        force = -gain @ state + exact.EXPLORATION * drawn[:2]
        state = A @ state + B @ force + PROCESS_NOISE * drawn[2:]
        states.append(state)
        forces.append(force)
    source = np.eye(size)
    source[:4, :4] = exact.state_covariances(gain, exact.EXPLORATION)[first]
    maps = np.vstack([*states[:3], *forces])
    joint, cross = maps @ source @ maps.T, maps @ source @ states[3].T
    end = np.linalg.inv(states[3] @ source @ states[3].T)
    last = np.array([0.7, -0.4, 0.3, 0.5])
    mean, covariance = cross @ end @ last, joint - cross @ end @ cross.T
    state = np.zeros((rows, 4, 4), dtype=np.float32)
    state[:, 3] = last
    empty = np.full(rows, 4), np.full(rows, first)
    given = own.Windows(state, np.zeros((rows, 4, 2), dtype=np.float32), {}, *empty)
    found = own.past_of(given, np.full(rows, policy), 2, np.random.default_rng(0))
    np.testing.assert_array_equal(found.state[:, 3], state[:, 3])
    assert not found.led[:, 0].any()
    drawn = np.hstack(
        [found.state[:, :3].reshape(rows, -1), ACTION_SCALE * found.led[:, 1:].reshape(rows, -1)]
    )
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(drawn.mean(0) - mean) < 5 * spread / np.sqrt(rows)).all()
    apart = np.cov(drawn.T) - covariance
    assert (np.abs(apart) < 6 * np.outer(spread, spread) / np.sqrt(rows)).all()


def test_the_exact_posterior_believes_a_transplanted_past(own):
    given, part = windows(own)
    who = part.behaviour_id
    late = part.timestep >= 8
    scene = own.Scene(who, 1 - who, 2, np.random.default_rng(0))

    def told(found: Any) -> np.ndarray:
        return own.beliefs(found, "episode", 2, 20, timed=True)

    plain = told(given)
    np.testing.assert_allclose(plain, exact.posterior(part, 20), atol=1e-9)
    flipped = told(own.transplanted(given, scene))
    # Not everywhere: a present state that the other controller hardly ever reaches is evidence too.
    assert (flipped.argmax(1) != who)[late].mean() > 0.9
    same = told(own.redrawn(given, scene))
    error = [1 - x[np.arange(len(who)), who] for x in (plain, same)]
    assert error[1].mean() == pytest.approx(error[0].mean(), abs=0.01)
    assert told(own.better(given, scene))[late, 0].mean() > 0.98


# --- the order of the past ---


def test_shuffling_moves_the_past_and_nothing_else(own):
    given, part = windows(own, context=5, episodes=4)
    scene = own.Scene(part.behaviour_id, part.behaviour_id, 2, np.random.default_rng(0))
    last = np.arange(len(given.length)), given.length - 1
    full = np.flatnonzero(given.length == 5)
    kept = {}  # windows whose past timesteps are still the same pairs of a state and an action
    for name in ("shuffled", "paired", "torn"):
        found = own.CHANGES[name](given, scene)
        np.testing.assert_array_equal(own.present(found), own.present(given))
        np.testing.assert_array_equal(found.told["time"][last], given.told["time"][last])
        for row in full[:20]:
            before, after = ({tuple(x) for x in each.state[row]} for each in (given, found))
            assert before == after
            before, after = ({tuple(x) for x in each.done()[row, :4]} for each in (given, found))
            assert len(before - after) <= (name == "shuffled")
        steps = [np.concatenate([w.state, w.done()], axis=2)[full, :4] for w in (given, found)]
        before, after = ([{tuple(step) for step in past} for past in each] for each in steps)
        kept[name] = np.mean([x == y for x, y in zip(before, after, strict=True)])
    assert kept["paired"] == 1.0
    assert max(kept["torn"], kept["shuffled"]) < 0.2


def test_a_pair_keeps_its_evidence(own):
    given, part = windows(own)
    scene = own.Scene(part.behaviour_id, part.behaviour_id, 2, np.random.default_rng(0))
    evidence = []
    for found in (given, own.paired(given, scene), own.torn(given, scene)):
        each = exact.action_evidence(found.state.reshape(-1, 4), found.done().reshape(-1, 2))
        past = np.arange(20) < given.length[:, None] - 1
        evidence.append((each.reshape(*past.shape, 2) * past[..., None]).sum(1))
    np.testing.assert_allclose(evidence[1], evidence[0], rtol=1e-6, atol=1e-6)
    assert np.abs(evidence[2] - evidence[0]).mean() > 1.0


def test_the_bag_reads_no_order(own, cells):
    for mixer, moved in (("bag", False), ("gru", True)):
        found = [
            own.Past()(cells(mixer), options(shown=shown)) for shown in ("as-it-was", "shuffled")
        ]
        for name in ("action_error", "score"):
            close = np.isclose(found[0][name], found[1][name], rtol=1e-6)
            assert not close.any() if moved else close.all()


# --- nothing is changed where nothing should be ---


@pytest.mark.parametrize("parts", [{}, {"history": "actions"}, {"condition": "policy-id+time"}])
def test_left_alone_it_is_what_is_measured_elsewhere(own, cells, parts):
    trained = cells("gru", **parts)
    found = own.Past()(trained, options())
    held_out = registry.get("measurement", "held-out")
    predicted = held_out()(trained, held_out.Options(timesteps=16_384))
    np.testing.assert_allclose(found["action_error"], predicted["action_error"], rtol=1e-4)
    rollout = registry.get("measurement", "rollout")
    acted = rollout()(trained, rollout.Options(episodes=6))
    for name in ("score", "regret", "lost"):
        np.testing.assert_allclose(found[name], acted[name])
    shorter = own.Past()(trained, options(context=2))
    acted = rollout()(trained, rollout.Options(episodes=6, context=2))
    np.testing.assert_allclose(shorter["score"], acted["score"])


@pytest.mark.parametrize("mixer", ["gru", "attention", "mlp"])
def test_a_past_that_is_retold_as_it_was_changes_no_action(own, cells, mixer, monkeypatch):
    seen = []

    def same(given: Any, scene: Any) -> Any:
        seen.append((given.first[0], given.length[0], given.told["time"][0, :, 0]))
        return given

    plain = own.Past()(cells(mixer), options())
    monkeypatch.setitem(own.CHANGES, "redrawn", same)
    found = own.Past()(cells(mixer), options(shown="redrawn"))
    for name in ("action_error", "score"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-4)
    for first, length, time in seen[len(SEEDS) :: len(SEEDS)]:  # the first are those of prediction
        np.testing.assert_array_equal(time, first + np.arange(length))


def test_the_errors_of_the_exact_posterior_are_the_yardsticks(own, cells):
    trained = cells("mlp", context=3)
    held = trained.system.data.held_out
    found = own.Past()(trained, options())["clone_error"]
    known = exact.posterior_action_error(held, 3).all / action_variance(held)
    np.testing.assert_allclose(found, known, rtol=1e-4)  # both of all 10,000 targets


def test_a_policy_follows_the_past_as_far_as_it_says(own, cells, monkeypatch):
    """Policies that do a quarter of the way from who acts to who is shown, by what they read."""
    trained = cells("gru")
    held = trained.system.data.held_out
    means = exact.controller_actions(held.observations)
    targets = trained.system.held("name", trained.models, 16_384).targets.numpy()
    who = held.behaviour_id[targets]
    own_, other = means[targets, who], means[targets, 1 - who]
    moved = torch.from_numpy(own_ + 0.25 * (other - own_)).float().expand(2, -1, -1)
    monkeypatch.setattr(own, "Reader", lambda agent: lambda shown: moved)
    agent = trained.system.actor(trained.models, {"context": None, "state": "re-encoded"})
    found = own.predicted(trained, agent, options(shown="transplanted"))
    np.testing.assert_allclose(found["follows"], 0.25, atol=1e-5)
    assert (found["clone_follows"] > 0.7).all()
    assert np.isnan(own.predicted(trained, agent, options())["follows"]).all()


# --- filters ---


def test_the_filter_is_that_of_scipy(own, cells):
    rng = np.random.default_rng(0)
    actions = rng.standard_normal((2, 30, 2))
    timestep = np.tile(np.arange(10), 3)
    found = own.filtered(actions, timestep, 0.8)
    for start in range(0, 30, 10):
        part = actions[:, start : start + 10]
        wanted, _ = lfilter([0.2], [1.0, -0.8], part, axis=1, zi=0.8 * part[:, :1])
        np.testing.assert_allclose(found[:, start : start + 10], wanted)
    trained = cells("gru", context=1)
    plain, smooth = (own.Past()(trained, options(smooth=a)) for a in (0.0, 0.5))
    assert (plain["action_error"] != smooth["action_error"]).all()
    assert (plain["score"] != smooth["score"]).all()


# --- who acts, read from the features ---


def test_the_probe_reads_two_gaussians_as_well_as_can_be(own):
    rng = np.random.default_rng(0)
    who = rng.integers(2, size=40_000)
    features = rng.standard_normal((40_000, 5)) + np.outer(who, [1.2, 0.9, 0.0, 0.0, 0.0])
    features = np.hstack([features, np.ones((40_000, 1))])  # one that never varies
    right = own.read(features[:20_000], who[:20_000], features[20_000:]) == who[20_000:]
    assert right.mean() == pytest.approx(norm.cdf(0.75), abs=0.01)
    assert (own.read(np.eye(3)[who], who + 5, np.eye(3)[who]) == who + 5).all()


def test_the_probe_never_sees_the_episode_that_it_is_asked_of(own):
    part = simulate("sample", "episode", 60, "train")
    episode = np.repeat(np.arange(60), 100)
    found = own.cross_read(np.eye(60)[episode], part.behaviour_id, part)
    assert abs((found == part.behaviour_id).mean() - 0.5) < 0.2


def test_the_head_reads_what_the_probe_reads(own, cells):
    trained = cells("attention")
    rows, timestep = trained.system.rows(trained.system.data.held_out)
    agent = trained.system.program(trained.models)
    shown, lengths = agent.windows(rows, timestep, torch.arange(40).expand(2, -1))
    wanted = agent.stack(shown, lengths)
    for place, model in enumerate(trained.models):
        features = own.hidden(model, shown[place], lengths[place])
        torch.testing.assert_close(model.head(features), wanted[place], rtol=1e-4, atol=1e-6)
        actions = agent.stack.head.mean(wanted)[place]
        torch.testing.assert_close(own.acted_on(model, features), actions, rtol=1e-4, atol=1e-6)


def test_the_probe_finds_what_is_told_and_nothing_where_there_is_nothing(own, cells):
    told = own.Probe()(cells("gru", condition="policy-id+time"), None)
    assert (told["accuracy"] > 0.95).all()
    chance = own.Probe()(cells("gru", data="lq-mix/step-20"), None)
    np.testing.assert_allclose(chance["accuracy"], 0.5, atol=0.03)
    found = own.Probe()(cells("gru"), None)
    assert (found["accuracy"] < found["exact"]).all()
    assert found["accuracy_at"].shape == (2, len(own.SPANS))
    held = cells("gru").system.data.held_out
    best = exact.posterior(held, 6).argmax(1) == held.behaviour_id
    np.testing.assert_allclose(found["exact"], best.mean())
    np.testing.assert_allclose(found["exact_at"][:, -1], best[held.timestep >= 64].mean())


# --- what makes no sense, and the figure ---


def test_the_nearest_controller_is_that_of_the_action(own, cells, monkeypatch):
    """Models that do three fifths of the better controller's action and two fifths of the worse one's."""
    trained = cells("gru")
    held = trained.system.data.held_out
    means = exact.controller_actions(held.observations)
    mixed = torch.from_numpy(0.6 * means[:, 0] + 0.4 * means[:, 1])
    monkeypatch.setattr(own, "acted_on", lambda model, features: mixed)
    found = own.Probe()(trained, None)
    np.testing.assert_allclose(found["nearest"], (held.behaviour_id == 0).mean())
    early = (held.timestep > 0) & (held.timestep < 8)
    np.testing.assert_allclose(found["nearest_early"], (held.behaviour_id[early] == 0).mean())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "lq-mix/episode@mask-velocity"}, "needs the exact posterior"),
        ({"data": "lq-mix/step-9", "shown": "transplanted"}, "one controller an episode"),
        ({"context": 20}, "is that of training"),
        ({"condition": "return-to-go"}, "doesn't ask for a return"),
    ],
)
def test_what_makes_no_sense_is_refused(own, changes, said):
    past = {"shown": "as-it-was", "context": "trained", "smooth": 0.0}
    config = {"data": "lq-mix/episode", "condition": "time", "context": 20}
    assert own.Past.refusal(config | {"measure": {"past": past}}) == ""
    asked = {name: value for name, value in changes.items() if name in past}
    config |= {name: value for name, value in changes.items() if name not in past}
    assert said in own.Past.refusal(config | {"measure": {"past": past | asked}})


def test_without_memory_no_past_is_read(own):
    config = {"context": 1, "measure": {"past": {"context": "trained"}}}
    assert "shown" not in own.Past.reads(config)
    config["measure"]["past"]["context"] = 5
    assert "shown" in own.Past.reads(config)


@pytest.fixture(scope="module")
def study() -> Any:
    with registry.scope():
        yield load(STUDIES / "mechanisms.yaml")


def test_every_row_of_the_figure_is_of_the_study(figures, study):
    levels = {"data": study.data, **study.factors}
    for mechanism in figures.MECHANISMS:
        for text in (mechanism.of, mechanism.over):
            parse(text, levels)
    asked = {h.estimator["ratio"]["of"] for h in study.hypotheses if "ratio" in (h.estimator or {})}
    assert len(asked) > 10


def planted(study: Any, figures: Any) -> pd.DataFrame:
    """A table of the study's cells, in which each switch removes a share that is known of an effect of 1."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(5):
        shared = rng.normal(0, 0.3)
        for cell in expand.cells(study):
            level = {"data": cell.data, **cell.levels}
            effect = 0.25 if level["condition"] == "policy-id+time" else 1.0
            error = 2.0 - effect * (level["context"] != 1) + shared + rng.normal(0, 0.01)
            error += 0.5 * (level["measure.past.shown"] == "torn")
            error -= 0.1 * level["measure.past.smooth"]
            rows.append(
                level
                | {"trial": f"{seed}/{len(rows)}", "seed": seed, "status": "COMPLETED", "budget": 1}
                | {"past.action_error": error, "past.regret": error, "past.clone_error": error}
            )
    return pd.DataFrame(rows)


def test_a_share_that_was_planted_is_found(figures, study):
    table = planted(study, figures)
    found = {m.said: m.share(table, "past.regret") for m in figures.MECHANISMS}
    known = {
        "who acts": 0.75,
        "states and actions in different orders": 0.5,
        "no memory, its actions smoothed (0.5)": 0.05,
        "another past of who acts (control)": 0.0,
        "trained with 20, used with 1": 0.0,
        "past actions only": 0.0,
        "8 controllers": 0.0,
    }
    for said, share in known.items():
        assert found[said].value == pytest.approx(share, abs=0.03)
        low, high = found[said].interval(0.999)
        assert low < share < high
    with pytest.raises(Untold):
        figures.MECHANISMS[0].share(table[table["context"] == 1], "past.regret")


def test_the_figure_has_a_row_a_switch(figures, study, monkeypatch):
    table = planted(study, figures)
    monkeypatch.setattr(figures, "MECHANISMS", figures.MECHANISMS[::6])
    results = type("Results", (), {"rows": table, "study": study})()
    drawn = figures.mechanisms(results)
    labels = [tick.get_text() for tick in drawn.figure.axes[0].get_yticklabels()]
    assert {m.said for m in figures.MECHANISMS} < set(labels)
    without = type("Results", (), {"rows": table[table["context"] == 1], "study": study})()
    assert figures.mechanisms(without) is None


def test_the_probe_is_drawn_by_timestep(own, figures, study):
    table = planted(study, figures)
    series = pd.DataFrame(
        [
            (trial, f"probe.{name}", timestep, 0.9)
            for trial in table["trial"]
            for name in ("accuracy_at", "nearest_at", "exact_at")
            for timestep in own.SPANS
        ],
        columns=["trial", "response", "index", "value"],
    )
    drawn = figures.probe(type("Results", (), {"rows": table, "study": study, "series": series})())
    assert [each.get_title() or each.get_title("left") for each in drawn.figure.axes[:2]] == [
        "K = 1",
        "K = 20",
    ]
    assert "5 seeds" in drawn.caption
    none = type("Results", (), {"rows": table, "study": study, "series": series[:0]})()
    assert figures.probe(none) is None
