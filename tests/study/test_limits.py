"""Numbers are checked for their range before anything is made of them; names and texts have limits; one line each."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from study_samples import changed, loaded, made_up_lab, refusal

from ablate.errors import LONGEST, UserError, one_line, unknown
from ablate.study.contrast import named, parse
from ablate.study.expand import cells
from ablate.study.hypotheses import claims

HUGE = "9" * 400


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    with made_up_lab():
        yield


@pytest.mark.parametrize(
    "override",
    [
        *(f"{name}={value}" for name in ("seeds", "train.updates", "model.parameters", "model.layers",
          "model.width", "model.heads", "model.timesteps", "measure.rollout.episodes", "train.points",
          "train.targets_per_update") for value in ("1e12", "1e19", HUGE, "true", ".inf", "yes", "1:30:30", "030", "-1",
          "1.5", "2001-12-14", "1e999", "!!int abc", "[1]", "null")
          if (name, value) != ("model.width", "null")),
        *(f"train.{name}={value}" for name in ("learning_rate", "weight_decay", "clip", "return_scale")
          for value in (".inf", ".nan", "1e300", "true", "yes", "'inf'", "'nan'")),
        *(f"train.betas={value}" for value in ("[0.9, 1.0]", "[.nan, 0.9]", "[true, 0.9]", "0.9")),
        *(f"measure.rollout.target={value}" for value in (".nan", ".inf", "true", "'nan'", "p101")),
        *("train.checkpoints=[true]", "train.checkpoints=[1e12]", "streams=" + "x" * 101),
    ],
)  # fmt: skip
def test_no_number_is_out_of_range(tmp_path: Path, override: str) -> None:
    message = refusal(tmp_path, changed("seeds: 4", "seeds: 4"), overrides=[override])
    assert message.startswith("--set ")
    assert len(message) <= LONGEST


@pytest.mark.parametrize(
    ("override", "value"), [("1e3", 1000), ("2e2", 200), ("1_000", 1000), ("1000.0", 1000)]
)
def test_whole_numbers_may_be_written_otherwise(tmp_path: Path, override: str, value: int) -> None:
    assert loaded(tmp_path, overrides=[f"train.updates={override}"]).train.updates == value


@pytest.mark.parametrize(
    ("old", "new", "fragments"),
    [
        ("margin: 3", "margin: .inf", [".inf"]),
        ("margin: 3", "margin: true", ["margin", "no numbers"]),
        ("    threshold: 3", "    threshold: yes", ["'yes'"]),
        ("study: small", "study: models", ["folder of what `train` trains"]),
        ("study: small", "study: " + "a" * 101, ["study", "100"]),
        ("study: small", "study: Models", ["allowed: any name but models"]),
        ("  - id: memory", "  - id: " + "a" * 300, ["id", "100"]),
        ("seeds: 4", "seeds: 4\nseeds : 5", ["stands twice"]),
        ("question: Does memory help?", 'question: "a\\0b"', ["U+0000"]),
        ("condition: [none, time, policy-id]", "condition: [null, time, policy-id]", ["written none"]),
        ("mixer: [attention, gru, mlp]", "mixer: [no, gru, mlp]", ["'no' is not known", "attention, gru, mlp"]),
        ("context: [1, 5, 20]", "context: [1, 5, 1e12]", ["whole number of timesteps"]),
        ("context: [1, 5, 20]", "context: [1, 5, 99999999999 tokens]", ["tokens"]),
        ("context: [1, 5, 20]", "context: [1, true, 20]", ["'True'"]),
        ("{updates: 100}", "{updates: 1,000}", ["write a number without it"]),
        ("contrast: context[20] - context[1]", "contrast: " + "(" * 5000, ["parentheses"]),
        ("contrast: context[20] - context[1]", "contrast: 1e999 context[20] - context[1]", ["coefficient"]),
        ("contrast: context[20] - context[1]", "contrast: 1e308 context[20] - 1e308 context[1]", ["coefficient"]),
        ("contrast: context[20] - context[1]", "contrast: context[20] : context[1]", ["stands in quotes"]),
        ("mixer: [attention, gru, mlp]", f"mixer: [attention, gru, '{'x' * 100_000}']", ["'xxx"]),
        ("mixer: [attention, gru, mlp]", 'mixer: [attention, gru, "a\\nb\\u202Ec"]', ["'a b\\u202ec'"]),
        ("profiles:\n  quick:", f"profiles:\n  {'q' * 300}:", ["profile"]),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(
    tmp_path: Path, old: str, new: str, fragments: list[str]
) -> None:
    message = refusal(tmp_path, changed(old, new))
    assert len(message) <= LONGEST
    assert message.isprintable()
    for fragment in fragments:
        assert fragment in message, message


def test_too_many_cells_are_refused_before_any_is_made(tmp_path: Path) -> None:
    text = changed("context: [1, 5, 20]", f"context: [{', '.join(map(str, range(1, 900)))}]")
    text = text.replace(
        "context: [1, 20]\n    condition: [none, time]", "context: all\n    condition: [none, time]"
    )
    assert "cells; allowed: 10,000" in refusal(tmp_path, text)


def test_true_and_false_are_levels(tmp_path: Path) -> None:
    text = changed(
        "  head: [mse, mixture]", "  head: [mse, mixture]\n  model.token_norm: [true, false]"
    )
    text = text.replace(
        "  extra:\n    data",
        "  norm: {data: lab/plain, model.token_norm: [true, off]}\n  extra:\n    data",
    )
    with pytest.raises(UserError, match="'off' is not known; allowed: True, False"):
        loaded(tmp_path, text)
    text = text.replace("off]", "'False']") + (
        "  - id: norm\n    says: It helps.\n    contrast: model.token_norm[true] - model.token_norm[False]\n"
        "    where: {data: lab/plain}\n    test: difference\n"
    )
    study = loaded(tmp_path, text)
    found = [c for c in cells(study) if c.designs == ("norm",)]
    assert study.factors["model.token_norm"] == (True, False)
    assert {c.config["model"]["token_norm"] for c in found} == {False}
    assert parse(study.hypotheses[-1].contrast, study.levels).terms == {
        ("true",): 1.0,
        ("false",): -1.0,
    }


@pytest.mark.parametrize(
    "level", ["a]b", "a[b", "PPO (clip, 0.2)", 'say "x"', "a\\b", "$\\alpha$", "a:b"]
)
def test_a_level_is_any_text(level: str) -> None:
    text = f"{named('algo', level)} - algo[other]"
    assert parse(text, {"algo": (level, "other")}).terms == {
        (level.strip(),): 1.0,
        ("other",): -1.0,
    }


def test_pairs_of_levels_with_marks_are_compared(tmp_path: Path) -> None:
    agree = loaded(tmp_path).hypotheses[1].model_copy(update={"where": {}})
    labels = [claim.label for claim in claims(agree, {"mixer": ("a]b", "c,d", "e")})]
    assert labels == ["a]b - c,d", "a]b - e", "c,d - e"]


def test_a_contrast_of_many_factors_is_bounded() -> None:
    text = " : ".join(f"(f{i}[a] - f{i}[b])" for i in range(20))
    with pytest.raises(UserError, match="more than 10,000 products"):
        parse(text)


def test_a_line_is_bounded_and_can_be_printed() -> None:
    line = str(UserError("a\nb\tc\x1b[31m\u202e" + "x" * 10**6 + " allowed: y."))
    assert len(line) == LONGEST
    assert line.startswith("a b\\tc\\x1b[31m\\u202e")
    assert line.endswith("allowed: y.")
    assert one_line("é 中 α") == "é 中 α"
    message = str(
        unknown("data", "hopper-medium", [f"d4rl/hopper-medium-v{i}" for i in range(900)])
    )
    assert len(message) < 400
    assert "and 8" in message
    assert "Did you mean 'd4rl/hopper-medium-v" in message
