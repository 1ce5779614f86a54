"""How a part is registered and found by name.

A part is anything a study file names: a mixer, a head, a family of data sets. Our own parts, those in
`baselines/` and a user's own all come through the same decorator::

    from ablate.registry import register

    @register("mixer", "my-mixer")
    class MyMixer(Mixer): ...

A condition or a history is a sum of such parts: `return-to-go+time` (`terms`). What tests register inside of a
`scope` is forgotten after it.

A module outside the package is found through an entry point in the group `ablate.plugins`, or by
`--plugin FILE_OR_MODULE` on the command line. The comparators in `baselines/` are found by where they lie, beside the
package: whatever else has that name, in the current folder or installed, is neither taken for them nor run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ablate.errors import UserError, quoted, unknown

T = TypeVar("T")
S = TypeVar("S", bound="Section")
BUILT_IN = (
    "ablate.models",
    "ablate.data",
    "ablate.learn",
    "ablate.systems",
    "ablate.measure",
)
# kind -> what is imported when the kind is asked for
LATE = {
    "figure": "ablate.report.figures",
    "estimator": "ablate.analyse.curves",
    "launcher": "ablate.launch",
}
COMPARATORS = Path(__file__).resolve().parents[1] / "baselines"
OURS = ("ablate", COMPARATORS.name)
COUNT = 10**9  # no count of a study is larger
AMOUNT = 1e15  # nor is any other number
GROUP = "ablate.plugins"
LAST = 1000  # the place of a part that declares none


@dataclass(frozen=True)
class Part:
    """A registered part.

    version: what it declares, so that a change of one part runs only its own trials again; for a part that is
    not ours and declares none, the hash of its file.
    label: what it is called in figures and tables; its name when empty.
    order: its place among the parts of its kind there, smallest first.
    """

    kind: str
    name: str
    value: Any
    module: str
    version: str
    label: str = ""
    order: int = LAST


class Section(BaseModel):
    """Options that a part declares, or a section of the configuration. Unknown keys are refused, and so are true and
    false in place of a number, and numbers that are infinite, none, or too large for anything to be counted by them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if cls._plain(info) and any(isinstance(each, bool) for each in _leaves(value)):
            raise ValueError("true and false are no numbers and no texts")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _within_range(cls, value: Any, info: ValidationInfo) -> Any:
        for number in _leaves(value) if cls._plain(info) else ():
            if isinstance(number, int) and abs(number) > COUNT:
                raise ValueError(f"expected a number of at most {COUNT:,}")
            if isinstance(number, float) and not abs(number) <= AMOUNT:
                raise ValueError(f"expected a number of at most {AMOUNT:g}")
        return value

    @classmethod
    def _plain(cls, info: ValidationInfo) -> bool:
        """Whether a field holds nothing but numbers and texts."""
        annotation: Any = cls.model_fields[str(info.field_name)].annotation
        return _kinds(annotation) <= _PLAIN


def later(default: Any, **limits: Any) -> Any:
    """A field of a section that came after the first results: not hashed at its default (see `config.settled`)."""
    return Field(default=default, json_schema_extra={"later": True}, **limits)


@functools.cache
def _kinds(annotation: Any) -> frozenset[Any]:
    """The types that stand in an annotation, a literal's as well."""
    inner = get_args(annotation)
    if inner:
        return frozenset().union(*map(_kinds, inner))
    return frozenset({annotation if isinstance(annotation, type) else type(annotation)})


_PLAIN = frozenset({int, float, str, type(None), type(...)})


def _leaves(value: Any) -> Iterator[Any]:
    """The values in lists and mappings."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def checked(section: type[S], values: Mapping[str, Any], where: str) -> S:
    """The section with these values and its defaults; where: what it is called in a study file, `train`.

    Raises UserError, one line, for a key that it doesn't have or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: found {quoted(values)}; allowed: keys with values.")
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise unknown(where, name, section.model_fields) from None
        text = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
        if not name:  # of several values together, which the message names
            raise UserError(f"{where}.{text}.") from None
        raise UserError(
            f"{where}.{name}: found {quoted(problem['input'])}; {text[0].lower() + text[1:]}."
        ) from None


# Kinds whose levels are sums of parts joined by `+`, and what the parts of one level are sorted by: the spelling of a
# level is a part of a fit's identity, so it may depend on nothing that could change, such as a place in a legend.
SUMS: dict[str, Callable[[Part], Any]] = {
    "condition": lambda part: part.name,
    "history": lambda part: (part.order, part.name),
}
_parts: dict[tuple[str, str], Part] = {}
_loaded = False


def register(
    kind: str, name: str, version: str = "", *, label: str = "", order: int = LAST
) -> Callable[[T], T]:
    """Class or function decorator that makes a part known under `name`.

    version: raise it when the part's results change; trials that use it then count as new. label, order: see `Part`.
    Raises UserError when another module has already registered the same kind and name, and for a name with a `+`
    where that joins names.
    """

    def wrap(value: T) -> T:
        module = getattr(value, "__module__", "?")
        if kind in SUMS and "+" in name:
            raise UserError(
                f"{module}: the {kind} '{name}': a '+' joins several; choose another name."
            )
        before = _parts.get((kind, name))
        if before is not None and before.module != module:
            raise UserError(
                f"{module}: the {kind} '{name}' is already registered by {before.module}; choose another name."
            )
        made = version or _version(module)
        _parts[kind, name] = Part(kind, name, value, module, made, label, order)
        return value

    return wrap


