"""The reference of the study file says everything that the schema accepts, and is the page that lies in the docs."""

from __future__ import annotations

import re

import pytest
from tiny_study import ROOT, Tiny

from ablate import registry
from ablate.registry import Section
from ablate.study import reference


def sections() -> dict[str, type[Section]]:
    """All of ours, the options of parts included."""
    found = dict(reference.SECTIONS)
    for kind, attribute in reference.OPTIONS.items():
        for part in registry.parts(kind):
            if (options := getattr(part.value, attribute, None)) is not None:
                found[f"{kind} {part.name}"] = options
                found |= {f"{part.name}.{name}": one for name, one in reference.inside(options)}
    return found


@pytest.mark.parametrize("name", sections())
def test_every_key_has_a_meaning(name: str) -> None:
    section = sections()[name]
    told = reference.meanings(section)
    keys = {reference.called(*item) for item in section.model_fields.items()}
    assert keys - told.keys() == set()
    assert all(told[key] for key in keys)


def test_the_page_of_the_docs_is_what_the_command_prints(tiny: Tiny) -> None:
    ran = tiny.process(
        "reference"
    )  # of its own, for files of other tests register parts when they are imported
    out, err = ran.communicate(timeout=120)
    assert (ran.returncode, err) == (0, "")
    assert out == (ROOT / "docs" / "reference.md").read_text("utf-8")


def test_a_part_of_ones_own_is_told_too(tiny: Tiny) -> None:
    out = tiny.command("reference", "--plugin", str(ROOT / "examples" / "ema.py")).out
    assert re.search(r"^\* `ema`: ", out, re.MULTILINE)


def test_what_a_field_holds_in_words() -> None:
    keys = "\n".join(reference.keys(reference.TrainSection))
    assert "`learning_rate` (number above 0, at most 100; default `0.001`)" in keys
    assert "`clip` (number above 0, or null; default `1.0`)" in keys
    assert "`loss` (`last`, `all`; default `last`)" in keys
