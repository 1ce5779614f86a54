"""How fast each shape of cohort trains on this machine: for the time that is foretold, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ablate import trial
from ablate.errors import UserError
from ablate.launch.audits import config_shape
from ablate.study import identity
from ablate.study.expand import Cohort
from ablate.track import kept
from ablate.track.files import write_atomic
from ablate.track.folder import StudyFolder


def paces(
    cohorts: Sequence[Cohort],
    folder: StudyFolder,
    cache: Path,
    device: str,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Seconds an update and seed of each shape of cohort on this machine; measured once and kept."""
    known = kept.paces(folder)
    for cohort in cohorts:
        key = shape_key(cohort, device)
        if key in known:
            continue
        say(f"measuring {cohort.config['mixer']} K={cohort.config['context']}")
        try:
            system = trial.prepare(cohort.trials[0].config, cache, device)
            known[key] = trial.pace(system, cohort.trials[0].fit.streams, list(cohort.seeds))
        except UserError:
            raise
        except Exception:  # such a trial fails when it is run, which says why and stops no other
            continue
    write_atomic(kept.paces_file(folder), json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known


def shape_key(cohort: Cohort, device: str) -> str:
    """What the speed of a cohort depends on."""
    config = cohort.config
    shape = config_shape(config)
    return " ".join(
        str(part)
        for part in (
            config["mixer"],
            f"K={config['context']}",
            config["head"],
            f"S={len(cohort.seeds)}",
            f"P={config['model']['parameters']}",
            f"N={config['train']['targets_per_update']}",
            config["train"]["loss"],
            device,
            *([identity.digest(shape)] if shape else []),
        )
    )
