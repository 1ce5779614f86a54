"""A YAML file that remembers the line of everything it says, so that a refusal can point at it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate import yaml_text
from ablate.config import assignment
from ablate.errors import UserError, unknown
from ablate.study import shipped
from ablate.yaml_text import Node, Unreadable

Key = tuple[str | int, ...]
SETTABLE = ("model", "train", "settings", "measure", "seeds", "streams")


@dataclass(frozen=True)
class Source:
    """A parsed file: its content and where each part of it stands ("FILE:LINE", or the override's
    text)."""

    file: str
    tree: dict[str, Any]
    places: dict[Key, str]

    def place(self, key: Key) -> str:
        """Where `key` stands; the nearest enclosing part when it is not written itself."""
        for length in range(len(key), -1, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return self.file

    def refuse(self, key: Key, message: str) -> UserError:
        """The refusal that starts with the place of `key`."""
        return UserError(f"{self.place(key)}: {message}")

    def unknown(self, key: Key, what: str, found: object, allowed: Iterable[object]) -> UserError:
        """The refusal of a name at `key`, with the nearest known one."""
        return unknown(f"{self.place(key)}: {what}", found, allowed)

    def merged(self, profile: str) -> Source:
        """This file with `profiles.<profile>` laid over it: mappings merge, all else replaces,
        null drops a design."""
        tree = {k: copy.deepcopy(v) for k, v in self.tree.items() if k != "profiles"}
        places = {k: v for k, v in self.places.items() if k[:1] != ("profiles",)}
        changes = (self.tree.get("profiles") or {}).get(profile) or {}
        root: Key = ("profiles", profile)
        self._lay(tree, places, changes, root, ())
        return Source(self.file, tree, places)

    def _lay(
        self,
        tree: dict[str, Any],
        places: dict[Key, str],
        changes: dict[str, Any],
        root: Key,
        at: Key,
    ) -> None:
        for name, value in changes.items():
            key = (*at, name)
            here = root + key
            if value is None:
                if key[0] != "designs" or len(key) == 1:
                    raise self.refuse(
                        here,
                        f"'{name}' is null; null only drops a design or a factor of one.",
                    )
                if name not in tree:
                    raise self.unknown(here, "null drops nothing", name, tree)
                del tree[name]
                _forget(places, key)
            elif isinstance(value, dict) and isinstance(tree.get(name), dict):
                self._lay(tree[name], places, value, root, key)
            else:
                tree[name] = copy.deepcopy(value)
                _forget(places, key)
                for written, place in self.places.items():
                    if written[: len(here)] == here:
                        places[written[len(root) :]] = place

    def overridden(self, text: str) -> Source:
        """This file with one `--set train.updates=1000` laid over it.

        Raises UserError when `text` is not of the form KEY=VALUE or the path is not one that may
        be set.
        """
        where, names, value = assignment(text)
        if names[0] not in SETTABLE:
            raise unknown(where, names[0], SETTABLE)
        tree, places = copy.deepcopy(self.tree), dict(self.places)
        inner = tree
        for name in names[:-1]:
            if inner.get(name) is None:
                inner[name] = {}
            inner = inner[name]
            if not isinstance(inner, dict):
                raise UserError(f"{where}: '{name}' holds no values of its own.")
        inner[names[-1]] = value
        _forget(places, tuple(names))
        for length in range(1, len(names)):  # what the file itself doesn't have stands there too
            places.setdefault(tuple(names[:length]), where)
        places[tuple(names)] = where
        return Source(self.file, tree, places)


def read(path: Path) -> Source:
    """Parse a study file.

    Raises UserError for a missing file, or what `yaml_text` can't read, or a file that is no mapping.
    """
    try:
        node = yaml_text.read(path)
    except FileNotFoundError as error:
        near = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        if shipped.can_name(path):
            near += shipped.names()
        if near:
            raise unknown("there is no study file", str(path), near) from error
        raise UserError(f"{path}: there is no such study file.") from error
    except Unreadable as error:
        line = "" if error.line is None else f":{error.line}"
        raise UserError(f"{path}{line}: {error}.") from None
    if not node.entries:
        raise UserError(f"{path}:1: a study file is a mapping that starts with 'study:'.")
    places: dict[Key, str] = {}
    _walk(node, (), str(path), places)
    places[()] = f"{path}:1"
    return Source(str(path), node.plain(), places)


def _walk(node: Node, key: Key, file: str, places: dict[Key, str]) -> None:
    """Fill `places` below `key`."""
    places.setdefault(key, f"{file}:{node.line}")
    for index, item in enumerate(node.items):
        _walk(item, (*key, index), file, places)
    for name, line, value in node.pairs:
        if name == "<<":
            for merged in value.items or [value]:
                _walk(merged, key, file, places)
        else:
            places[*key, name] = f"{file}:{line}"
            _walk(value, (*key, name), file, places)


def _forget(places: dict[Key, str], key: Key) -> None:
    for written in [k for k in places if k[: len(key)] == key]:
        del places[written]
