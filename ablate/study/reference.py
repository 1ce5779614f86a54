"""The reference of the study file: every key with what it may hold, its default and its meaning, from the schema
itself; and the parts that a study may name, a user's own included."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ablate import registry
from ablate.config import Converged, ModelSection, TrainSection
from ablate.registry import Section
from ablate.study.contrast import Level
from ablate.study.hypotheses import Hypothesis
from ablate.study.looks import SequentialSection
from ablate.study.schema import File
from ablate.study.tuning import TuneSection

SECTIONS: dict[str, type[Section]] = {
    "The file": File,
    "`model`": ModelSection,
    "`train`": TrainSection,
    "`train.converged`": Converged,
    "`tune`": TuneSection,
    "`sequential`": SequentialSection,
    "Each of `hypotheses`": Hypothesis,
}
# Kinds of parts that are levels of a factor or are named by a hypothesis, in the order in which a reader meets them.
KINDS = {
    "data": "Data sets, by family",
    "mixer": "Mixers",
    "condition": "Conditions",
    "history": "Histories",
    "head": "Heads",
    "layout": "Layouts",
    "input": "Inputs",
    "algorithm": "Algorithms",
    "measurement": "Measurements",
    "estimator": "Estimators",
    "figure": "Figures",
}
OPTIONS = {"algorithm": "Settings", "measurement": "Options", "estimator": "Options"}
INTRODUCTION = """\
# Reference of the study file

Written by `python -m ablate reference` from the schema that checks a study file, so that what stands here is what is
accepted; with `--plugin FILE` it tells your own parts too. [Studies](studies.md) goes through a file part by part.
"""
WIDTH = 120
_BOUNDS = (
    (annotated_types.Gt, "gt", "above"),
    (annotated_types.Ge, "ge", "at least"),
    (annotated_types.Lt, "lt", "below"),
    (annotated_types.Le, "le", "at most"),
)
_WORDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


def meanings(section: type[Section]) -> dict[str, str]:
    """What each field means, as the docstrings of the section and of those that it extends tell it: `name: meaning.`"""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not (isinstance(cls, type) and issubclass(cls, Section) and cls.__doc__):
            continue
        text = " ".join(inspect.cleandoc(cls.__doc__).split())
        names = "|".join(map(re.escape, (called(*item) for item in section.model_fields.items())))
        each = rf"`?(?:{names})`?"
        told = re.compile(rf"(?:(?<=^)|(?<=[.;)] )|(?<=: ))({each}(?:, {each})*): ")
        cuts = list(told.finditer(text))
        for here, after in zip(cuts, [*cuts[1:], None], strict=False):
            meaning = text[here.end() : after.start() if after else None].strip().rstrip(".;")
            for name in here[1].split(", "):
                found[name.strip("`")] = meaning
    return found


def called(name: str, field: FieldInfo) -> str:
    """A field's name in a file."""
    return field.alias or name


def kind(annotation: Any) -> str:
    """What a field may hold, in words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return f"{kind(inside[0])}{_bounds(inside[1:])}"
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inside)
    if origin in (Union, types.UnionType):
        if set(get_args(Level)) <= set(inside):
            inside = (Level, *(each for each in inside if each not in get_args(Level)))
            return " or ".join("level" if each is Level else kind(each) for each in inside)
        return " or ".join(dict.fromkeys(kind(each) for each in inside))
    if origin is tuple and len(inside) > 1 and inside[1] is not ...:
        return f"[{', '.join(kind(each) for each in inside)}]"
    if origin in (tuple, list):
        return f"list of {kind(inside[0])}"
    if origin is dict:
        return f"by name: {kind(inside[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "a section, below"
    if annotation is Any:
        return "anything"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(metadata: Any) -> str:
    flat = [
        each for one in metadata for each in (one.metadata if isinstance(one, FieldInfo) else [one])
    ]
    said = [
        f" {word} {getattr(one, name):,}"
        for one in flat
        for bound, name, word in _BOUNDS
        if isinstance(one, bound)
    ]
    return ",".join(said)


def default(field: FieldInfo) -> str:
    """Its default, as a study file would write it."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "has to be given"
    if isinstance(value, Section) or value in ("", (), [], {}):
        return "may be left out"
    return f"default `{value if isinstance(value, str) else json.dumps(value)}`"


def keys(section: type[Section]) -> Iterator[str]:
    """A section's keys as a list of Markdown, lines as long as they may be."""
    told = meanings(section)
    for own, field in section.model_fields.items():
        name = called(own, field)
        holds = kind(field.annotation).removesuffix(" or null")
        holds += _bounds(field.metadata)
        if type(None) in get_args(field.annotation):
            holds += ", or null"
        meaning = f": {told[name]}" if name in told else ""
        yield from _wrapped(f"* `{name}` ({holds}; {default(field)}){meaning}.")


def inside(section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """The sections that a section holds, by name."""
    for name, field in section.model_fields.items():
        for each in (field.annotation, *get_args(field.annotation)):
            if isinstance(each, type) and issubclass(each, Section):
                yield name, each


def first_sentence(part: registry.Part) -> str:
    """How a part's own docstring begins."""
    text = " ".join(inspect.cleandoc(getattr(part.value, "__doc__", None) or "").split())
    sentences = re.split(r"(?<!al)(?<! )\.\s(?=[A-Z`])", text)
    told = sentences[0] if " " in sentences[0] else ". ".join(sentences[:2])
    return told.rstrip(".")


def render() -> str:
    """The whole page, Markdown."""
    lines = [INTRODUCTION]
    for title, section in SECTIONS.items():
        lines += [f"## {title}", "", *keys(section), ""]
    for name, title in KINDS.items():
        lines += [f"## {title}", ""]
        for part in registry.parts(name):
            lines += _wrapped(
                f"* `{part.name}`: {first_sentence(part) or part.label or part.name}."
            )
        lines.append("")
        for part in registry.parts(name) if name in OPTIONS else ():
            options = getattr(part.value, OPTIONS[name], None)
            if options is not None and options.model_fields:
                word = OPTIONS[name].lower()
                lines += [f"### {word.capitalize()} of `{part.name}`", "", *keys(options), ""]
                for inner, section in inside(options):
                    lines += [f"#### `{inner}` of `{part.name}`", "", *keys(section), ""]
    return "\n".join(lines).rstrip() + "\n"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
