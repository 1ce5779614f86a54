"""One model, without a study: `train` a preset on a data set, `evaluate` what came of it.

It is a fit like any other (same system, same audit, same Sacred record), kept under `results/models/`.
"""

from __future__ import annotations

import math
import sys
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
from ablate.data.catalogue import PLAIN, DataSet
from ablate.errors import UserError, unknown
from ablate.launch.audits import audit_model
from ablate.launch.run import check_device
from ablate.launch.work import CohortJob, MeasureJob, work
from ablate.learn.checkpoint import Description, described, load_policy, put
from ablate.measure.acting import act, target_return
from ablate.measure.base import Measured, Trained, possible
from ablate.measure.openloop import Futures, OpenLoop
from ablate.registry import checked, get
from ablate.study.expand import Fit, Trial, in_timesteps
from ablate.systems import remarks
from ablate.track.folder import StudyFolder
from ablate.track.store import COMPLETED, attempts

STUDY = "models"
COLUMNS = ("target", "episodes", "return", "SD", "score", "95 % interval", "median", "success")
ACTS = ("rollout", "plan")


@dataclass(frozen=True)
class Model:
    """A trained model: its checkpoint, what was measured, and whether it was there before.

    remark: what can't be measured, and why. plain: no reference returns are known, so that scores are returns.
    split: how many episodes are held out, in words.
    """

    checkpoint: Path
    metrics: dict[str, Any]
    known: bool
    remark: str = ""
    plain: bool = False
    split: str = ""


def train(
    config: Mapping[str, Any],
    seed: int,
    results: Path,
    cache: Path,
    *,
    device: str = "cpu",
    report: Callable[[float, str], None] = lambda fraction, text: None,
    note: Callable[[str], None] = lambda line: None,
    streams: str = STUDY,
) -> Model:
    """Train one configuration with one seed, and measure it; the same again is not trained twice.

    note: told what hardly fits the data. streams: names the random streams. Goes on where an interrupted
    training stopped. Raises UserError for what the user has to mend, also when the model fails its audit or diverges.
    """
    check_device(device)
    spec = catalogue.spec(config["data"], config["reading"])
    measured, remark = possible(config["measure"], spec)
    config = in_timesteps({**config, "measure": measured})
    for name in measured:
        if refusal := get("measurement", name).refusal(config):
            raise UserError(f"{refusal}.")
    data = catalogue.load(config["data"], cache, config["reading"])
    content = data.content_hash
    about: dict[str, Any] = {
        "remark": remark,
        "plain": data.anchors == PLAIN,
        "split": _split(data),
    }
    fit = Fit(streams, seed, fit_part(config), content)
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
            return Model(path, _metrics(one, done), True, **about)
        for line in remarks(config, data):
            note(line)
        audit = audit_model(config)
        if not audit.passed:
            raise UserError(f"audit: {audit.name}: refused. {'; '.join(audit.findings)}")
        job = CohortJob(
            study=STUDY,
            streams=streams,
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
    return Model(path, _metrics(one, done), False, **about)


def _split(data: DataSet) -> str:
    """How many episodes are trained on and held out, in words."""
    trained, held = data.train.num_episodes, data.held_out.num_episodes
    if data.train.content_hash == data.held_out.content_hash:
        return f"all {trained} episodes trained on, so that prediction is measured on what was learned from"
    return f"{trained} episodes trained on, {held} held out"


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
    reading: Mapping[str, Any] | None = None,
    device: str = "cpu",
    video: Path | None = None,
) -> list[Score]:
    """Let a trained model act, once for each target (by default the one that it was trained for).

    path: its checkpoint, or a folder that holds one. overrides: options of acting, as KEY=VALUE; of a model
    that searched, options of its search. reading: laid over how its data were read. video: the file for a film
    of the first episode at the first target. Raises UserError for a folder without a checkpoint, for data without
    a simulator, and as the configuration does.
    """
    path, tensors, said = _opened(path, device)
    measured = said.config["measure"]
    name = next((n for n in ACTS if n in measured), ACTS[0])
    options = {**measured.get(name, {}), "episodes": episodes, **_settings(overrides)}
    models = _made(path, tensors, said, cache, {name: options}, reading, device)
    config = models.system.config
    asked_for = [_number(target) for target in targets] or [config["measure"][name]["target"]]
    measurement = get("measurement", name)
    scores = []
    for target in asked_for:
        asked = target_return(models.system.data, target)
        settings = {**config["measure"][name], "target": asked}
        chosen = checked(measurement.Options, settings, f"evaluate: measure.{name}")
        rollouts = act(models, chosen, measurement.settings(chosen), video)
        video = None
        returns = rollouts.returns[0]
        scores.append(
            Score(asked, returns, models.system.data.anchors.score(returns), rollouts.success[0])
        )
    return scores