def part(kind: str, name: str, where: str = "") -> Part:
    """The part registered under `name`; raises UserError with the nearest known name."""
    _load(kind)
    found = _parts.get((kind, name))
    if found is None:
        raise unknown(where or kind, name, names(kind))
    return found


def get(kind: str, name: str, where: str = "") -> Any:
    """The class or function registered under `name`."""
    return part(kind, name, where).value


def known(kind: str, name: str) -> bool:
    """Whether a part is registered under `name`."""
    _load(kind)
    return (kind, name) in _parts


def names(kind: str) -> list[str]:
    """All names of a kind, sorted."""
    _load(kind)
    return sorted(name for k, name in _parts if k == kind)


def parts(kind: str) -> list[Part]:
    """All parts of a kind, in the order in which figures show them."""
    _load(kind)
    found = [part for (k, _), part in _parts.items() if k == kind]
    return sorted(found, key=lambda part: (part.order, part.name))


def kinds() -> list[str]:
    """All kinds of which a part is registered, sorted."""
    _load()
    return sorted({kind for kind, _ in _parts})


def terms(kind: str, level: str, where: str = "") -> tuple[Part, ...]:
    """The parts whose sum a level is, as its canonical spelling joins them.

    Raises UserError for a part that is not known or stands twice, and for `none` beside another.
    """
    found = tuple(part(kind, name.strip(), where) for name in str(level).split("+"))
    joined = [each.name for each in found]
    repeated = next((name for name in joined if joined.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{where or kind}: '{level}' holds '{repeated}' twice.")
    if "none" in joined and len(joined) > 1:
        raise UserError(f"{where or kind}: found '{level}'; 'none' stands alone.")
    return tuple(sorted(found, key=SUMS[kind]))


def canonical(kind: str, level: str, where: str = "") -> str:
    """The one spelling of a level: `time+return-to-go` is `return-to-go+time`. Raises UserError as `part` and `terms`.

    A level of a kind whose parts aren't summed is a part's name.
    """
    if kind in SUMS:
        return "+".join(each.name for each in terms(kind, level, where))
    return part(kind, level, where).name


@contextmanager
def scope(only: Iterable[Part] | None = None) -> Iterator[None]:
    """Whatever is registered inside is forgotten after it, a plugin's file included, which may then be loaded again.

    only: the parts that are known inside, at first; all those there are by default. Our own modules that happen to be
    imported inside for the first time stay registered: a module is imported once.
    """
    _load()
    before, imported = dict(_parts), set(sys.modules)
    if only is not None:
        _parts.clear()
        _parts.update({(each.kind, each.name): each for each in only})
    try:
        yield
    finally:
        fresh = {
            key: each
            for key, each in _parts.items()
            if each.module in sys.modules and each.module not in imported
        }
        _parts.clear()
        _parts.update(before)
        for key, each in fresh.items():
            if each.module.partition(".")[0] in OURS:
                _parts[key] = each
            else:
                sys.modules.pop(each.module, None)


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


def process(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a process that runs `module` of ours and finds the modules that this one does.

    The current folder doesn't come first there (`-P`), so that nothing in it is taken for one of them.
    """
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    return [sys.executable, "-P", "-m", module, *arguments], {**os.environ, "PYTHONPATH": path}


def _comparators() -> None:
    """Import `baselines` from beside the package; raises UserError when it isn't there, or another has its name."""
    name, start = COMPARATORS.name, COMPARATORS / "__init__.py"
    there = sys.modules.get(name)
    if there is not None:
        found = Path(getattr(there, "__file__", None) or "a folder")
        if found.resolve() != start:
            raise UserError(
                f"{found}: was imported as '{name}', the name of ablate's comparators; give it another name."
            )
        return
    if not (COMPARATORS / "published.csv").is_file():
        raise UserError(
            f"{COMPARATORS}: it isn't there, or not ablate's; install ablate-sequence-rl anew."
        )
    spec = importlib.util.spec_from_file_location(name, start)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _load(kind: str = "") -> None:
    """Import our own parts and every installed entry point once, on first use."""
    global _loaded
    if kind in LATE:
        importlib.import_module(LATE[kind])
    if _loaded:
        return
    _loaded = True  # also while loading: a module may ask for a part as it is imported
    try:
        for module in BUILT_IN:
            importlib.import_module(module)
        _comparators()
        for entry in entry_points(group=GROUP):
            _enter(entry)
    except BaseException:
        _loaded = False  # what could not be loaded is refused again, not passed over
        raise


def _enter(entry: EntryPoint) -> None:
    """Import an installed plugin; raises UserError when it fails to."""
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
