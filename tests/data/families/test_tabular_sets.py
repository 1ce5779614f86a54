"""The chain and grid data sets: what they hold, and that they are drawn from the law that they claim."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from ablate.data import catalogue
from ablate.data.catalogue import fingerprint, spec
from ablate.data.collect import collect
from ablate.data.families import tabular as sets
from ablate.data.families.tabular import Member, exact_table, parse
from ablate.data.tabular import expected_return
from ablate.data.tabular_windows import window_actions, window_policies, window_returns
from ablate.envs.tabular import Tabular, free_cells
from ablate.errors import UserError

NAMES = [
    "chain/gamble-episode-v0",
    "chain/certain-single-v0",
    "chain/gamble-sticky25-step-v0",
    "grid/cliff-episode-v0",
    "grid/cliff-sticky25-episode-v0",
    "grid/cliff-sticky25-hidden-episode-v0",
]


def member(name):
    return parse(name, name, [])


@pytest.fixture(scope="module")
def parts():
    return {name: spec(name).generate() for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_what_they_hold(parts, name):
    found, (train, held_out) = spec(name), parts[name]
    assert (train.num_episodes, held_out.num_episodes) == (2000, 500)
    process = member(name).process
    for part in (train, held_out):
        part.validate()
        assert part.lengths.max() <= process.horizon
        last = part.episode_starts[1:] - 1
        assert (part.terminations | part.truncations)[last].all()
        assert set(np.unique(part.actions)) == {-1.0, 1.0}
        assert ((part.actions > 0).sum(1) == 1).all()
    assert train.content_hash != held_out.content_hash
    again = found.generate()
    assert [part.content_hash for part in again] == [train.content_hash, held_out.content_hash]
    acting = [train.behaviour_id[a:b] for a, b in zip(*ends(train), strict=True)]
    constant = np.mean([(ids == ids[0]).all() for ids in acting])
    if "single" in name:
        assert (train.behaviour_id == 0).all()
        assert found.num_policies == 1
    else:
        assert found.num_policies == 2
        assert (constant == 1) == ("episode" in name)
        first = np.array([ids[0] for ids in acting])
        assert abs(first.mean() - 0.5) < 3.29 * 0.5 / np.sqrt(2000)
    env = found.make_env(3)
    assert env.reset([0, 1, 2]).shape[1] == train.observations.shape[1]


def ends(part):
    return part.episode_starts[:-1], part.episode_starts[1:]


@pytest.mark.parametrize("name", NAMES)
def test_states_rewards_and_ends_are_the_processes(parts, name):
    train, of = parts[name][0], member(name)
    process, law = of.process, of.law
    state = train.simulator_state[:, 0].astype(int)
    np.testing.assert_array_equal(train.observations, law.shown[state].astype(np.float32))
    inside = np.flatnonzero(np.diff(train.timestep, append=0) > 0)
    before, after = state[inside], state[inside + 1]
    moves = train.actions.argmax(1)
    assert (process.transitions[before, moves[inside], after] > 0).all()
    np.testing.assert_array_equal(
        train.rewards[inside], process.rewards[before, moves[inside], after]
    )
    first, last = ends(train)
    assert (state[first] == process.start.argmax()).all()
    # What is seen last is blank when the episode has ended, and a state when the time is up.
    ended = train.terminations[last - 1]
    assert (train.final_observations[ended] == 0).all()
    cut = train.final_observations[~ended]
    cells = 9 if name.startswith("chain") else len(free_cells())
    assert (cut[:, :cells].sum(1) == 1).all()
    assert (train.lengths[~ended] == process.horizon).all()


@pytest.mark.parametrize("name", NAMES)
def test_who_acts_and_how_likely(parts, name):
    train, of = parts[name][0], member(name)
    tables = np.stack(list(of.policies.values()))
    cells = train.observations[:, : tables.shape[1]].argmax(1)
    moves = train.actions.argmax(1)
    chances = tables[train.behaviour_id, cells]
    logp = np.log(chances[np.arange(len(moves)), moves])
    np.testing.assert_allclose(train.behaviour_logp, logp, rtol=1e-6)
    np.testing.assert_allclose(train.behaviour_action, 2 * chances - 1, atol=1e-6)
    # Actions come as often as they should.
    observed = np.bincount(moves, minlength=chances.shape[1])
    assert chisquare(observed, chances.sum(0)).pvalue > 0.001


@pytest.mark.parametrize("name", NAMES)
def test_returns_are_those_of_the_law(parts, name):
    """99.9 % intervals around the exact values: all episodes, each policy's, and each step's."""
    train, law = parts[name][0], member(name).law
    error = 3.29 * law.return_variance**0.5 / np.sqrt(train.num_episodes)
    assert abs(train.returns.mean() - law.expected_return) < error
    assert train.returns.var() == pytest.approx(law.return_variance, rel=0.15)
    if law.mixing == "episode":
        who = train.behaviour_id[train.episode_starts[:-1]]
        for z, policy in enumerate(law.policies):
            returns = train.returns[who == z]
            exact = expected_return(law.process, policy)
            assert abs(returns.mean() - exact) < 3.29 * returns.std() / np.sqrt(len(returns))
    for context in (1, law.process.horizon):
        for acted in (False, True):
            predicted = window_returns(law, train, context, acted)
            for t in (0, 3, 6):
                # One row an episode: these are independent.
                rest = (train.returns_to_go - predicted)[train.timestep == t]
                assert abs(rest.mean()) < 3.29 * rest.std() / np.sqrt(len(rest))


@pytest.mark.parametrize("name", ["chain/gamble-episode-v0", "grid/cliff-episode-v0"])
def test_the_past_tells_who_acts(parts, name):
    """Posteriors are calibrated and sharpen with K; in a step mixture they would stay where they are."""
    train, law = parts[name][0], member(name).law
    rows = train.timestep == 5
    truth = train.behaviour_id[rows] == 0
    surprise = []
    for context in (1, 3, law.process.horizon):
        p = window_policies(law, train, context)[rows, 0]
        gap = (truth - p).sum() / np.sqrt((p * (1 - p)).sum())
        assert abs(gap) < 3.29
        surprise.append(-np.log(np.where(truth, p, 1 - p)).mean())
    assert surprise[0] > surprise[1] > surprise[2]
    likely = [
        np.log((window_actions(law, train, k) * (train.actions > 0)).sum(1)).mean()
        for k in (1, law.process.horizon)
    ]
    assert likely[1] > likely[0]


def test_hidden_is_the_same_but_for_what_is_shown(parts):
    shown = parts["grid/cliff-sticky25-episode-v0"]
    hidden = parts["grid/cliff-sticky25-hidden-episode-v0"]
    cells = list(range(len(free_cells())))
    for full, part in zip(shown, hidden, strict=True):
        less = full.observe(cells, "x")
        assert part.content_hash == less.content_hash
    found = spec("grid/cliff-sticky25-hidden-episode-v0")
    assert found.observable == cells
    env = found.make_env(2)
    assert env.reset([0, 1]).shape == (2, len(cells))
    assert env.full_observation().shape == (2, len(cells) + 4)
    assert found.anchors() == spec("grid/cliff-sticky25-episode-v0").anchors()
    # The past tells the last action, and so where one goes next: with the cell alone it is open.
    law = member(found.name).law
    assert len(np.unique(law.looks)) < law.process.num_states


@pytest.mark.parametrize("name", NAMES)
def test_anchors_and_yardsticks(parts, name):
    found, held_out = spec(name), parts[name][1]
    anchors, law = found.anchors(), member(name).law
    rows = {row["what"]: row for row in exact_table(name)}
    assert found.best_policy == 0
    worst = rows.get("policy bold", rows.get("policy daring"))
    if worst is not None:
        assert worst["return"] == pytest.approx(anchors.low, abs=1e-8)
        assert worst["score"] == 0.0
    best = rows.get("optimal", rows.get("optimal, nothing hidden"))
    assert best["return"] == pytest.approx(anchors.high, abs=1e-8)
    assert best["score"] == 100.0
    errors = []
    for context in (1, 2, law.process.horizon):
        metrics = found.yardstick(held_out, anchors, context)
        errors.append(metrics["action_error"])
        assert metrics["action_error_early"] >= 0
        if "hidden" in name and context > 1:
            assert "score" not in metrics
        else:
            expected = anchors.score(law.expected_return)
            if "hidden" not in name:
                assert metrics["score"] == pytest.approx(expected, abs=1e-6)
    assert errors[0] >= errors[-1] - 1e-9
    if "single" in name:
        assert max(errors) < 1e-9
    assert found.yardstick(held_out, anchors, law.process.horizon + 1) is None


def test_exact_tables():
    rows = exact_table("chain/gamble-episode-v0")
    what = [row["what"] for row in rows]
    assert what[:6] == [
        "policy patient",
        "policy bold",
        "mixed per episode",
        "mixed per step",
        "clone without memory, sampling",
        "clone without memory, likeliest action",
    ]
    by = {row["what"]: row for row in rows}
    assert by["asking for the greatest return"]["promised"] == 14.0
    assert by["asking for the greatest return"]["return"] == pytest.approx(-10.0)
    assert [by[f"look-ahead of {k}"]["return"] for k in (1, 5, 6)] == pytest.approx([2, 2, 6])
    assert "look-ahead of 7" not in by
    mean = (by["policy patient"]["return"] + by["policy bold"]["return"]) / 2
    assert by["mixed per episode"]["return"] == pytest.approx(mean)
    assert by["clone without memory, sampling"]["return"] == pytest.approx(mean)
    hidden = exact_table("grid/cliff-sticky25-hidden-episode-v0")
    assert not any("look-ahead" in row["what"] for row in hidden)
    assert len(exact_table("grid/calm-single-v0")) < len(exact_table("grid/calm-step-v0"))
    for row in (*rows, *hidden):
        assert all(isinstance(v, str) or np.isfinite(v) for v in row.values())


def test_the_behaviour_makes_the_same_kind_of_data_anew():
    name = "chain/gamble-episode-v0"
    found, law = spec(name), member(name).law
    anew = collect("anew", "train", found.make_env, found.behaviour(), 20_000)
    error = 3.29 * law.return_variance**0.5 / np.sqrt(anew.num_episodes)
    assert abs(anew.returns.mean() - law.expected_return) < error
    # It sees the cell only, and also where the last action is shown beside it.
    sticking = member("chain/gamble-sticky10-hidden-episode-v0")
    collect("x", "train", lambda n: Tabular(n, sticking.process), sets.Mixed(sticking), 200)
    behaviour = found.behaviour()
    behaviour.start(np.zeros((2, 4)), np.random.default_rng(0))
    with pytest.raises(UserError, match="observation has 4 numbers; its policies need the 9"):
        behaviour.act(np.zeros((2, 4)))


def test_the_better_policy_comes_first():
    for family, tasks in sets.TASKS.items():
        for task in tasks:
            of = Member(family, task, 0, False, "episode")
            values = [expected_return(of.process, policy) for policy in of.law.policies]
            assert values[0] > values[1]
            single = replace(of, mixing="single")
            assert list(single.policies) == list(of.policies)[:1]
    assert list(Member("grid", "calm", 0, False, "episode").policies) == ["daring", "careful"]


def test_names(tmp_path):
    known = set(catalogue.known_names())
    for family in sets.TASKS:
        names = [n for n in known if n.startswith(f"{family}/")]
        assert len(names) >= 12
        assert len({fingerprint(name) for name in names}) == len(names)
    for name in ("grid/calm-sticky10-hidden-step-v0", "chain/certain-sticky10-single-v0"):
        assert spec(name).name == name  # not listed, known all the same
    loaded = catalogue.load("chain/gamble-single-v0", tmp_path)
    again = catalogue.load("chain/gamble-single-v0", tmp_path)
    assert loaded.content_hash == again.content_hash


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("chain/gamble-episode", "chain/gamble-episode-v0"),
        ("chain/gamble-episodes-v0", "chain/gamble-episode-v0"),
        ("chain/gamble-sticky30-step-v0", "chain/gamble-sticky25-step-v0"),
        ("chain/gamble-hidden-step-v0", "chain/gamble-sticky25-hidden-step-v0"),
        ("grid/gamble-episode-v0", "grid/"),
        ("grid/clif-step-v0", "grid/cliff-step-v0"),
    ],
)
def test_unknown_names(name, near):
    with pytest.raises(UserError, match=f"Did you mean '{near}"):
        spec(name)
    with pytest.raises(UserError, match=r"data: '.*' is not known"):
        exact_table(name)


def test_a_table_of_another_family_is_refused():
    with pytest.raises(UserError, match="data: 'lq-mix/episode' is not known"):
        exact_table("lq-mix/episode")
