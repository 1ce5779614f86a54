"""One model, without a study: `train` a preset on a data set, `evaluate` what came of it.

It is a fit like any other (same system, same audit, same Sacred record), kept under `results/models/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate import trial
from ablate.analyse.descriptive import mean_interval
from ablate.config import assignment, complete, fit_part
from ablate.data import catalogue
from ablate.errors import UserError, unknown
from ablate.launch.audits import audit_model
from ablate.launch.run import check_device
from ablate.launch.work import CohortJob, MeasureJob, work
from ablate.learn.checkpoint import load_policy
from ablate.measure.acting import act, target_return
from ablate.measure.base import Trained
from ablate.registry import checked, get
from ablate.study.expand import Fit, Trial
from ablate.track.folder import StudyFolder
from ablate.track.store import COMPLETED, attempts

STUDY = "models"
COLUMNS = ("target", "episodes", "return", "SD", "score", "95 % interval", "median", "success")
ACTS = ("rollout", "plan")


@dataclass(frozen=True)
class Model:
    """A trained model: its checkpoint, what was measured, and whether it was there before."""

    checkpoint: Path
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
    """Train one configuration with one seed, and measure it; the same again is not trained twice.

    Goes on where an interrupted training stopped. Raises UserError for what the user has to mend, also
    when the model fails its audit or diverges.
    """
    check_device(device)
    for name in config["measure"]:
        if refusal := get("measurement", name).refusal(config):
            raise UserError(f"{refusal}.")
    content = catalogue.load(config["data"], cache).content_hash
    fit = Fit(STUDY, seed, fit_part(config), content)
    one = Trial(fit, dict(config), config["train"]["updates"])
    folder = StudyFolder(results / STUDY, STUDY)
    path = trial.checkpoint(folder.checkpoints, fit.id, one.budget)
    names = [fit.id, *one.rows.values()]
    with folder.lock():
        folder.register("", {config["data"]: content})
        done: dict[str, dict[str, Any]] = {
            a.trial_id: dict(a.result)
            for a in attempts(folder.runs, names)
            if a.status == COMPLETED
        }
        if all(name in done for name in names) and path.exists():
            return Model(path, _metrics(one, done), known=True)
        audit = audit_model(config)
        if not audit.passed:
            raise UserError(f"audit: {audit.name}: refused. {'; '.join(audit.findings)}")
        job = CohortJob(
            study=STUDY,
            streams=STUDY,
            cohort=fit.id,
            config=config,
            fits={seed: fit.id},
            wanted=() if fit.id in done else (seed,),
            measures=tuple(
                MeasureJob(name, one.budget, config["measure"][name], {seed: row}, (seed,))
                for name, row in one.rows.items()
                if row not in done
            ),
            runs=folder.runs,
            checkpoints=folder.checkpoints,
            cache=cache,
            device=device,
        )
        for found in work(job, report):
            if found.status != COMPLETED:
                raise UserError(f"{found.run_id}: {found.status.lower()}. {found.failure}".rstrip())
            done[found.trial_id] = found.result
    return Model(path, _metrics(one, done), known=False)


def _metrics(one: Trial, done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fit's sizes, and each measurement's responses by their qualified names."""
    made = dict(done[one.fit.id])
    for name, row in one.rows.items():
        made |= {f"{name}.{response}": value for response, value in done[row].items()}
    return made


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
    path: Path,
    cache: Path,
    targets: Sequence[str],
    episodes: int,
    overrides: Sequence[str],
    *,
    device: str = "cpu",
    video: Path | None = None,
) -> list[Score]:
    """Let a trained model act, once for each target (by default the one that it was trained for).

    path: its checkpoint, or a folder that holds one. overrides: options of acting, as KEY=VALUE; of a model
    that searched, options of its search. video: the file for a film of the first episode at the first
    target. Raises UserError for a folder without a checkpoint, and as the configuration does.
    """
    check_device(device)
    torch.set_num_threads(1)
    path = checkpoint(path)
    tensors, about = load_policy(path)
    streams, seed = str(about.pop("study")), int(about.pop("seed"))
    budget = int(about.pop("budget"))
    about.pop("width", None)
    name = next((n for n in ACTS if n in about["measure"]), ACTS[0])
    options = {**about["measure"].get(name, {}), "episodes": episodes, **_settings(overrides)}
    config = complete({**about, "measure": {name: options}}, str(path))
    system = trial.prepare(config, cache, device)
    model = system.model(streams, seed)
    model.load_state_dict(tensors)
    models = Trained(system, [model.eval()], streams, [seed], budget)
    measurement = get("measurement", name)
    scores = []
    for target in targets or [config["measure"][name]["target"]]:
        asked = target_return(system.data, _number(target))
        settings = {**config["measure"][name], "target": asked}
        chosen = checked(measurement.Options, settings, f"evaluate: measure.{name}")
        rollouts = act(models, chosen, measurement.settings(chosen), video)
        video = None
        returns = rollouts.returns[0]
        scores.append(
            Score(asked, returns, system.data.anchors.score(returns), rollouts.success[0])
        )
    return scores


def checkpoint(path: Path) -> Path:
    """The checkpoint at `path`: the file itself, or the one of most updates in a folder.

    Raises UserError when there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(
            f"evaluate {path}: there is no such checkpoint; `train` says where it put one."
        )
    found = [p for p in path.glob("*.safetensors") if p.stem.isdecimal()]
    if not found:
        raise UserError(
            f"evaluate {path}: it holds no checkpoint; allowed: a file of {STUDY}/checkpoints, or its folder."
        )
    return max(found, key=lambda p: int(p.stem))


def lines(model: Model) -> list[str]:
    """What a person wants to know of a trained model."""
    found = model.metrics
    made = [f"{found['parameters']:.0f} parameters; {found['targets']:.0f} actions learned from"]
    for name in ACTS:
        if f"{name}.score" not in found:
            continue
        reached = found.get(f"{name}.success")
        if reached is not None and reached == reached:
            made.insert(0, f"success in {100 * reached:.0f} % of the episodes")
        made.insert(
            0,
            f"score {found[f'{name}.score']:.1f} (normalised), return {found[f'{name}.return_mean']:.5g}"
            f" +- {found[f'{name}.return_std']:.3g} over the episodes",
        )
    return made


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for text in overrides:
        where, (*section, option), value = assignment(text)
        if section not in ([], *(["measure", name] for name in ACTS)):
            raise unknown(f"{where}: the part", ".".join(section), [f"measure.{n}" for n in ACTS])
        made[option] = value
    return made


def _number(text: str | float) -> str | float:
    """A number where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text
