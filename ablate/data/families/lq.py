"""Mixtures of linear controllers in the linear-quadratic system: what memory can buy, exactly.

`lq-mix/episode`: one controller is drawn for each episode, so that the past tells which one acts.
`lq-mix/step`: one is drawn at every step; the same controllers, and the past tells nothing.
`lq-mix/single`: the better controller only.

Each with 300 training episodes of two controllers; `lq-mix/episode-3000` has 3,000 training episodes, and
`lq-mix/episode-3000-of-8` as many of eight controllers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ablate.data import exact_hidden
from ablate.data.behaviour import Acted, Behaviour, censored_logp, explore
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.exact import (
    EXPLORATION,
    controller_actions,
    controllers,
    expected_return,
    optimal_returns,
    posterior_actions,
    posterior_error,
    posterior_returns,
)
from ablate.data.planned import LinearLaw
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories, action_variance
from ablate.envs.base import MaskedEnv
from ablate.envs.lq import ACTION_SCALE, HORIZON, POSITIONS, VELOCITIES, LinearQuadratic
from ablate.errors import UserError, unknown
from ablate.registry import register

MEMBERS = ("episode", "step", "single")
YARDSTICK_EPISODES = 2000
REFERENCES = 100.0  # points between the anchors, at which the regret of an episode is cut, as that of models is
EPISODES = {"train": 300, "held_out": 100}
MOST_EPISODES, MOST_POLICIES = 100_000, 64


@register("data", "lq-mix", label="LQ")
class LinearMixtures(Family):
    """300 training (or as many as the name says), 100 held-out episodes of 100 steps; behaviour_id 0 is the best
    controller, the highest the worst."""

    words: ClassVar = {
        "(episode|step)": r"mixed by \1",
        "single": "one policy",
        r"(episode|step)-(\d+)": r"mixed by \1, \2 episodes",
        r"single-(\d+)": r"one policy, \1 episodes",
        r"(episode|step)-of-(\d+)": r"\2 policies mixed by \1",
        r"(episode|step)-(\d+)-of-(\d+)": r"\3 policies mixed by \1, \2 episodes",
    }

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(
            r"(episode|step|single)(?:-([1-9][0-9]*))?(?:-of-([1-9][0-9]*))?", member
        )
        if not found:
            raise unknown("data", name, self.names())
        mixing, of = found[1], found[3]
        episodes = int((found[2] or "")[:9] or EPISODES["train"])
        policies = 1 if mixing == "single" else int((of or "2")[:9])
        if episodes > MOST_EPISODES:
            raise UserError(
                f"data: '{name}' has {episodes} episodes; allowed: 1 to {MOST_EPISODES}."
            )
        if of is not None and (mixing == "single" or not 2 <= policies <= MOST_POLICIES):
            raise UserError(
                f"data: '{name}' mixes {of} controllers; allowed: 2 to {MOST_POLICIES} of episode and step, one of "
                "single."
            )
        base = f"lq-mix/{member}"
        recipe = {"generator": "lq-mix", "version": 2, "mixing": mixing, "seed": 0, **EPISODES}
        recipe["train"] = episodes
        if of is not None:
            recipe["policies"] = policies

        def generate() -> tuple[Trajectories, Trajectories]:
            return (
                simulate(base, mixing, episodes, "train", policies),
                simulate(base, mixing, EPISODES["held_out"], "held_out", policies),
            )

        return DataSpec(
            name=name.partition("@")[0],
            family="lq-mix",
            recipe=recipe,
            generate=generate,
            make_env=LinearQuadratic,
            anchors=anchors,
            best_policy=0,
            num_policies=policies,
            yardstick=lambda part, anchors, context: yardstick(
                mixing, part, anchors, context, max(2, policies)
            ),
            masked=lambda shown: (
                None
                if mixing == "step"  # the state's law given a window is no Gaussian
                else lambda part, anchors, context: masked_yardstick(
                    shown, part, anchors, context, controllers(max(2, policies))[:policies]
                )
            ),
            behaviour=lambda: Controllers(mixing, policies),
            hidden_physics=LinearQuadratic,
            optimal=optimal_returns,
            law=LinearLaw(mixing, max(2, policies)),
        )

    def names(self) -> list[str]:
        return [f"lq-mix/{member}" for member in MEMBERS]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        return {"position": POSITIONS, "velocity": VELOCITIES}


def mixture(spec: DataSpec) -> tuple[str, int]:
    """How the controllers of `lq-mix/...` are mixed, and how many there are."""
    return str(spec.recipe["mixing"]), max(2, spec.num_policies)


def anchors() -> Anchors:
    """Score 0 is the worse controller's expected return, 100 the better's, both exploring."""
    better, worse = (round(expected_return(gain, EXPLORATION), 6) for gain in controllers())
    return Anchors(
        low=worse,
        high=better,
        source="expected returns of the worse and the better controller with exploration noise,"
        " closed form",
    )


def yardstick(
    mixing: str, held_out: Trajectories, anchors: Anchors, context: int, policies: int = 2
) -> dict[str, float] | None:
    """Errors, score and regret of the exact posterior mean given K timesteps and the time; None beyond an episode."""
    if context > HORIZON:
        return None
    predicted = posterior_actions(held_out, context, mixing, policies=policies)
    returns = posterior_returns(context, range(YARDSTICK_EPISODES), mixing, policies=policies)
    return _known(held_out, predicted, anchors, returns)


def masked_yardstick(
    shown: Sequence[int], held_out: Trajectories, anchors: Anchors, context: int, gains: np.ndarray
) -> dict[str, float] | None:
    """The same where the coordinates `shown` of the state are all that is seen; `held_out` has no others."""
    if context > HORIZON:
        return None
    seen = exact_hidden.Seen(tuple(shown), (0.0,) * len(shown))
    predicted = exact_hidden.actions(held_out, seen, context, gains)
    returns = exact_hidden.returns(
        lambda episodes: MaskedEnv(LinearQuadratic(episodes), list(shown)),
        range(YARDSTICK_EPISODES),
        context,
        gains,
    )
    return _known(held_out, predicted, anchors, returns)


def _known(
    held_out: Trajectories, predicted: np.ndarray, anchors: Anchors, returns: np.ndarray
) -> dict[str, float]:
    error, variance = posterior_error(held_out, predicted), action_variance(held_out)
    scores = anchors.score(returns)
    short = anchors.score(optimal_returns(range(YARDSTICK_EPISODES))) - scores
    return {
        "action_error": error.all / variance,
        "action_error_early": error.early / variance,
        "score": float(scores.mean()),
        "regret": float(np.minimum(short, REFERENCES).mean()),
    }


class Controllers(Behaviour):
    """The controllers with exploration noise, taking turns by episode, by step or not at all."""

    def __init__(self, mixing: str, policies: int) -> None:
        self._mixing, self._policies = mixing, max(2, policies)  # of one, the better of two

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._ids = rng.integers(self._policies, size=len(observation))
        if self._mixing == "single":
            self._ids = np.zeros(len(observation), dtype=np.int64)

    def act(self, observation: np.ndarray) -> Acted:
        rows, std = np.arange(len(observation)), EXPLORATION / ACTION_SCALE
        if self._mixing == "step":
            self._ids = self._rng.integers(self._policies, size=len(observation))
        means = controller_actions(observation, self._policies)  # (B, Z, 2)
        mean = means[rows, self._ids].astype(np.float32)  # (B, 2)
        actions = explore(mean, std, self._rng)
        return Acted(actions, self._ids.copy(), censored_logp(actions, mean, std), mean)


def simulate(name: str, mixing: str, episodes: int, part: str, policies: int = 2) -> Trajectories:
    """Episodes of the mixture; the noise is a function of (name, part) alone."""
    drawn = max(2, policies)  # of one, the better of two acts
    rng = stream("data", 0, f"{name}/{part}")
    env = LinearQuadratic(episodes)
    observation = env.reset(rng.integers(1 << 62, size=episodes).tolist())
    episode_id = rng.integers(drawn, size=episodes)  # (B,)
    rows = np.arange(episodes)
    log: dict[str, list[np.ndarray]] = {
        key: []
        for key in ("observations", "behaviour_action", "actions", "rewards", "behaviour_id")
    }
    for _ in range(HORIZON):
        acting = {
            "episode": episode_id,
            "step": rng.integers(drawn, size=episodes),
            "single": np.zeros(episodes, dtype=np.int64),
        }[mixing]
        mean = controller_actions(observation, drawn)[rows, acting].astype(np.float32)  # (B, 2)
        action = explore(mean, EXPLORATION / ACTION_SCALE, rng)
        log["observations"].append(observation)
        log["behaviour_action"].append(mean)
        log["actions"].append(action)
        log["behaviour_id"].append(acting)
        observation, rewards, _, truncations, _ = env.step(action)
        log["rewards"].append(rewards.astype(np.float32))
    assert truncations.all()
    # (T, B, ...) -> (B * T, ...)
    flat = {
        key: np.stack(each, axis=1).reshape(-1, *each[0].shape[1:]) for key, each in log.items()
    }
    starts = np.arange(episodes + 1) * HORIZON
    ends = np.zeros(episodes * HORIZON, dtype=bool)
    ends[starts[1:] - 1] = True
    logp = censored_logp(flat["actions"], flat["behaviour_action"], EXPLORATION / ACTION_SCALE)
    return Trajectories(
        name=name,
        **flat,
        terminations=np.zeros_like(ends),
        truncations=ends,
        episode_starts=starts,
        behaviour_logp=logp.astype(np.float32),
        simulator_state=flat["observations"].copy(),
    )
