"""How fast each shape of cohort trains on this machine, seeds as one stack and one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ablate import trial
from ablate.errors import UserError
from ablate.launch.audits import config_shape
from ablate.study import identity
from ablate.study.expand import Cohort
from ablate.study.schema import Study
from ablate.track import kept
from ablate.track.files import write_atomic
from ablate.track.folder import StudyFolder


def paces(
    study: Study,
    cohorts: Sequence[Cohort],
    folder: StudyFolder,
    cache: Path,
    device: str,
    say: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Seconds an update and seed, stacked and single, of each shape of cohort on this machine.

    Measured once and kept, so that a study which is taken up again trains each cohort in the same way.
    """
    known = kept.ways(folder)
    for cohort in cohorts:
        key = shape_key(cohort, device)
        if key in known or cohort.config["model"]["dropout"] > 0:
            continue
        say(f"measuring {cohort.config['mixer']} K={cohort.config['context']}")
        try:
            system = trial.prepare(cohort.trials[0].config, cache, device)
            known[key] = trial.pace(system, cohort.trials[0].fit.streams, list(cohort.seeds))
        except UserError:
            raise
        except Exception:  # such a trial fails when it is run, which says why and stops no other
            continue
    write_atomic(kept.ways_file(folder), json.dumps(known, indent=1, sort_keys=True) + "\n")
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
