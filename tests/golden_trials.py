"""The trials whose metrics `golden.json` holds.

`python -m tests.golden_trials`, in the root of the project, measures and writes them anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ablate.study.identity import CODE_VERSION
from ablate.trial import run_cohort

GOLDEN = Path(__file__).parent / "golden.json"


def config(**changes: Any) -> dict[str, Any]:
    """A small configuration; keys of `model`, `train` and `evaluate` may be given directly."""
    made: dict[str, Any] = {
        "data": "tmaze/passive-3",
        "mixer": "gru",
        "context": 4,
        "condition": "none",
        "history": "states+actions",
        "head": "mse",
        "model": {"parameters": 2500, "tolerance": 0.05, "layers": 1, "dropout": 0.0},
        "train": {
            "updates": 20,
            "targets_per_update": 32,
            "learning_rate": 5e-3,
            "schedule": "cosine",
            "warmup": 5,
            "weight_decay": 1e-4,
            "clip": 1.0,
            "loss": "last",
            "precision": "float32",
        },
        "evaluate": {
            "episodes": 10,
            "target": "p90",
            "checkpoint": "last",
            "actions": "sample",
            "points": 2,
        },
    }
    for name, value in changes.items():
        parts = [part for part in made.values() if isinstance(part, dict) and name in part]
        [made, *parts][-1][name] = value
    return made


TRIALS: dict[str, dict[str, Any]] = {
    "cue": config(updates=120),
    "control": config(
        data="lq-mix/episode", mixer="attention", context=5, condition="return-to-go+time",
        head="mixture",
    ),
    "bins": config(
        data="lq-mix/step@mask-velocity", mixer="conv", context=3, head="categorical",
        history="states+actions+rewards", loss="all", schedule="constant",
    ),
}  # fmt: skip


def measure(cache: Path) -> dict[str, dict[str, float]]:
    """Metrics of every golden trial; a metric that isn't defined is left out."""
    found = {}
    for name, each in TRIALS.items():
        (outcome,) = run_cohort("golden", [0], each, cache=cache, stacked=False)
        assert not outcome.failure
        found[name] = {key: value for key, value in outcome.metrics.items() if value == value}
    return found


def main() -> None:
    """Write `golden.json`."""
    with tempfile.TemporaryDirectory() as cache:
        content = {"code_version": CODE_VERSION, "trials": measure(Path(cache))}
    GOLDEN.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
