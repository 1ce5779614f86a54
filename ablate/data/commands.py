"""What the `data` commands do, without a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablate import registry
from ablate.data import catalogue
from ablate.data.collect import collect, concatenate
from ablate.data.formats import files
from ablate.data.reading import checked
from ablate.data.split import HELD_OUT
from ablate.data.stable_baselines import StableBaselines
from ablate.data.trajectories import Trajectories
from ablate.data.trusted import Trusted
from ablate.envs.gymnasium_env import Gymnasium, action_space
from ablate.errors import UserError, unknown

POLICIES = ("sb3",)
TRUSTED = (
    "is unpickled now, which runs whatever code the file holds, with your rights, on this machine."
)


def is_name(text: str) -> bool:
    """Whether a text names a data set of the catalogue rather than a file."""
    family, slash, _ = text.partition("/")
    return bool(slash) and family in registry.names("data") and not os.path.exists(text)


def whole(name: str, cache: Path, reading: Mapping[str, Any] | None = None) -> Trajectories:
    """All episodes of a data set of the catalogue: the training part's, then those held out."""
    data = catalogue.load(name, cache, {**(reading or {}), "held_out": HELD_OUT})
    return concatenate(name, [data.train, data.held_out])


def convert(
    source: str,
    target: Path,
    format: str,
    cache: Path,
    overwrite: bool,
    reading: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write a data set of the catalogue, or any readable file, in another format; returns remarks.

    reading: how a file is read (`ablate.data.reading`); what it says of environment and reference returns is
    written into the new file. Raises UserError when the source can't be had or the target can't be written.
    """
    if not is_name(source):
        said = checked(reading or {})
        return files.convert(Path(source), target, format, reading=said, overwrite=overwrite)
    check_target(target, format, overwrite)
    data = catalogue.spec(source, reading)
    about = {f"recipe_{key}": str(value) for key, value in data.recipe.items()}
    every = whole(source, cache, reading)
    files.write(target, every, format, environment=data.name, about=about, overwrite=overwrite)
    return []


def collect_with(
    policy: str,
    environment: str,
    steps: int,
    target: Path,
    *,
    horizon: int | None = None,
    format: str = "hdf5",
    normaliser: Path | None = None,
    deterministic: bool = False,
    trust_code: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda steps: None,
) -> Trajectories:
    """Collect whole episodes with a policy of the user's (`sb3:FILE.zip`) in a gymnasium environment.

    trust_code: let stable-baselines3 unpickle the policy, which runs whatever code it holds.

    The target appears whole, at the end. Raises UserError for a policy or an environment that can't
    be had, or a target that can't be written.
    """
    kind, _, file = policy.partition(":")
    if kind not in POLICIES or not file:
        raise UserError(f"--policy {policy}: allowed: sb3:FILE.zip.")
    if steps < 1:
        raise UserError(f"--steps {steps}: allowed: 1 or more.")
    check_target(target, format, overwrite)
    space = action_space(environment)
    reader = Trusted if trust_code else StableBaselines
    behaviour = reader(Path(file), space, normaliser, deterministic)
    name = f"{environment}/{Path(file).stem}/seed-{seed}"
    made = collect(
        name,
        "train",
        lambda num_envs: Gymnasium(num_envs, environment, horizon),
        behaviour,
        steps,
        progress=progress,
    ).validate()
    about = {
        "policy": Path(file).name,
        "deterministic": str(deterministic),
        "seed": seed,
        "collector": "ablate data collect",
    }
    files.write(target, made, format, environment=environment, about=about, overwrite=overwrite)
    return made


def check_target(target: Path, format: str, overwrite: bool) -> None:
    """Refuse, before any work, what could not be written after it."""
    if format not in files.FORMATS:
        raise unknown("--format", format, files.FORMATS)
    if target.exists() and not overwrite:
        raise UserError(f"{target}: is there already; --overwrite replaces it.")
