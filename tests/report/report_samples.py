"""A plausible tidy table of a study, its curves, an audit and yardsticks, from a fixed seed in
milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.report.results import Results
from ablate.study import expand, identity
from ablate.study.registration import declared, entered
from ablate.study.schema import Study

STUDY = """\
study: small
question: Does memory help, or 50 % of it & the rest_of {this}?
factors:
  mixer: [attention, gru, mlp, bag]
  context: [1, 5, 20]
  condition: [none, time, return-to-go+time]
  history: [states+actions]
  head: [mse, mixture]
data: [lq-mix/episode, lq-mix/single, tmaze/passive-20]
designs:
  core: {data: [lq-mix/episode, lq-mix/single], mixer: all, context: [1, 5, 20], condition: [time,
  return-to-go+time]}
  heads: {data: lq-mix/episode, mixer: [gru, mlp], context: [1, 20], condition: time, head: mixture}
  cue: {why: Positive control., data: tmaze/passive-20, mixer: all, context: [1, 20]}
model: {parameters: 16000, tolerance: 0.05}
seeds: 3
margin: 3
profiles:
  quick: {seeds: 2, designs: {heads: null, cue: null}}
  standard: {}
hypotheses:
  - id: memory
    says: Memory helps by more than the margin where policies are mixed by episode.
    contrast: context[20] - context[1]
    where: {data: lq-mix/episode, condition: time, head: mse}
    test: superiority
    threshold: 3
    primary: true
  - id: P1
    says: With a single policy memory doesn't matter to any architecture.
    contrast: context[20] - context[1]
    where: {data: lq-mix/single, condition: time, head: mse}
    each: mixer
    test: equivalence
    primary: true
  - id: P-4_b
    says: Asking for the return removes at least 80 % of it.
    contrast: "(context[1] - context[20]) : (0.2 condition[time] - condition[return-to-go+time])"
    where: {data: lq-mix/episode, head: mse}
    metric: action_error
    test: superiority
  - id: pairs
    says: Any two mixers agree.
    contrast: each pair of mixer
    where: {data: lq-mix/episode, context: 20, condition: time, head: mse}
    test: equivalence
  - id: cue
    says: The cue is remembered.
    contrast: context[20]
    where: {data: tmaze/passive-20}
    test: superiority
    threshold: 80
    family: controls
