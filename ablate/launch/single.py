"""One model, without a study: `train` a preset on a data set, `evaluate` what came of it.

It is a trial like any other (same cell, same audit, same Sacred record), kept under `results/models/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ablate import trial
from ablate.analyse.descriptive import mean_interval
from ablate.config import complete
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.launch.run import audit_model, check_device
from ablate.launch.work import CohortJob, work
from ablate.learn.checkpoint import load_policy
from ablate.study import identity
from ablate.track.folder import StudyFolder
from ablate.track.recorder import Recorded
from ablate.track.store import COMPLETED, attempts

STUDY = "models"
COLUMNS = ("target", "episodes", "return", "SD", "score", "95 % interval", "median", "success")


@dataclass(frozen=True)
class Model:
    """A trained model: its run's folder, and whether it was there before."""

    run: Path
    metrics: dict[str, Any]
    known: bool


def train(
    config: Mapping[str, Any],
    seed: int,
    results: Path,
    cache: Path,
    *,
    device: str = "cpu",
    report: Callable[[float, str], None] = lambda fraction, text: None,
) -> Model:
    """Train one configuration with one seed; the same again is not trained twice.

    Goes on where an interrupted training stopped. Raises UserError for what the user has to mend, also
    when the model fails its audit or diverges.
    """
    check_device(device)
    content = catalogue.load(config["data"], cache).content_hash
    name = identity.trial_id(STUDY, seed, config, content)
    folder = StudyFolder(results / STUDY, STUDY)
    with folder.lock():
        folder.register("", "", {config["data"]: content})
        for one in attempts(folder.runs, [name]):
            if one.status == COMPLETED:
                return Model(one.path, dict(one.result), known=True)
        audit = audit_model(config)
        if not audit.passed:
            raise UserError(f"audit: {audit.name}: refused. {'; '.join(audit.findings)}")
        (found,) = work(
            CohortJob(
                study=STUDY,
                cohort=name,
                config=config,
                trials={seed: name},
                wanted=(seed,),
                runs=folder.runs,
                checkpoints=folder.checkpoints,
                cache=cache,
                stacked=False,
                device=device,
            ),
            report,
        )
    return _finished(found)


def _finished(found: Recorded) -> Model:
    if found.status != COMPLETED:
        raise UserError(f"{found.run_id}: {found.status.lower()}. {found.failure}".rstrip())
    return Model(found.path, dict(found.result), known=False)


@dataclass(frozen=True)
class Score:
    """What a model reached when asked for `target`; one number an episode."""

    target: float
    returns: np.ndarray  # (E,)
    scores: np.ndarray  # (E,) normalised
    success: np.ndarray  # (E,), NaN where the task has none

    def row(self) -> tuple[str, ...]:
        """The numbers of `COLUMNS`, as text."""
        low, high = mean_interval(self.scores)
        reached = f"{100 * self.success.mean():.0f} %" if not np.isnan(self.success).all() else ""
        return (
            f"{self.target:.5g}",
            str(len(self.returns)),
            f"{self.returns.mean():.5g}",
            f"{self.returns.std(ddof=1) if len(self.returns) > 1 else 0.0:.3g}",
            f"{self.scores.mean():.1f}",
            "" if np.isnan(low) else f"{low:.1f} to {high:.1f}",
            f"{np.median(self.scores):.1f}",
            reached,
        )


def evaluate(
    run: Path,
    cache: Path,
    targets: Sequence[str],
    episodes: int,
    overrides: Sequence[str],
    *,
    device: str = "cpu",
    video: Path | None = None,
) -> list[Score]:
    """Roll a trained model out, once for each target (by default the one that it was trained for).

    run: the folder of its run, or its checkpoint. targets: numbers, or percentiles such as p90. overrides: of
    the section `evaluate`, as KEY=VALUE. video: the file for a film of the first episode at the first
    target. Raises UserError for a folder without a checkpoint, and as the configuration does.
    """
    check_device(device)
    torch.set_num_threads(1)
    path = checkpoint(run)
    tensors, about = load_policy(path)
    study, seed = str(about.pop("study")), int(about.pop("seed"))
    about.pop("width", None)
    settings = {**about["evaluate"], "episodes": episodes, **_settings(overrides)}
    config = complete({**about, "evaluate": settings}, str(path))
    cell = trial.prepare(config, cache, device)
    policy = cell.policy(study, seed)
    policy.load_state_dict(tensors)
    scores = []
    for target in targets or [config["evaluate"]["target"]]:
        asked = trial.target_return(cell.data, _number(target))
        rollouts = trial.act(cell, [policy], study, [seed], asked, video)
        video = None
        returns = rollouts.returns[0]
        scores.append(Score(asked, returns, cell.data.anchors.score(returns), rollouts.success[0]))
    return scores


def checkpoint(run: Path) -> Path:
    """The checkpoint of a run: its only .safetensors file, or the file itself.

    Raises UserError when there is none, or more than one.
    """
    if run.is_file():
        return run
    if not run.is_dir():
        raise UserError(f"evaluate {run}: there is no such run; `train` says where it put one.")
    found = sorted(run.glob("*.safetensors"))
    if len(found) != 1:
        raise UserError(
            f"evaluate {run}: it holds {len(found)} checkpoints; name the folder of one finished run."
        )
    return found[0]


def lines(model: Model) -> list[str]:
    """What a person wants to know of a trained model."""
    found = model.metrics
    made = [
        f"score {found['score']:.1f} (normalised), return {found['return_mean']:.5g}"
        f" +- {found['return_std']:.3g} over the episodes",
        f"{found['parameters']:.0f} parameters; {found['targets']:.0f} actions learned from",
    ]
    if found.get("success") is not None and found["success"] == found["success"]:
        made.insert(1, f"success in {100 * found['success']:.0f} % of the episodes")
    return made


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: expected KEY=VALUE, e.g. context=5.")
        made[key.strip().removeprefix("evaluate.")] = yaml.safe_load(value)
    return made


def _number(text: str | float) -> str | float:
    """A number where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text
