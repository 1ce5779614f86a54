"""A YAML file that remembers the line of everything it says, so that a refusal can point at it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ablate.errors import UserError, unknown

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

        Raises UserError when `text` is not of the form PATH=VALUE or the path is not one that may
        be set.
        """
        where = f"--set {text}"
        path, equals, value = text.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            raise UserError(f"{where}: expected PATH=VALUE, e.g. train.updates=1000.")
        if names[0] not in SETTABLE:
            raise unknown(where, names[0], SETTABLE)
        tree, places = copy.deepcopy(self.tree), dict(self.places)
        inner = tree
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise UserError(f"{where}: '{name}' holds no values of its own.")
        try:
            inner[names[-1]] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{where}: '{value}' is not a YAML value.") from error
        _forget(places, tuple(names))
        for length in range(1, len(names)):  # what the file itself doesn't have stands there too
            places.setdefault(tuple(names[:length]), where)
        places[tuple(names)] = where
        return Source(self.file, tree, places)


def read(path: Path) -> Source:
    """Parse a study file.

    Raises UserError for a missing or unreadable file, broken YAML, a key that stands twice, or a
    file that is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        if near:
            raise unknown("there is no study file", str(path), near) from error
        raise UserError(f"{path}: there is no such study file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}).") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{line}: not valid YAML ({problem}).") from error
    if not isinstance(tree, dict) or node is None:
        raise UserError(f"{path}:1: a study file is a mapping that starts with 'study:'.")
    places: dict[Key, str] = {}
    _walk(node, (), str(path), places)
    places[()] = f"{path}:1"
    return Source(str(path), tree, places)


def _walk(node: yaml.Node, key: Key, file: str, places: dict[Key, str]) -> None:
    """Fill `places` below `key`; a mapping that has one key twice is refused."""
    places.setdefault(key, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*key, index), file, places)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise UserError(f"{file}:{line}: a key must be a plain word.")
            if name.value == "<<":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    _walk(merged, key, file, places)
                continue
            if name.value in lines:
                first = lines[name.value]
                raise UserError(
                    f"{file}:{line}: '{name.value}' stands twice (first in line {first}); keep one."
                )
            lines[name.value] = line
            places[*key, name.value] = f"{file}:{line}"
            _walk(value, (*key, name.value), file, places)


def _forget(places: dict[Key, str], key: Key) -> None:
    for written in [k for k in places if k[: len(key)] == key]:
        del places[written]
