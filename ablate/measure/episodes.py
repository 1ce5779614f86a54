"""From arrays with a number for each seed and episode, (S, E), to responses with one for each seed, (S,).

A mean of scores may be carried by a few episodes: where a policy loses control, one can cost more than all others
together earn. So the median stands beside it, the share of episodes that are lost, and the regret to the optimal
policy in the same episodes, which is bounded in each.
"""

from __future__ import annotations

import numpy as np

from ablate.data.catalogue import Anchors, DataSpec
from ablate.measure.rollout import Rollouts
from ablate.words import Response

CAP = 100.0  # points: what lies between the anchors
LOST = 0.0  # points: the score of the lower anchor

RESPONSES = (
    Response("score", unit="points", direction="higher", digits=1, points=True),
    Response("score_median", "median score", "points", direction="higher", digits=1, points=True),
    Response("regret", "regret to the optimum", "points", direction="lower", digits=1, points=True),
    Response("lost", "share of lost episodes", direction="lower"),
    Response("return_mean", "return", direction="higher", digits=2),
    Response("return_std", "deviation of the return", digits=2),
    Response("success", "success rate", direction="higher"),
    Response("length", "steps of an episode", digits=1),
    Response("jerk", direction="lower"),
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
    """The RESPONSES (S,) of rollouts by name; `regret` only where `optimal`, returns (S, E), is known."""
    returns, scores = rollouts.returns, anchors.score(rollouts.returns)
    found = {
        "score": scores.mean(axis=1),
        "score_median": np.median(scores, axis=1),
        "lost": lost(scores, below),
        "return_mean": returns.mean(axis=1),
        "return_std": returns.std(axis=1, ddof=1),
        "success": rollouts.success.mean(axis=1),
        "length": rollouts.lengths.mean(axis=1),
        "jerk": rollouts.jerk,
    }
    if optimal is not None:
        found["regret"] = regret(scores, anchors.score(optimal), cap)
    return found
