"""Measures a training run's snapshots and ships twenty: `python -m ablate.data.ladders.choose hopper --folder RUN`.

Shipped are the untrained policy, up to nine more until the medium one, and others at even distances
from there to the end, the best one among them. These are chosen by a first measurement; the scores that are
shipped come from a second one with other episodes, and both say which policy is called medium and which expert.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ablate.data import d4rl_index, ladders
from ablate.data.behaviour import Behaviour
from ablate.data.ladders import Ladder, LadderBehaviour
from ablate.data.streams import stream
from ablate.envs.locomotion import ENVIRONMENTS, Locomotion

SHIPPED = 20
UNTIL_MEDIUM = 10
MEDIUM = 40.0  # the score that a medium policy should be near
FIRST, SECOND = 20, 50  # episodes of the two measurements


def returns(task: str, behaviour: Behaviour, episodes: int, part: str) -> np.ndarray:
    """Undiscounted returns (E,) of a behaviour policy, one episode each."""
    rng = stream("data", 0, f"ladders/{task}/{part}")
    env = Locomotion(episodes, task)
    observation = env.reset(rng.integers(1 << 62, size=episodes).tolist())
    behaviour.start(observation, rng)
    total, alive = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while alive.any():
        observation, rewards, terminations, truncations, _ = env.step(
            behaviour.act(observation).actions
        )
        total += rewards
        alive &= ~(terminations | truncations)
    return total


def measure(ladder: Ladder, snapshot: int, episodes: int, part: str) -> np.ndarray:
    """Returns (E,) of one snapshot with the noise that it collects with."""
    acting = LadderBehaviour(ladder, [snapshot], lambda batch, rng: np.zeros(batch, dtype=np.int64))
    return returns(ladder.task, acting, episodes, f"{part}/{snapshot}")


def score(task: str, value: float) -> float:
    """D4RL's normalised score of a return."""
    return float(d4rl_index.normalised_score(f"{task}-medium-v2", value))


def read_run(task: str, folder: Path) -> Ladder:
    """Every snapshot of a training run."""
    files = sorted(folder.glob("*.safetensors"))
    weights: dict[str, list[np.ndarray]] = {}
    steps, recipe = [], {}
    for file in files:
        with safe_open(file, "numpy") as opened:
            for name in opened.keys():  # noqa: SIM118
                weights.setdefault(name, []).append(opened.get_tensor(name))
            steps.append(int(opened.metadata()["step"]))
            recipe = json.loads(opened.metadata()["recipe"])
    stacked = {name: np.stack(each) for name, each in weights.items()}
    return Ladder(task, stacked, {"steps": steps, "recipe": recipe})


def choose(first: np.ndarray) -> list[int]:
    """Which snapshots to ship, by the scores (L,) of the first measurement."""
    best = int(first.argmax())
    medium = nearest(first, best)
    early = np.linspace(0, medium, min(UNTIL_MEDIUM, medium + 1)).round().astype(int)
    late = np.linspace(medium, len(first) - 1, SHIPPED - len(early) + 1).round().astype(int)[1:]
    late[np.abs(late - best).argmin()] = best
    return sorted({*early.tolist(), *late.tolist()})


def nearest(scores: np.ndarray, best: int) -> int:
    """The snapshot up to the best one whose score is nearest to MEDIUM."""
    return int(np.abs(scores[: best + 1] - MEDIUM).argmin())


def ship(task: str, folder: Path) -> None:
    """Choose, measure, and write the ladder's file."""
    run = read_run(task, folder)
    first = np.array([score(task, measure(run, i, FIRST, "first").mean()) for i in range(run.size)])
    kept = choose(first)
    second = [measure(run, i, SECOND, "second") for i in kept]
    scores = np.array([score(task, float(each.mean())) for each in second])
    both = (FIRST * first[kept] + SECOND * scores) / (FIRST + SECOND)
    expert = int(both.argmax())
    about = {
        "recipe": run.about["recipe"],
        "steps": [run.about["steps"][i] for i in kept],
        "medium": nearest(both, expert),
        "expert": expert,
        "noise": ladders.NOISE,
        "episodes": SECOND,
        "returns": [round(float(each.mean()), 1) for each in second],
        "return_std": [round(float(each.std(ddof=1)), 1) for each in second],
        "scores": scores.round(2).tolist(),
    }
    weights = {name: value[kept] for name, value in run.weights.items()}
    save_file(weights, ladders.path(task), metadata={"about": json.dumps(about)})
    rows = zip(about["steps"], about["returns"], about["return_std"], scores, strict=True)
    for row in rows:
        print("{:>9} steps: return {:7.1f} +- {:6.1f}, score {:5.1f}".format(*row))
    print(f"medium: place {about['medium']}, expert: place {about['expert']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(ENVIRONMENTS))
    parser.add_argument("--folder", type=Path, required=True, help="What `train` wrote.")
    given = parser.parse_args()
    ship(given.task, given.folder)
