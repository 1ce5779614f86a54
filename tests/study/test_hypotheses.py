"""Claims and what a set of cells can test."""

import pandas as pd
import pytest
from pydantic import ValidationError

from ablate.study.hypotheses import Hypothesis, claims, coverage

LEVELS = {"data": ["a", "b"], "mixer": ["mlp", "gru", "bag"], "context": [1, 20]}
CELLS = pd.DataFrame(
    [(d, m, k) for d in "ab" for m in ("mlp", "gru") for k in (1, 20)],
    columns=["data", "mixer", "context"],
)


def made(**parts: object) -> Hypothesis:
    return Hypothesis(
        **{"id": "h", "says": "So.", "contrast": "context[20] - context[1]", "test": "difference"}
        | parts
    )


def test_a_plain_hypothesis_is_one_claim_on_its_cells() -> None:
    (claim,) = claims(made(where={"data": "a"}), LEVELS)
    assert claim.label == ""
    assert list(claim.select(CELLS).index) == [0, 1, 2, 3]
    assert list(claim.weights(CELLS).table["weight"].abs()) == [0.5] * 4


def test_each_makes_a_claim_for_every_level() -> None:
    found = claims(made(each="mixer"), LEVELS)
    assert [c.label for c in found] == ["mixer mlp", "mixer gru", "mixer bag"]
    assert found[1].where == {"mixer": ("gru",)}


def test_each_keeps_to_where() -> None:
    found = claims(made(each="mixer", where={"mixer": ["gru", "bag"]}), LEVELS)
    assert [c.label for c in found] == ["mixer gru", "mixer bag"]


def test_pairs_make_a_claim_for_every_two_levels() -> None:
    found = claims(made(contrast="each pair of mixer", where={"context": 1}), LEVELS)
    assert [c.label for c in found] == ["mlp - gru", "mlp - bag", "gru - bag"]
    assert found[0].contrast.terms == {("gru",): -1, ("mlp",): 1}
    assert all(c.where == {"context": ("1",)} for c in found)


def test_pairs_interact_with_another_contrast() -> None:
    found = claims(made(contrast="each pair of mixer : (context[20] - context[1])"), LEVELS)
    assert [c.label for c in found] == ["mlp - gru", "mlp - bag", "gru - bag"]
    assert found[0].contrast.factors == ("mixer", "context")
    assert found[0].contrast.terms == {
        ("mlp", "20"): 1,
        ("mlp", "1"): -1,
        ("gru", "20"): -1,
        ("gru", "1"): 1,
    }


def test_pairs_and_each_cross_and_keep_to_where() -> None:
    where = {"mixer": ["mlp", "gru"], "context": 20}
    found = claims(made(contrast="each pair of mixer", each="data", where=where), LEVELS)
    assert [c.label for c in found] == ["data a, mlp - gru", "data b, mlp - gru"]
    assert found[1].where == {"context": ("20",), "data": ("b",)}


def test_what_was_not_run_is_said() -> None:
    found = coverage(made(each="mixer"), LEVELS, CELLS)
    assert [c.label for c in found.claims] == ["mixer mlp", "mixer gru"]
    assert found.tested
    assert found.words == "tested in part (not run: mixer bag)"


def test_a_data_set_that_was_not_run_is_said() -> None:
    found = coverage(made(where={"data": ["a", "b"]}), LEVELS, CELLS[CELLS["data"] == "a"])
    assert found.words == "tested in part (not run: b)"


def test_a_long_list_of_what_was_not_run_is_cut() -> None:
    levels = {**LEVELS, "mixer": [*"uvwxyz", "mlp"]}
    words = coverage(made(each="mixer"), levels, CELLS).words
    assert words == "tested in part (not run: mixer u; mixer v; mixer w and 3 more)"


def test_a_hypothesis_without_cells_is_not_tested() -> None:
    found = coverage(made(where={"mixer": "bag"}), LEVELS, CELLS)
    assert (found.tested, found.words) == (False, "not tested at this profile")


def test_a_contrast_between_data_sets_needs_all_of_them() -> None:
    between = made(contrast="data[a] - data[b]", where={"context": 1})
    assert coverage(between, LEVELS, CELLS).words == "tested"
    assert not coverage(between, LEVELS, CELLS[CELLS["data"] == "a"]).tested


@pytest.mark.parametrize("wrong", [{"id": "a b"}, {"margin": 0}, {"test": "x"}, {"more": 1}])
def test_its_fields_are_checked(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        made(**wrong)
