"""TD3+BC, IQL and CQL: each update as the published code does it, and values that are known exactly."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm_samples import (
    HEADS,
    STUDY,
    as_module,
    episodes,
    objective,
    policies,
    problem,
    random_walks,
    same_module,
    train_config,
    update,
)
from torch import nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from ablate.data import streams
from ablate.data.windows import BLOCK, draw_targets
from ablate.learn.implicit_q import expectile_loss
from ablate.learn.objective import Batch
from ablate.learn.train import train_cohort
from ablate.models.assembly import Model
from baselines.cql import TanhGaussian, penalty_of

SIZE, UPDATES = 8, 5


class Plain:
    """The transitions as arrays, and one update's batch and noise, by hand."""

    def __init__(self, seed: int = 3) -> None:
        data = random_walks()
        assert data.final_observations is not None
        self.seed = seed
        nexts = np.roll(data.observations, -1, axis=0)
        nexts[data.episode_starts[1:] - 1] = data.final_observations
        self.arrays = [
            torch.from_numpy(array.astype(np.float64))
            for array in (data.observations, data.actions, data.rewards, nexts, data.terminations)
        ]
        self.targets = draw_targets(STUDY, seed, 0, SIZE, len(data.rewards))

    def batch(self, number: int) -> list[torch.Tensor]:
        """state, action, reward, next state, done of an update."""
        return [array[self.targets[number]] for array in self.arrays]

    def noise(self, number: int, kind: str, *shape: int) -> torch.Tensor:
        generator = streams.stream(STUDY, self.seed, f"noise/{kind}/0")
        draw = generator.standard_normal if kind == "normal" else generator.random
        return torch.from_numpy(draw((BLOCK, *shape), dtype=np.float32)[number]).double()


def act(policy: Model, state: torch.Tensor) -> torch.Tensor:
    return policy(state[:, None], torch.ones(len(state), dtype=torch.long))


def critic_of(*plain: nn.Sequential) -> Any:
    def values(state: torch.Tensor, action: torch.Tensor) -> list[torch.Tensor]:
        return [net(torch.cat([state, action], -1)).squeeze(-1) for net in plain]

    return values


def follow(targets: nn.Module, net: nn.Module, tau: float) -> None:
    for target, parameter in zip(targets.parameters(), net.parameters(), strict=True):
        target.data.copy_((1 - tau) * target.data + tau * parameter.data)


def made_and_policy(algorithm: str, settings: dict[str, Any]) -> tuple[Any, Model]:
    made = objective(random_walks(), algorithm, {"critic_width": 8, **settings}, [3])
    _, _, spec = problem(random_walks(), algorithm, [3])
    (policy,) = policies(random_walks(), [3], spec)
    return made, policy


def run(made: Any, plain: Plain) -> None:
    for number in range(UPDATES):
        made.update(Batch(number, torch.from_numpy(plain.targets[number])[None]), 1e-3)


def same_policy(made: Any, policy: Model) -> None:
    for ours, other in zip(made.stack.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-9)


def test_td3_bc_is_the_published_loop() -> None:
    """CORL, algorithms/offline/td3_bc.py, with its own optimisers and target copies."""
    made, actor = made_and_policy("td3+bc", {})
    one, two = (as_module(made.critic.dense, index) for index in range(2))
    targets = [copy.deepcopy(net) for net in (one, two, actor)]
    actor_adam = torch.optim.Adam(actor.parameters(), lr=1e-3)
    critic_adam = torch.optim.Adam([*one.parameters(), *two.parameters()], lr=3e-4)
    plain = Plain()
    for number in range(UPDATES):
        state, action, reward, after, done = plain.batch(number)
        with torch.no_grad():
            noise = (plain.noise(number, "normal", SIZE, 2) * 0.2).clamp(-0.5, 0.5)
            next_action = (act(targets[2], after) + noise).clamp(-1, 1)
            values = torch.min(*critic_of(*targets[:2])(after, next_action))
            wanted = reward + (1 - done) * 0.99 * values
        first, second = critic_of(one, two)(state, action)
        critic_adam.zero_grad()
        (F.mse_loss(first, wanted) + F.mse_loss(second, wanted)).backward()
        critic_adam.step()
        if (number + 1) % 2 == 0:
            chosen = act(actor, state)
            value = critic_of(one)(state, chosen)[0]
            weight = 2.5 / value.abs().mean().detach()
            actor_adam.zero_grad()
            (F.mse_loss(chosen, action) - weight * value.mean()).backward()
            actor_adam.step()
            for target, net in zip(targets, (one, two, actor), strict=True):
                follow(target, net, 0.005)
    run(made, plain)
    same_policy(made, actor)
    for index, (net, target) in enumerate(zip((one, two), targets, strict=False)):
        same_module(made.critic.dense, index, net)
        same_module(made.target_critic.dense, index, target)


