"""From arrays with a number for each seed and episode, (S, E), to responses with one for each seed, (S,).

A mean of scores may be carried by a few episodes: where a policy loses control, one can cost more than all others
together earn. So the median stands beside it, the share of episodes that are lost, and the regret to the optimal
policy in the same episodes, which is bounded in each.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from ablate.data.catalogue import Anchors, DataSpec
from ablate.measure.rollout import Rollouts
from ablate.words import Response

CAP = 100.0  # points: what lies between the anchors
LOST = 0.0  # points: the score of the lower anchor

FIRST = (10, 100)  # episodes, whose mean is a response too
FEWER = tuple(f"episodes_{n}" for n in FIRST)
SUMMED = (*FEWER, "iqm")
CAPPED = (*SUMMED, "cap_half", "cap_double")

SCORE = Response("score", unit="points", direction="higher", digits=1, points=True)
REGRET = Response("regret", "regret to the optimum", "points", "lower", digits=1, points=True)
MEDIAN = Response("score_median", "median score", "points", "higher", digits=1, points=True)
SHARE_LOST = Response("lost", "share of lost episodes", "fraction", "lower")
SUCCESS = Response("success", "success rate", "fraction", "higher")

RESPONSES = (
    SCORE,
    MEDIAN,
    REGRET,
    SHARE_LOST,
    Response("return_mean", "return", "reward units", "higher", digits=1),
    Response("return_std", "spread of returns", "reward units", digits=1),
    SUCCESS,
    Response("length", "episode length", "timesteps", digits=1),
    Response("jerk", "action jerk", "action units"),
    *SCORE.ways(*SUMMED),
    *REGRET.ways(*CAPPED),
    *SUCCESS.ways(*FEWER),
    Response("episode_return", "return", "reward units", index="episode", tabled=False),
    Response("episode_length", "episode length", "timesteps", index="episode", tabled=False),
    Response("episode_success", "success", index="episode", tabled=False),
    Response("episode_regret", "regret to the optimum", "points", index="episode", tabled=False),
)


def optimal_returns(spec: DataSpec, env_seeds: np.ndarray) -> np.ndarray | None:
    """(S, E) returns of the optimal policy in the same episodes; None where no such policy is known."""
    found = [spec.optimal_returns(each.tolist()) for each in env_seeds]
    return None if any(each is None for each in found) else np.array(found)


def regret(scores: np.ndarray, optimal: np.ndarray, cap: float = CAP) -> np.ndarray:
    """(S,) mean over episodes of the optimal policy's score minus the score, at most `cap` either way.

    scores, optimal: (S, E) normalised scores in the same episodes. 0 for the optimal policy itself. It is best in
    expectation: with luck another one does better in an episode, and the negative regret of that counts as well, or
    luck alone would look like regret.
    """
    mean: np.ndarray = np.clip(optimal - scores, -cap, cap).mean(axis=1)
    return mean


def fewer(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """The mean (S,) of the first 10 and 100 episodes, by name: the ways `FEWER` of a response.

    values: (S, E), of each episode. NaN where there aren't more episodes than those.
    """
    unknown = np.full(len(values), np.nan)
    return {
        f"{name}_episodes_{n}": values[:, :n].mean(axis=1) if n < values.shape[1] else unknown
        for n in FIRST
    }


def summed(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """The ways `SUMMED` of a response: as `fewer`, and the interquartile mean, which leaves out the lowest and the
    highest quarter of the episodes."""
    return {**fewer(name, values), f"{name}_iqm": stats.trim_mean(values, 0.25, axis=1)}


def capped(name: str, scores: np.ndarray, optimal: np.ndarray, cap: float) -> dict[str, np.ndarray]:
    """The ways `CAPPED` of a regret: as `summed`, and with other caps. Arguments as of `regret`."""
    return {
        **summed(name, np.clip(optimal - scores, -cap, cap)),
        f"{name}_cap_half": regret(scores, optimal, cap / 2.0),
        f"{name}_cap_double": regret(scores, optimal, 2.0 * cap),
    }


def lost(scores: np.ndarray, below: float = LOST) -> np.ndarray:
    """(S,) share of the episodes whose normalised score (S, E) is below `below`."""
    share: np.ndarray = (scores < below).mean(axis=1)
    return share


def summaries(
    rollouts: Rollouts,
    anchors: Anchors,
    optimal: np.ndarray | None,
    cap: float = CAP,
    below: float = LOST,
) -> dict[str, np.ndarray]:
    """The responses of rollouts by name: (S,), those of single episodes (S, E), and the `episode` numbers (E,).

    Regret is NaN where `optimal`, returns (S, E), is not known; the spread of one episode is 0.
    """
    returns, scores = rollouts.returns, anchors.score(rollouts.returns)
    episodes = returns.shape[1]
    unknown = np.full(returns.shape, np.nan)
    best = unknown if optimal is None else anchors.score(optimal)
    return {
        "score": scores.mean(axis=1),
        "score_median": np.median(scores, axis=1),
        "regret": regret(scores, best, cap),
        "lost": lost(scores, below),
        "return_mean": returns.mean(axis=1),
        "return_std": returns.std(axis=1, ddof=min(1, episodes - 1)),
        "success": rollouts.success.mean(axis=1),
        "length": rollouts.lengths.mean(axis=1),
        "jerk": rollouts.jerk,
        **summed("score", scores),
        **capped("regret", scores, best, cap),
        **fewer("success", rollouts.success),
        "episode_return": returns,
        "episode_length": rollouts.lengths,
        "episode_success": rollouts.success,
        "episode_regret": best - scores,
        "episode": np.arange(episodes),
    }
