"""How a part is registered and found by name.

A part is anything a study file names: a mixer, a head, a family of data sets. Our own parts, those in
`baselines/` and a user's own all come through the same decorator::

    from ablate.registry import register

    @register("mixer", "my-mixer")
    class MyMixer(Mixer): ...

A module outside the package is found through an entry point in the group `ablate.plugins`, or by
`--plugin FILE_OR_MODULE` on the command line.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from ablate.errors import UserError, unknown

T = TypeVar("T")
BUILT_IN = ("ablate.models", "ablate.data", "ablate.learn", "ablate.analyse.estimators")
OURS = ("ablate", "baselines")
GROUP = "ablate.plugins"


@dataclass(frozen=True)
class Part:
    """A registered part.

    version: what it declares, so that a change of one part runs only its own trials again; for a part that is
    not ours and declares none, the hash of its file.
    """

    kind: str
    name: str
    value: Any
    module: str
    version: str


_parts: dict[tuple[str, str], Part] = {}
_loaded = False


def register(kind: str, name: str, version: str = "") -> Callable[[T], T]:
    """Class or function decorator that makes a part known under `name`.

    version: raise it when the part's results change; trials that use it then count as new.
    Raises UserError when another module has already registered the same kind and name.
    """

    def wrap(value: T) -> T:
        module = getattr(value, "__module__", "?")
        known = _parts.get((kind, name))
        if known is not None and known.module != module:
            raise UserError(
                f"{module}: the {kind} '{name}' is already registered by {known.module}; choose another name."
            )
        _parts[kind, name] = Part(kind, name, value, module, version or _version(module))
        return value

    return wrap


def part(kind: str, name: str, where: str = "") -> Part:
    """The part registered under `name`; raises UserError with the nearest known name."""
    _load()
    found = _parts.get((kind, name))
    if found is None:
        raise unknown(where or kind, name, names(kind))
    return found


def get(kind: str, name: str, where: str = "") -> Any:
    """The class or function registered under `name`."""
    return part(kind, name, where).value


def names(kind: str) -> list[str]:
    """All names of a kind, sorted."""
    _load()
    return sorted(name for k, name in _parts if k == kind)


def load_plugin(source: str) -> None:
    """Import a user's module: a path ending in `.py`, or a dotted module name.

    Raises UserError when it does not exist or fails to import.
    """
    _load()
    try:
        if source.endswith(".py"):
            path = Path(source).resolve()
            if not path.is_file():
                raise UserError(f"--plugin {source}: there is no such file.")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            name = f"ablate_plugin_{path.stem}_{digest}"
            if name in sys.modules:
                return
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        else:
            importlib.import_module(source)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--plugin {source}: it does not import ({_line(error)}).") from error


def _load() -> None:
    """Import our own parts and every installed entry point once, on first use."""
    global _loaded
    if _loaded:
        return
    _loaded = True
    for module in BUILT_IN:
        importlib.import_module(module)
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except UserError:
            raise
        except Exception as error:
            owner = entry.dist.name if entry.dist else "an unknown distribution"
            raise UserError(
                f"entry point {entry.name} of {owner}: it does not import ({_line(error)}); mend it "
                "or uninstall it."
            ) from error


def _version(module: str) -> str:
    """Hash of the file of a module that is not ours; ours are covered by the code's version."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.partition(".")[0] in OURS or file is None:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
