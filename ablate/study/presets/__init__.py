"""Presets: published methods as configurations of the same parts, one page of YAML each.

A preset holds the keys of a configuration (`ablate.config`) but the data set, with the source of each
value beside it, and besides:

    about: one line, which `python -m ablate train --help` shows
    by_data: {PATTERN: {...}}    changes for the data sets whose name matches the pattern (as in a shell)

Every pattern that matches is laid over the preset, in the order of the file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from ablate import yaml_text
from ablate.config import SECTIONS, assignment, complete
from ablate.errors import UserError, unknown

EXTRA = ("about", "by_data")


def names() -> list[str]:
    """The presets that come with `ablate`, sorted."""
    found = resources.files(__name__).iterdir()
    return sorted(Path(file.name).stem for file in found if file.name.endswith(".yaml"))


def about(name: str) -> str:
    """The preset's one line."""
    return str(read(name)["about"])


def read(preset: str, folder: Path = Path()) -> dict[str, Any]:
    """A preset's content: of that name, or of a file of the user's that ends in .yaml, by its path from `folder`.

    Raises UserError for an unknown name or a file that isn't a preset.
    """
    where = f"--preset {preset}"
    try:
        if preset.endswith(".yaml"):
            found = yaml_text.read(folder / preset).plain()
        elif preset in names():
            path = resources.files(__name__) / f"{preset}.yaml"
            found = yaml_text.load(path.read_text(encoding="utf-8"))
        else:
            raise unknown("--preset", preset, (*names(), "or a file that ends in .yaml"))
    except FileNotFoundError:
        raise UserError(f"{where}: there is no such file.") from None
    except yaml_text.Unreadable as error:
        line = "" if error.line is None else f", line {error.line}"
        raise UserError(f"{where}{line}: {error}.") from None
    if not isinstance(found, dict):
        raise UserError(f"{where}: it holds no keys with values.")
    return found


def configuration(
    preset: str,
    data: str,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    folder: Path = Path(),
) -> dict[str, Any]:
    """The complete configuration of a preset on a data set.

    folder: where the path of a preset of the user's begins. changes: keys of a configuration laid over the preset's;
    then overrides such as train.updates=1000.

    Raises UserError for a preset or an override that says what a configuration doesn't have.
    """
    where = f"preset {preset}"
    made = read(preset, folder)
    by_data = made.get("by_data") or {}
    if not isinstance(by_data, Mapping) or not all(
        isinstance(v, Mapping) for v in by_data.values()
    ):
        raise UserError(f"{where}: by_data: allowed: patterns of data sets, with keys and values.")
    for pattern, special in by_data.items():
        if fnmatchcase(data, pattern):
            made = _laid(made, special)
    made = {name: value for name, value in made.items() if name not in EXTRA} | {"data": data}
    made = _laid(made, changes or {})
    for text in overrides:
        said, parts, found = assignment(text)
        known = (*SECTIONS, "settings", "measure")
        if len(parts) > 1 and parts[0] not in known:
            raise unknown(f"{said}: the part", parts[0], known)
        if len(parts) > (3 if parts[0] == "measure" else 2):
            raise UserError(f"{said}: there is no such setting; allowed: e.g. train.updates=1000.")
        for part in reversed(parts):
            found = {part: found}
        made = _laid(made, found)
    return complete(made, where)


def _laid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `under`: mappings merge, all else replaces."""
    made = copy.deepcopy(dict(under))
    for name, value in over.items():
        if isinstance(value, Mapping) and isinstance(made.get(name), dict):
            made[name] = _laid(made[name], value)
        else:
            made[name] = copy.deepcopy(value)
    return made
