"""Checkpoints in safetensors: a policy's parameters, and the state of a training that was interrupted.

Each carries the hash of what was written, so that a changed digit is noticed, and every field is checked before a
model is made of it: a file that is damaged, or of another program, ends in one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ablate.config import TOKENS, Config, complete
from ablate.errors import UserError
from ablate.learn.objective import Objective

MOST = 100_000  # tensors in a file
LONGEST = 1 << 16  # timesteps of a context
COUNT = 10**9  # of anything else
TEXTS = ("data", "mixer", "condition", "history", "head", "algorithm", "layout", "input", "preset")
SIZES = ("width", "layers", "heads", "bins", "timesteps")  # of which a model has tensors


@dataclass
class Trained:
    """What `on_point` gave at each point, as (update, that); which policies diverged and at which update."""

    points: list[tuple[int, Any]] = field(default_factory=list)
    diverged: dict[int, str] = field(default_factory=dict)


def save_policy(path: Path, state: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write parameters with the resolved configuration in the file's metadata; whole or not at all."""
    _write(path, {name: value.detach().contiguous() for name, value in state.items()}, about)


def load_policy(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parameters and configuration. Raises UserError when the file is missing, damaged or no checkpoint."""
    return _read(path)


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself: configuration, name of the random streams, seed, updates."""

    config: Config
    streams: str
    seed: int
    budget: int


def described(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Description:
    """The description that lies beside the tensors, every field checked.

    Raises UserError for a field that is missing or isn't what it should be, and for a size that these tensors can't
    have, before anything is made of it.
    """

    def whole(name: str, least: int, most: int = 1 << 63) -> int:
        value = about.get(name)
        if type(value) is not int or not least <= value < most:
            raise _field(path, name, value, f"a whole number, {least} or more")
        return value

    for name in TEXTS:
        if not isinstance(about.get(name), str):
            raise _field(path, name, about.get(name), "a text")
    for name in ("model", "train", "settings", "measure", "reading"):
        if not isinstance(about.get(name), dict):
            raise _field(path, name, about.get(name), "a mapping")
    for name, options in about["measure"].items():
        if not isinstance(options, dict):
            raise _field(path, f"measure.{name}", options, "a mapping")
    if not isinstance(about.get("study"), str):
        raise _field(path, "study", about.get("study"), "a text")
    seed, budget = whole("seed", 0), whole("budget", 1)
    given = whole("timesteps", 0, LONGEST)
    if not (given and TOKENS.fullmatch(str(about.get("context")))):
        whole("context", 1, LONGEST)
    shapes = [size for each in tensors.values() for size in each.shape]
    sections = ("model", "settings", "train", "measure", "reading")
    _bounded(path, {name: about[name] for name in sections}, max([len(tensors), *shapes]))
    left = ("study", "seed", "budget", "width")
    try:
        config = complete({k: v for k, v in about.items() if k not in left}, str(path))
    except UserError as error:  # what it quotes is the file's, of any length
        text = " ".join(str(error).split())
        raise UserError(text if len(text) < 500 else f"{text[:400]} ... {text[-90:]}") from error
    return Description(config, about["study"], seed, budget)


def _bounded(path: Path, section: Mapping[str, Any], largest: int, where: str = "") -> None:
    """Raises UserError for a size of the model above `largest`, and for any count above COUNT, at any depth."""
    for name, value in section.items():
        here = f"{where}.{name}".lstrip(".")
        if isinstance(value, dict):
            _bounded(path, value, largest, here)
        elif (
            name in SIZES
            and here.startswith(("model.", "settings."))
            and isinstance(value, int | float)
            and value > largest
        ):
            raise _field(path, here, value, f"at most {largest}, by the tensors it holds")
        elif type(value) is int and abs(value) > COUNT:
            raise _field(path, here, value, f"at most {COUNT}")


def _field(path: Path, name: str, found: object, allowed: str) -> UserError:
    shown = "nothing" if found is None else f"'{' '.join(str(found).split())[:60]}'"
    return UserError(f"{path}: {name}: found {shown}; allowed: {allowed}.")


def put(path: Path, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Lay the parameters of the checkpoint at `path` into the model.

    Raises UserError unless they are the model's, each of its shape and type, and finite.
    """
    wanted = model.state_dict()
    if wanted.keys() != tensors.keys():
        name = min(wanted.keys() ^ tensors.keys())
        less = "lacks" if name in wanted else "holds"
        raise UserError(f"{path}: it {less} '{name[:80]}', so it is of another model.")
    for name, value in tensors.items():
        _check(path, name, value, wanted[name])
        if not (torch.isfinite(value) | (value == wanted[name])).all():
            raise UserError(f"{path}: '{name[:80]}' holds NaN, or infinite numbers.")
    model.load_state_dict(dict(tensors))


def _check(path: Path, name: str, value: Tensor, wanted: Tensor) -> None:
    """Raises UserError unless a tensor has the shape and type of another."""
    if value.shape != wanted.shape or value.dtype != wanted.dtype:
        found, allowed = (
            f"{str(each.dtype).removeprefix('torch.')} {list(each.shape)}"
            for each in (value, wanted)
        )
        raise UserError(f"{path}: '{name[:80]}' is {found}; the model has {allowed}.")


def save_training_state(
    path: Path,
    objective: Objective,
    seeds: Sequence[int],
    update: int,
    first_loss: Tensor | None,
    result: Trained,
    between: Mapping[str, Tensor],
) -> None:
    """Parameters, moments of the optimisers and progress, in one file replaced atomically.

    between: what else the trainer needs to go on between two points of the learning curve; empty at a point.
    """
    tensors = objective.state_tensors() | {f"between/{name}": v for name, v in between.items()}
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
) -> tuple[int, Tensor | None, dict[str, Tensor]]:
    """Put a saved state back; returns the next update, the first loss and what was kept `between` two points.

    Raises UserError when the file was written for other seeds or another algorithm, or is damaged.
    """
    tensors, about = _read(path)
    if "update" not in about:
        raise UserError(f"{path}: is not a checkpoint of a training; delete it to start anew.")
    if about["seeds"] != list(seeds):
        raise UserError(
            f"{path}: holds seeds {about['seeds']}, not {list(seeds)}; delete it to start anew."
        )
    between = {
        name.removeprefix("between/"): tensors.pop(name)
        for name in sorted(tensors)
        if name.startswith("between/")
    }
    expected = objective.state_tensors()
    first_loss = tensors.get("first_loss")
    for name, value in tensors.items():
        if name in expected:  # before the first update an optimiser has no state yet
            _check(path, name, value, expected[name])
    try:
        objective.load_state_tensors(tensors)
    except KeyError as error:
        raise UserError(
            f"{path}: holds no {error}, so another algorithm wrote it; delete it to start anew."
        ) from None
    result.points.extend((update, found) for update, found in about["points"])
    result.diverged.update({int(k): v for k, v in about["diverged"].items()})
    if first_loss is not None:
        first_loss = first_loss.to(objective.device)
    return int(about["update"]), first_loss, between


def _write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(about, sort_keys=True)
        metadata = {"about": text, "sha256": _hash(text, tensors)}
        save_file(tensors, str(temporary), metadata=metadata)
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
            names, metadata = list(file.keys()), file.metadata() or {}
            if len(names) > MOST:
                raise ValueError(f"{len(names)} tensors")
            text = metadata["about"]
            tensors = {name: file.get_tensor(name) for name in names}
        found, about = _hash(text, tensors), json.loads(text)
        if metadata.get("sha256") != found:
            raise ValueError("what it holds isn't what was written: its hash is another")
        if not isinstance(about, dict):
            raise ValueError("it says nothing of its configuration")
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError,
            RuntimeError) as error:  # fmt: skip
        line = " ".join(str(error).split())[:160]
        raise UserError(
            f"{path}: is not a checkpoint of ablate, or is damaged ({line}); delete it, and train again."
        ) from error
    return tensors, about


def _hash(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Of the description and of every tensor: name, type, shape and bytes."""
    made = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        made.update(f"\n{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
        made.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()
