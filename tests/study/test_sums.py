"""A condition or a history is a sum of parts: however it is spelt, in a study it is one level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from study_samples import TEXT, changed, loaded, made_up_lab, refusal

from ablate.study.contrast import level_text
from ablate.study.expand import cells


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    with made_up_lab():
        yield


def test_every_order_is_the_same_level(tmp_path: Path) -> None:
    text = TEXT.replace("[none, time, policy-id]", "[none, time, time+return-to-go]")
    text = text.replace("[states+actions, states]", "[actions + states, states]")
    study = loaded(tmp_path, text.replace("policy-id", "return-to-go + time"))
    assert study.factors["condition"] == ("none", "time", "return-to-go+time")
    assert study.factors["history"] == ("states+actions", "states")
    assert {cell.config["history"] for cell in cells(study)} <= {"states+actions", "states"}


def test_two_spellings_stand_twice(tmp_path: Path) -> None:
    text = changed("[none, time, policy-id]", "[none, time+policy-id, policy-id+time]")
    assert "the level of condition 'policy-id+time' stands twice" in refusal(tmp_path, text)


def test_what_cannot_be_summed_is_refused_with_its_line(tmp_path: Path) -> None:
    text = changed("[none, time, policy-id]", "[none, time+tome, policy-id]")
    line = refusal(tmp_path, text)
    assert line.startswith("small.yaml:6: the condition: 'tome' is not known; ")
    assert line.endswith("Did you mean 'time'?")


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("time+return-to-go", "return-to-go+time"),
        ("actions+states", "states+actions"),
        ("td3+bc", "td3+bc"),
        ("time+unheard", "time+unheard"),
        ("1e+2", "100"),
    ],
)
def test_levels_are_compared_by_their_one_spelling(text: str, level: str) -> None:
    assert level_text(text) == level
