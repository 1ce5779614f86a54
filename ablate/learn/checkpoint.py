"""Checkpoints in safetensors: a policy's parameters, and the state of a training that was interrupted."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ablate.errors import UserError
from ablate.learn.objective import Objective


@dataclass
class Trained:
    """What `on_point` gave at each point, as (update, that); which policies diverged and at which update."""

    points: list[tuple[int, Any]] = field(default_factory=list)
    diverged: dict[int, str] = field(default_factory=dict)


def save_policy(path: Path, state: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write parameters with the resolved configuration in the file's metadata; whole or not at all."""
    _write(path, {name: value.detach().contiguous() for name, value in state.items()}, about)


def load_policy(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parameters and configuration. Raises UserError when the file is missing or no checkpoint."""
    tensors, about = _read(path)
    return tensors, about


def save_training_state(
    path: Path,
    objective: Objective,
    seeds: Sequence[int],
    update: int,
    first_loss: Tensor | None,
    result: Trained,
) -> None:
    """Parameters, moments of the optimisers and progress, in one file replaced atomically."""
    tensors = objective.state_tensors()
    if first_loss is not None:
        tensors["first_loss"] = first_loss
    about = {
        "seeds": list(seeds),
        "update": update,
        "points": result.points,
        "diverged": {str(k): v for k, v in result.diverged.items()},
    }
    _write(path, tensors, about)


def load_training_state(
    path: Path, objective: Objective, seeds: Sequence[int], result: Trained
) -> tuple[int, Tensor | None]:
    """Put a saved state back; returns the next update and the first loss.

    Raises UserError when the file was written for other seeds or another algorithm, or is damaged.
    """
    tensors, about = _read(path)
    if "update" not in about:
        raise UserError(f"{path}: is not a checkpoint of a training; delete it to start anew.")
    if about["seeds"] != list(seeds):
        raise UserError(
            f"{path}: holds seeds {about['seeds']}, not {list(seeds)}; delete it to start anew."
        )
    try:
        objective.load_state_tensors(tensors)
    except KeyError as error:
        raise UserError(
            f"{path}: holds no {error}, so another algorithm wrote it; delete it to start anew."
        ) from None
    result.points.extend((update, found) for update, found in about["points"])
    result.diverged.update({int(k): v for k, v in about["diverged"].items()})
    first_loss = tensors.get("first_loss")
    if first_loss is not None:
        first_loss = first_loss.to(objective.device)
    return int(about["update"]), first_loss


def _write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(temporary), metadata={"about": json.dumps(about, sort_keys=True)})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error}).") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint.")
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: is not a checkpoint of ablate, or is damaged ({error})."
        ) from error