def test_iql_is_the_published_loop() -> None:
    """CORL, algorithms/offline/iql.py."""
    made, actor = made_and_policy("iql", {"return_range": None})
    one, two = (as_module(made.values.critic.dense, index) for index in range(2))
    value = as_module(made.values.value.dense, 0)
    targets = copy.deepcopy(one), copy.deepcopy(two)
    adams = [
        torch.optim.Adam([*one.parameters(), *two.parameters()], lr=3e-4),
        torch.optim.Adam(value.parameters(), lr=3e-4),
        torch.optim.Adam(actor.parameters(), lr=1e-3),
    ]
    plain = Plain()
    for number in range(UPDATES):
        state, action, reward, after, done = plain.batch(number)
        with torch.no_grad():
            next_value = value(after).squeeze(-1)
            best = torch.min(*critic_of(*targets)(state, action))
        advantage = best - value(state).squeeze(-1)
        adams[1].zero_grad()
        (torch.abs(0.7 - (advantage < 0).double()) * advantage**2).mean().backward()
        adams[1].step()
        wanted = reward + (1 - done) * 0.99 * next_value
        adams[0].zero_grad()
        errors = [F.mse_loss(q, wanted) for q in critic_of(one, two)(state, action)]
        (sum(errors) / 2).backward()
        adams[0].step()
        for target, net in zip(targets, (one, two), strict=True):
            follow(target, net, 0.005)
        weights = torch.exp(3.0 * advantage.detach()).clamp(max=100.0)
        adams[2].zero_grad()
        params = act(actor, state)
        (weights * -actor.head.log_prob(params, action)).mean().backward()
        adams[2].step()
    run(made, plain)
    same_policy(made, actor)
    same_module(made.values.value.dense, 0, value)
    for index, net in enumerate((one, two)):
        same_module(made.values.critic.dense, index, net)
        same_module(made.values.target_critic.dense, index, targets[index])


def squashed(params: torch.Tensor) -> TransformedDistribution:
    means, log_std = params.chunk(2, dim=-1)
    return TransformedDistribution(Normal(means, log_std.exp()), TanhTransform(cache_size=1))


