"""Mixtures of two linear controllers in the linear-quadratic system: what memory can buy, exactly.

`lq-mix/episode`: one controller is drawn for each episode, so that the past tells which one acts.
`lq-mix/step`: one is drawn at every step; the same two controllers, and the past tells nothing.
`lq-mix/single`: the better controller only.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ablate.data.behaviour import Acted, Behaviour, censored_logp, explore
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.exact import (
    EXPLORATION,
    controller_actions,
    controllers,
    expected_return,
    optimal_returns,
    posterior_action_error,
    posterior_returns,
)
from ablate.data.streams import stream
from ablate.data.trajectories import Trajectories, action_variance
from ablate.envs.lq import ACTION_SCALE, HORIZON, POSITIONS, VELOCITIES, LinearQuadratic
from ablate.errors import unknown
from ablate.registry import register

MEMBERS = ("episode", "step", "single")
YARDSTICK_EPISODES = 2000
EPISODES = {"train": 300, "held_out": 100}


@register("data", "lq-mix", label="LQ")
class LinearMixtures(Family):
    """300 training, 100 held-out episodes of 100 steps; behaviour_id 0: the better controller."""

    words: ClassVar = {
        "episode": "mixed by episode",
        "step": "mixed by step",
        "single": "one policy",
    }

    def resolve(self, member: str, name: str) -> DataSpec:
        if member not in MEMBERS:
            raise unknown("data", name, self.names())
        base = f"lq-mix/{member}"
        recipe = {"generator": "lq-mix", "version": 2, "mixing": member, "seed": 0, **EPISODES}

        def generate() -> tuple[Trajectories, Trajectories]:
            return (
                simulate(base, member, EPISODES["train"], "train"),
                simulate(base, member, EPISODES["held_out"], "held_out"),
            )

        return DataSpec(
            name=name.partition("@")[0],
            family="lq-mix",
            recipe=recipe,
            generate=generate,
            make_env=LinearQuadratic,
            anchors=anchors,
            best_policy=0,
            num_policies=1 if member == "single" else 2,
            yardstick=lambda part, anchors, context: yardstick(member, part, anchors, context),
            behaviour=lambda: Controllers(member),
            hidden_physics=LinearQuadratic,
            optimal=optimal_returns,
        )

    def names(self) -> list[str]:
        return [f"lq-mix/{member}" for member in MEMBERS]

    def coordinates(self, member: str) -> dict[str, list[int]]:
        return {"position": POSITIONS, "velocity": VELOCITIES}


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
    mixing: str, held_out: Trajectories, anchors: Anchors, context: int
) -> dict[str, float] | None:
    """Errors and score of the exact posterior mean given K timesteps and the time; None beyond an episode."""
    if context > HORIZON:
        return None
    error = posterior_action_error(held_out, context, mixing)
    variance = action_variance(held_out)
    returns = posterior_returns(context, range(YARDSTICK_EPISODES), mixing)
    return {
        "action_error": error.all / variance,
        "action_error_early": error.early / variance,
        "score": float(anchors.score(returns).mean()),
    }


class Controllers(Behaviour):
    """The two controllers with exploration noise, taking turns by episode, by step or not at all."""

    def __init__(self, mixing: str) -> None:
        self._mixing = mixing

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._ids = rng.integers(2, size=len(observation))

    def act(self, observation: np.ndarray) -> Acted:
        rows, std = np.arange(len(observation)), EXPLORATION / ACTION_SCALE
        if self._mixing == "step":
            self._ids = self._rng.integers(2, size=len(observation))
        elif self._mixing == "single":
            self._ids = np.zeros(len(observation), dtype=np.int64)
        mean = controller_actions(observation)[rows, self._ids].astype(np.float32)  # (B, 2)
        actions = explore(mean, std, self._rng)
        return Acted(actions, self._ids.copy(), censored_logp(actions, mean, std), mean)


def simulate(name: str, mixing: str, episodes: int, part: str) -> Trajectories:
    """Episodes of the mixture; the noise is a function of (name, part) alone."""
    rng = stream("data", 0, f"{name}/{part}")
    env = LinearQuadratic(episodes)
    observation = env.reset(rng.integers(1 << 62, size=episodes).tolist())
    episode_id = rng.integers(2, size=episodes)  # (B,)
    rows = np.arange(episodes)
    log: dict[str, list[np.ndarray]] = {
        key: []
        for key in ("observations", "behaviour_action", "actions", "rewards", "behaviour_id")
    }
    for _ in range(HORIZON):
        acting = {
            "episode": episode_id,
            "step": rng.integers(2, size=episodes),
            "single": np.zeros(episodes, dtype=np.int64),
        }[mixing]
        mean = controller_actions(observation)[rows, acting].astype(np.float32)  # (B, 2)
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