def measure(
    path: Path,
    cache: Path,
    name: str,
    options: Mapping[str, Any],
    *,
    reading: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Measured:
    """One measurement of a trained model: its responses by name, and those that run over an index.

    path: its checkpoint, or a folder that holds one. options: laid over those that it was trained with. Raises
    UserError as `evaluate` does, and for a measurement that can't be had of this model.
    """
    get("measurement", name, f"measure {path}: the measurement")
    models = _asked(path, cache, name, options, reading, device)
    (found,) = trial.measure(models, name, models.system.config["measure"][name])
    return found


def imagine(path: Path, cache: Path, options: Mapping[str, Any], *, device: str = "cpu") -> Futures:
    """What a trained model imagines, the futures that the measurement `open-loop` sums up; as of `measure`."""
    models = _asked(path, cache, "open-loop", options, None, device)
    asked = OpenLoop.Options.model_validate(models.system.config["measure"]["open-loop"])
    (found,) = OpenLoop.futures(models, asked)
    return found


def _asked(
    path: Path,
    cache: Path,
    name: str,
    options: Mapping[str, Any],
    reading: Mapping[str, Any] | None,
    device: str,
) -> Trained:
    """The model of a checkpoint, to be measured once, with options laid over those that it was trained with."""
    path, tensors, said = _opened(path, device)
    asked = {name: {**said.config["measure"].get(name, {}), **options}}
    return _made(path, tensors, said, cache, asked, reading, device)


def _opened(path: Path, device: str) -> tuple[Path, dict[str, torch.Tensor], Description]:
    """The checkpoint at `path`, what it holds and what it says of it."""
    check_device(device)
    torch.set_num_threads(1)
    path = checkpoint(path)
    tensors, about = load_policy(path)
    return path, tensors, described(path, tensors, about)


def _made(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    said: Description,
    cache: Path,
    measured: Mapping[str, Mapping[str, Any]],
    reading: Mapping[str, Any] | None,
    device: str,
) -> Trained:
    """The model of an opened checkpoint, to be measured as `measured` says."""
    read = {**said.config["reading"], **(reading or {})}
    if "environment" not in (reading or {}):
        _refuse_import(path, read)
    config = complete({**said.config, "reading": read, "measure": measured}, f"evaluate {path}")
    _, why = possible(config["measure"], catalogue.spec(config["data"], config["reading"]))
    refusals = (get("measurement", name).refusal(config) for name in measured)
    if why := why or next(filter(None, refusals), ""):
        raise UserError(f"evaluate {path}: {why}")
    try:
        system = trial.prepare(config, cache, device)
        if system.matched.parameters > sum(each.numel() for each in tensors.values()):
            raise ValueError(f"it would have {system.matched.parameters} parameters")
        model = system.model(said.streams, said.seed)
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: it doesn't describe the model that it holds ({line}).") from error
    put(path, tensors, model)
    return Trained(system, [model.eval()], said.streams, [said.seed], said.budget)


def _refuse_import(path: Path, reading: Mapping[str, Any]) -> None:
    """Raises UserError where a checkpoint names a package to be imported (`package:ID`) that isn't already."""
    named = str(reading.get("environment") or "")
    package = named.rpartition(":")[0]
    if package and package not in sys.modules:
        raise UserError(
            f"{path}: it acts in {named[:80]}, and no file may say what is imported; --plugin {package[:80]} does."
        )


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
    made = [
        f"{found['parameters']:.0f} parameters; {found['targets']:.0f} actions learned from",
        model.split,
    ]
    if model.remark:
        made = [model.remark, *_predicted(found), *made]
    for name in ACTS:
        if f"{name}.score" not in found:
            continue
        reached = found.get(f"{name}.success")
        if reached is not None and reached == reached:
            made.insert(0, f"success in {100 * reached:.0f} % of the episodes")
        score = f"score {found[f'{name}.score']:.1f} (normalised), "
        made.insert(
            0,
            f"{'' if model.plain else score}return {found[f'{name}.return_mean']:.5g}"
            f" +- {found[f'{name}.return_std']:.3g} over the episodes",
        )
        if model.plain:
            made.insert(1, f"not normalised: {PLAIN.source}; --random and --expert name them")
    return made


def _predicted(found: Mapping[str, Any]) -> list[str]:
    """What is known of prediction in held-out episodes, a line each."""
    return [
        f"{response.said} {value:.4g} {response.unit}".rstrip()
        for response in get("measurement", "held-out").responses
        if (value := found.get(f"held-out.{response.name}")) is not None and value == value
    ]


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for text in overrides:
        where, (*section, option), value = assignment(text)
        if section not in ([], *(["measure", name] for name in ACTS)):
            raise unknown(f"{where}: the part", ".".join(section), [f"measure.{n}" for n in ACTS])
        made[option] = value
    return made


def _number(text: str) -> str | float:
    """The target that a text names: a number where it is one. Raises UserError for one that isn't finite."""
    try:
        found = float(text)
    except ValueError:
        return text
    if not math.isfinite(found):
        raise UserError(f"--target {text}: allowed: a finite number, or p0 ... p100.")
    return found