def drawn(params: torch.Tensor, normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Action and log-density by torch.distributions."""
    means, log_std = params.chunk(2, dim=-1)
    law = squashed(params)
    action = law.transforms[0](means + log_std.exp() * normal)
    return action, law.log_prob(action).sum(-1)


def test_cql_is_the_published_loop() -> None:
    """CORL, algorithms/offline/cql.py, for its locomotion settings."""
    count = 3
    made, actor = made_and_policy("cql", {"actions": count, "critic_layers": 2})
    one, two = (as_module(made.critic.dense, index) for index in range(2))
    targets = copy.deepcopy(one), copy.deepcopy(two)
    log_alpha = torch.zeros((), dtype=torch.float64, requires_grad=True)
    adams = [
        torch.optim.Adam([log_alpha], lr=1e-3),
        torch.optim.Adam(actor.parameters(), lr=1e-3),
        torch.optim.Adam([*one.parameters(), *two.parameters()], lr=3e-4),
    ]
    plain = Plain()
    for number in range(UPDATES):
        state, action, reward, after, done = plain.batch(number)
        normal = plain.noise(number, "normal", SIZE, 2 + 2 * count, 2)
        uniform = plain.noise(number, "uniform", SIZE, count, 2) * 2 - 1
        params, params_after = act(actor, state), act(actor, after)
        chosen, log_pi = drawn(params, normal[:, 0])
        alpha_loss = -(log_alpha * (log_pi - 2.0).detach()).mean()
        alpha = log_alpha.exp().detach()
        policy_loss = (alpha * log_pi - torch.min(*critic_of(one, two)(state, chosen))).mean()
        with torch.no_grad():
            next_action, _ = drawn(params_after, normal[:, 1])
            values = torch.min(*critic_of(*targets)(after, next_action))
            wanted = reward + (1 - done) * 0.99 * values
            now = drawn(params[:, None].expand(-1, count, -1), normal[:, 2 : 2 + count])
            later = drawn(params_after[:, None].expand(-1, count, -1), normal[:, 2 + count :])
        loss = torch.zeros((), dtype=torch.float64)
        for net in (one, two):
            logged = critic_of(net)(state, action)[0]
            wide = state[:, None].expand(-1, count, -1)
            cat = torch.cat(
                [
                    critic_of(net)(wide, uniform)[0] - math.log(0.5**2),
                    critic_of(net)(wide, later[0])[0] - later[1],
                    critic_of(net)(wide, now[0])[0] - now[1],
                ],
                dim=1,
            )
            loss = loss + F.mse_loss(logged, wanted)
            loss = loss + 10.0 * (torch.logsumexp(cat, dim=1) - logged).mean()
        for adam, each in zip(adams, (alpha_loss, policy_loss, loss), strict=True):
            parameters = adam.param_groups[0]["params"]
            for parameter, grad in zip(
                parameters, torch.autograd.grad(each, parameters), strict=True
            ):
                parameter.grad = grad
        for adam in adams:
            adam.step()
        for target, net in zip(targets, (one, two), strict=True):
            follow(target, net, 0.005)
    run(made, plain)
    same_policy(made, actor)
    torch.testing.assert_close(made.log_temperature[0], log_alpha, rtol=0, atol=1e-9)
    for index, net in enumerate((one, two)):
        same_module(made.critic.dense, index, net)
        same_module(made.target_critic.dense, index, targets[index])


# --- any mixer and context, many seeds at once ---


@pytest.mark.parametrize("algorithm", HEADS)
@pytest.mark.parametrize(("mixer", "context"), [("mlp", 1), ("mlp", 5), ("gru", 5)])
def test_with_or_without_history_seeds_at_once_equal_each_alone(
    algorithm: str, mixer: str, context: int
) -> None:
    settings = {} if algorithm == "bc" else {"critic_width": 8}
    if algorithm == "td3+bc":
        settings["policy_every"] = 1

    def trained(seeds: list[int]) -> tuple[list[torch.Tensor], torch.Tensor]:
        stack, source, _ = problem(
            random_walks(), algorithm, seeds, mixer=mixer, context=context, width=6
        )
        losses: list[torch.Tensor] = []
        result = train_cohort(
            stack, source, train_config(updates=3), STUDY, seeds, [3],
            lambda _, loss: losses.append(loss), algorithm=algorithm, settings=settings,
        )  # fmt: skip
        assert not result.diverged
        assert losses[0].isfinite().all()
        return stack.parameters(), losses[0]

    together, losses = trained([0, 7])
    for place, seed in enumerate([0, 7]):
        alone, loss = trained([seed])
        torch.testing.assert_close(losses[place], loss[0], rtol=0, atol=1e-8)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[place], other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("algorithm", ["td3+bc", "iql", "cql"])
def test_what_follows_an_unknown_end_plays_no_part(algorithm: str) -> None:
    """Without final observations a timed-out episode's last timestep is left out, whatever it holds."""
    data = random_walks(final=False)
    wild = data.rewards.copy()
    last = data.episode_starts[1:] - 1
    wild[last[data.truncations[last]]] = 1e6
    found = []
    for some in (data, dataclasses.replace(data, rewards=wild)):
        made = objective(some, algorithm, {"critic_width": 8, "return_range": None})
        update(made, 4, 1e-3, size=30)
        found.append([p.detach().clone() for p in made.stack.parameters()])
    assert all(map(torch.equal, *found))


# --- values that are known ---

EYE = np.eye(6, dtype=np.float32)


def test_td3_bc_that_only_clones_learns_the_behaviours_exact_values() -> None:
    """A ring 0-1-2-3 cut by time-outs, and 4-5 that truly ends; one action a state, no smoothing noise."""
    rewards, discount = np.array([1.0, 0.0, -0.5, 0.3, 0.2, 1.5]), 0.8
    actions = np.array([0.5, -0.5, 0.2, -0.1, 0.4, 0.0])[:, None]
    parts, ended = [], []
    for start in range(4):
        seen = (start + np.arange(5)) % 4
        parts.append((EYE[seen], actions[seen], rewards[seen], EYE[(start + 5) % 4]))
        ended.append(False)
    parts.append((EYE[[4, 5]], actions[[4, 5]], rewards[[4, 5]], EYE[0]))
    ended.append(True)
    moves = np.zeros((6, 6))
    moves[[0, 1, 2, 3, 4], [1, 2, 3, 0, 5]] = 1.0
    exact = np.linalg.solve(np.eye(6) - discount * moves, rewards)
    settings = {
        "alpha": 0.0, "policy_noise": 0.0, "discount": discount, "tau": 0.1,
        "critic_learning_rate": 5e-3, "critic_width": 32,
    }  # fmt: skip
    made = objective(episodes(parts, ended), "td3+bc", settings)
    update(made, 400, 5e-3)
    encoded = torch.from_numpy(EYE).double().expand(2, -1, -1)
    found = made.critic.values(encoded, torch.from_numpy(actions)[None].double())[:, 0]
    np.testing.assert_allclose(found.detach().numpy(), [exact, exact], atol=0.05)


def lottery() -> Any:
    """State 0: -0.5 gets 0, +0.5 gets 1, each as often, and the end. State 1: 0.2, then state 0."""
    parts = []
    for first in (-0.3, 0.3):
        for second, reward in ((-0.5, 0.0), (0.5, 1.0)):
            parts.append((EYE[[1, 0]], [[first], [second]], [0.2, reward], EYE[2]))
    return episodes(parts, [True] * 4)


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_iql_learns_the_expectile_of_the_behaviours_return(expectile: float) -> None:
    """Of 0 and 1 as often, the expectile is the level itself; at 0.5 that is the behaviour's value.

    The policy's weights then are exp(beta * (Q - V)), so its mean is 0.5 * tanh(beta / 2) at state 0: better than
    cloning's mean, which is 0. Large batches, as the noise of the draws decides how near the last update is.
    """
    settings = {
        "expectile": expectile, "discount": 0.9, "tau": 0.1, "return_range": None, "beta": 2.0,
        "critic_learning_rate": 5e-3, "critic_width": 32,
    }  # fmt: skip
    made = objective(lottery(), "iql", settings, head="mse")
    update(made, 250, 5e-3, size=256)
    seen = torch.from_numpy(EYE[:2]).double()[None]
    values = made.values.value.values(seen)[0, 0]
    wanted = torch.tensor([expectile, 0.2 + 0.9 * expectile]).double()
    torch.testing.assert_close(values.detach(), wanted, rtol=0, atol=0.06)
    chosen = made.stack(seen[:, :, None], torch.ones(1, 2, dtype=torch.long))[0, :, 0].detach()
    assert float(chosen[0]) == pytest.approx(0.5 * math.tanh(1.0), abs=0.06)
    assert float(chosen[1]) == pytest.approx(0.0, abs=0.06)


def test_td3_bc_improves_on_cloning_where_the_data_are_mixed() -> None:
    """One state, actions of all sizes, reward -(a - 0.5)^2: cloning answers their mean, 0."""
    actions = np.linspace(-1.0, 1.0, 41)
    parts = [(EYE[[0]], [[a]], [-((a - 0.5) ** 2)], EYE[0]) for a in actions]
    data = episodes(parts, [True] * 41)
    settings = {"critic_learning_rate": 5e-3, "critic_width": 32, "tau": 0.1}
    state, length = torch.from_numpy(EYE[:1]).double()[None, None], torch.ones(1, 1).long()
    found = {}
    for algorithm, options in (("bc", {}), ("td3+bc", settings)):
        made = objective(data, algorithm, options)
        update(made, 400, 5e-3)
        found[algorithm] = float(made.stack(state, length).detach())
    assert found["bc"] == pytest.approx(0.0, abs=0.1)
    assert found["td3+bc"] == pytest.approx(0.5, abs=0.12)


def test_cql_values_actions_that_are_not_in_the_data_lower() -> None:
    """One state, reward 1 for all actions, of which the data hold those below 0."""
    parts = [(EYE[[0]], [[a]], [1.0], EYE[0]) for a in np.linspace(-1.0, -0.1, 10)]
    data = episodes(parts, [True] * 10)
    gap = {}
    for alpha in (0.0, 1.0):
        settings = {"alpha": alpha, "critic_learning_rate": 3e-3, "critic_width": 16}
        made = objective(data, "cql", settings)
        update(made, 150, 1e-3, size=16)
        inside, outside = (
            made.critic.values(
                torch.from_numpy(EYE[:1]).double().expand(2, 5, 6),
                torch.linspace(low, high, 5).double()[None, :, None],
            )
            for low, high in ((-1.0, -0.2), (0.3, 1.0))
        )
        gap[alpha] = float(inside.mean() - outside.mean())
    assert abs(gap[0.0]) < 0.3
    assert gap[1.0] > 1.0


# --- parts ---


@pytest.mark.parametrize("level", [0.1, 0.5, 0.7])
def test_the_expectile_loss_is_least_at_the_expectile(level: float) -> None:
    """The expectile e solves level * E[(x - e)+] = (1 - level) * E[(e - x)+]."""
    values = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=2000))
    at = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    for _ in range(200):  # the loss is convex and nearly quadratic
        (grad,) = torch.autograd.grad(expectile_loss(values - at, level).mean(), at)
        at = (at - grad).detach().requires_grad_()
    above, below = (values - at).clamp(min=0).mean(), (at - values).clamp(min=0).mean()
    assert float(level * above) == pytest.approx(float((1 - level) * below), rel=1e-4)
    errors = torch.tensor([2.0, -2.0])
    assert expectile_loss(errors, 0.7).tolist() == pytest.approx([0.7 * 4, 0.3 * 4])