"""


def hashes(study: Study) -> dict[str, str]:
    """A made-up content hash for every data set."""
    return {name: identity.digest(name) for name in study.data}


def registration(study: Study) -> dict[str, Any]:
    """What study.json would hold after a first run."""
    return {
        "format": 1,
        "study": study.study,
        "study_hash": identity.study_hash(study),
        "registered": "2026-01-02T03:04:05+00:00",
        **entered({}, declared(study), 0, "2026-01-02T03:04:05+00:00"),
        "data": hashes(study),
    }


def table(study: Study) -> pd.DataFrame:
    """One row a trial of the study at its profile, with one failed trial."""
    rng = np.random.default_rng(7)
    dotted = [name for name in study.factors if "." in name]
    rows = []
    for index, trial in enumerate(expand.trials(study, hashes(study))):
        config = trial.config
        levels = {
            n: config[n] for n in ("data", "mixer", "context", "condition", "history", "head")
        }
        rows.append(
            {
                "trial": trial.id,
                "fit": trial.fit.id,
                "status": "COMPLETED",
                **levels,
                "budget": trial.budget,
                "seed": trial.seed,
                **{name: expand.lookup(config, name) for name in dotted},
                **_metrics(rng, levels),
                "failure": "",
            }
        )
        if index == 4:
            numbers = {k: float("nan") for k in _metrics(rng, levels)}
            failure = "loss is NaN at update 130 (last good checkpoint kept)"
            rows[-1] |= {**numbers, "status": "FAILED", "failure": failure}
    return pd.DataFrame(rows)


def _metrics(rng: np.random.Generator, levels: dict[str, Any]) -> dict[str, float]:
    memory = float(np.log(levels["context"]) / np.log(20))
    asked = levels["condition"] in ("return-to-go", "return-to-go+time", "policy-id")
    base, gain, error = 95.0, 0.0, 1.25
    if levels["data"].startswith("lq-mix/episode"):
        base, gain = (
            (101.0, 0.0) if asked else (50.0, 17.0 if levels["condition"] == "time" else 29.0)
        )
        error = 0.2 if asked else 1.0 - 0.55 * memory
        gain *= 0.35 if levels["head"] != "mse" else 1.0
    elif levels["data"].startswith("tmaze"):
        base, gain = 50.0, 49.0
    elif "mask" in levels["data"]:
        base, gain = 40.0, 45.0
    if levels["mixer"] == "bag":
        gain *= 0.6
    score = base + gain * memory + rng.normal(0, 1.5)
    return {
        "rollout.score": score,
        "rollout.return_mean": 3 * score - 200,
        "rollout.return_std": 90.0 + rng.normal(0, 3.0),
        "rollout.success": score / 100 if levels["data"].startswith("tmaze") else float("nan"),
        "held-out.action_error": error * rng.uniform(0.97, 1.03),
        "held-out.action_error_early": 1.1 * error * rng.uniform(0.95, 1.05),
        "parameters": float(16000 + 40 * len(levels["mixer"])),
        "parameter_mismatch": 0.25 * len(levels["mixer"]),
        "targets": 102400.0,
    }


def curves(rows: pd.DataFrame, points: int = 8) -> pd.DataFrame:
    """Falling losses for every finished trial."""
    rng = np.random.default_rng(11)
    out = []
    for trial in rows.loc[rows["status"] == "COMPLETED", "trial"]:
        floor = rng.uniform(0.3, 0.5)
        for point in range(1, points + 1):
            loss = floor + float(np.exp(-point / 2)) + rng.normal(0, 0.01)
            out.append(
                {
                    "trial": trial,
                    "update": 100 * point,
                    "train_loss": loss,
                    "heldout_loss": loss + 0.05,
                }
            )
    return pd.DataFrame(out)


def yardsticks() -> pd.DataFrame:
    """Error of the exact posterior for the mixtures."""
    out = []
    for name, floor in (("lq-mix/episode", 0.08), ("lq-mix/step", 1.2)):
        for context in (1, 5, 20):
            fall = 0.8 / context if name.endswith("episode") else 0.0
            early = floor + 1.1 * fall
            out.append(
                {
                    "data": name,
                    "context": context,
                    "action_error": floor + fall,
                    "action_error_early": early,
                }
            )
    return pd.DataFrame(out)


def audits(mixers: tuple[str, ...] = ("attention", "bag", "gru", "mlp")) -> list[dict[str, Any]]:
    """Records as `Audit.record` gives them; the MLP is caught looking at the future."""
    lags = list(range(-2, 24))
    fields = {
        "observation": 0,
        "action": 1,
        "reward": 99,
        "return-to-go": 0,
        "time": 0,
        "policy-id": 99,
    }
    out = []
    for context in (5, 20):
        for mixer in mixers:
            strips = {
                field: [0.3 * 0.8**lag if first <= lag < context else 0.0 for lag in lags]
                for field, first in fields.items()
            }
            if mixer == "mlp":
                strips["return-to-go"][1] = 0.1
            out.append(
                {
                    "mixer": mixer,
                    "context": context,
                    "history": "states+actions",
                    "condition": "return-to-go+time",
                    "head": "mse",
                    "passed": mixer != "mlp",
                    "findings": ["future: return-to-go at lag -1"] if mixer == "mlp" else [],
                    "lags": lags,
                    "declared": {
                        f: [k for k in lags if a <= k < context] for f, a in fields.items()
                    },
                    "influence": {"training": strips, "acting": strips},
                }
            )
    return out


def results(study: Study, rows: pd.DataFrame | None = None, **parts: Any) -> Results:
    """The results of the study with its sample table, or with `rows`."""
    found = table(study) if rows is None else rows
    return Results(study=study, table=found, registration=registration(study), **parts)


def write_study(folder: Path) -> Path:
    """The small study as a file."""
    path = folder / "small.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path
