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

import yaml

from ablate.config import SECTIONS, complete
from ablate.errors import UserError, unknown

EXTRA = ("about", "by_data")


def names() -> list[str]:
    """The presets that come with `ablate`, sorted."""
    found = resources.files(__name__).iterdir()
    return sorted(Path(file.name).stem for file in found if file.name.endswith(".yaml"))


def about(name: str) -> str:
    """The preset's one line."""
    return str(read(name)["about"])


def read(preset: str) -> dict[str, Any]:
    """A preset's content: of that name, or of a file of the user's that ends in .yaml.

    Raises UserError for an unknown name or a file that isn't a preset.
    """
    if preset.endswith(".yaml"):
        path = Path(preset)
        if not path.is_file():
            raise UserError(f"--preset {preset}: there is no such file.")
        text = path.read_text(encoding="utf-8")
    elif preset in names():
        text = (resources.files(__name__) / f"{preset}.yaml").read_text(encoding="utf-8")
    else:
        raise unknown("--preset", preset, (*names(), "or a file that ends in .yaml"))
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise UserError(f"--preset {preset}: it is no YAML ({line}).") from None
    if not isinstance(found, dict):
        raise UserError(f"--preset {preset}: it holds no keys with values.")
    return found


def configuration(
    preset: str,
    data: str,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The complete configuration of a preset on a data set.

    changes: keys of a configuration laid over the preset's; then overrides such as train.updates=1000.

    Raises UserError for a preset or an override that says what a configuration doesn't have.
    """
    where = f"preset {preset}"
    made = read(preset)
    for pattern, special in (made.get("by_data") or {}).items():
        if fnmatchcase(data, pattern):
            made = _laid(made, special)
    made = {name: value for name, value in made.items() if name not in EXTRA} | {"data": data}
    made = _laid(made, changes or {})
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts) or len(parts) > (3 if parts[0] == "measure" else 2):
            raise UserError(f"--set {text}: expected KEY=VALUE, e.g. train.updates=1000.")
        known = (*SECTIONS, "settings", "measure")
        if len(parts) > 1 and parts[0] not in known:
            raise unknown(f"--set {text}: the part", parts[0], known)
        try:
            found = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text}: '{value}' is no YAML value.") from None
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