def test_the_penalty_by_hand() -> None:
    """Two actions proposed at densities 1/2 and 1/4, valued 1 and 2; the logged one is valued 3."""
    found = penalty_of(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.25]]).log(), torch.tensor([3.0])
    )
    assert float(found) == pytest.approx(math.log(2 * math.e + 4 * math.e**2) - 3.0)


def test_the_tanh_gaussian_is_torchs() -> None:
    head = TanhGaussian(4, 2).double()
    params = torch.randn(50, 4, dtype=torch.float64) * 0.7
    normal = torch.randn(50, 2, dtype=torch.float64)
    action, log_density = head.draw(params, normal)
    wanted, wanted_log = drawn(params, normal)
    torch.testing.assert_close(action, wanted)
    torch.testing.assert_close(log_density, wanted_log)
    torch.testing.assert_close(head.log_prob(params, action), wanted_log)
    assert head.log_prob(params, torch.ones(50, 2).double()).isfinite().all()


def test_its_density_integrates_to_one_and_its_mean_is_the_integral() -> None:
    head = TanhGaussian(4, 1).double()
    grid = torch.linspace(-1.0, 1.0, 200_001, dtype=torch.float64)[1:-1]
    step = float(grid[1] - grid[0])
    for mean, log_std in ((0.3, -1.0), (-1.0, -0.3)):
        params = torch.tensor([mean, log_std], dtype=torch.float64)
        density = head.log_prob(params, grid[:, None]).exp()
        assert float(density.sum() * step) == pytest.approx(1.0, abs=1e-4)
        assert float(head.mean(params)) == pytest.approx(
            float((density * grid).sum() * step), abs=1e-4
        )
        assert float(head.mode(params)) == pytest.approx(math.tanh(mean))
        noise = torch.linspace(0.0, 1.0, 20_001, dtype=torch.float64)[:-1, None]
        sampled = head.sample(params, noise)
        assert float(sampled.mean()) == pytest.approx(float(head.mean(params)), abs=1e-3)
        assert sampled.abs().max() <= 1.0


def test_it_starts_near_zero_with_the_published_spread() -> None:
    params = TanhGaussian(16, 3)(torch.randn(20, 16))
    means, log_std = params.chunk(2, dim=-1)
    assert means.abs().max() < 0.2
    torch.testing.assert_close(log_std, torch.full_like(log_std, -1.0), atol=0.2, rtol=0)
