"""A small study file to spoil, and a lab of made-up parts to read it in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ablate import registry
from ablate.data import catalogue
from ablate.errors import UserError, unknown
from ablate.study.load import load
from ablate.study.schema import Study

TEXT = """\
study: small
question: Does memory help?
factors:
  mixer: [attention, gru, mlp]
  context: [1, 5, 20]
  condition: [none, time, policy-id]
  history: [states+actions, states]
  head: [mse, mixture]
data: [lab/mixed, lab/plain]
designs:
  core:
    why: The question.
    data: [lab/mixed, lab/plain]
    mixer: all
    context: [1, 20]
    condition: [none, time]
  extra:
    data: lab/mixed
    mixer: [gru, mlp]
    context: [1, 20]
    condition: [time, policy-id]
model: {parameters: 1000}
train: {updates: 100}
seeds: 4
margin: 3
profiles:
  quick:
    seeds: 2
    train: {updates: 10}
    designs:
      core: {mixer: gru}
      extra: null
  big:
    model: {layers: 3}
    designs:
      heads: {data: lab/plain, head: all}
hypotheses:
  - id: memory
    says: Memory helps.
    contrast: context[20] - context[1]
    where: {data: lab/mixed, condition: time}
    test: superiority
    threshold: 3
    primary: true
  - id: agree
    says: Without memory all agree.
    contrast: each pair of mixer
    where: {context: 1, condition: time}
    test: equivalence
  - id: heads
    says: Heads differ.
    contrast: head[mixture] - head[mse]
    where: {data: lab/plain}
    test: difference
"""


@dataclass(frozen=True)
class LabSpec:
    """What the checks want to know of a data set."""

    name: str
    num_policies: int
    shown_goal: tuple[int, ...] = ()
    lacks_simulator: str = ""
    plain: bool = False


@contextmanager
def made_up_lab(versions: dict[str, str] | None = None) -> Iterator[None]:
    """The registry and the catalogue cut down to three mixers, two heads and the data family `lab`."""
    versions = versions or {}
    names = {"mixer": ("attention", "gru", "mlp"), "head": ("mse", "mixture"), "data": ()}
    parts = [
        dataclasses.replace(part, version=versions.get(part.name, ""))
        for kind in registry.kinds()
        for part in registry.parts(kind)
        if kind not in names or part.name in names[kind]
    ]
    parts.append(registry.Part("data", "lab", object(), "lab", versions.get("lab", "")))

    def spec(name: str, reading: Mapping[str, Any] | None = None) -> LabSpec:
        known = {"lab/mixed": 2, "lab/plain": 0}
        if name not in known:
            raise unknown("data", name, known)
        return LabSpec(name, known[name])

    with registry.scope(only=parts), pytest.MonkeyPatch.context() as patched:
        patched.setattr(catalogue, "spec", spec)
        yield


def written(folder: Path, text: str = TEXT) -> Path:
    """The text as a file."""
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(
    folder: Path,
    text: str = TEXT,
    profile: str | None = None,
    overrides: Sequence[str] = (),
) -> Study:
    """The text as a study."""
    return load(written(folder, text), profile, overrides)


def changed(old: str, new: str) -> str:
    """TEXT with one thing changed, which must be there once."""
    assert TEXT.count(old) == 1, f"{old!r} stands {TEXT.count(old)} times"
    return TEXT.replace(old, new)


def line_of(text: str, part: str) -> int:
    """The line, from 1, in which `part` stands first."""
    return text[: text.index(part)].count("\n") + 1


def refusal(
    folder: Path,
    text: str,
    profile: str | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """The one line with which the text is refused, without the folder."""
    with pytest.raises(UserError) as caught:
        loaded(folder, text, profile, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")
