"""The language of contrasts and its weights."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import UserError
from ablate.study.contrast import ACROSS, find_level, level_text, named, parse

LEVELS = {
    "data": ["lq/a", "lq/b@mask"],
    "mixer": ["mlp", "gru", "attention"],
    "context": [1, 5, 20],
    "condition": ["none", "time", "return-to-go+time"],
}


def grid(**levels: list) -> pd.DataFrame:
    """All combinations of LEVELS, or of those given."""
    chosen = {**LEVELS, **levels}
    return pd.DataFrame(itertools.product(*chosen.values()), columns=list(chosen))


def estimates(text: str, cells: pd.DataFrame, means: pd.Series) -> dict[str, float]:
    """Stratum -> weighted sum of cell means."""
    table = parse(text).weights(cells).table
    return (table["weight"] * means.loc[table.index]).groupby(table["stratum"]).sum().to_dict()


class TestParse:
    @pytest.mark.parametrize(
        ("text", "terms"),
        [
            ("a[x] - a[y]", {("x",): 1, ("y",): -1}),
            ("-a[x] + a[y]", {("x",): -1, ("y",): 1}),
            ("a[x] - a[y, z]", {("x",): 1, ("y",): -0.5, ("z",): -0.5}),
            ("0.2 a[1.0] - 2*a[1e1]", {("1",): 0.2, ("10",): -2}),
            ("2 (a[x] - a[y])", {("x",): 2, ("y",): -2}),
            ("a[x, y] - a[y]", {("x",): 0.5, ("y",): -0.5}),
            ("a[21]", {("21",): 1}),
            (
                "(a[1] - a[2]) : (b.c[u] - 0.5 b.c[return-to-go+time])",
                {
                    ("1", "u"): 1,
                    ("2", "u"): -1,
                    ("1", "return-to-go+time"): -0.5,
                    ("2", "return-to-go+time"): 0.5,
                },
            ),
            ("a[x]:b[u] - b[u]:a[y]", {("x", "u"): 1, ("y", "u"): -1}),
            ("data[lq/b@mask] - data[lq/a]", {("lq/b@mask",): 1, ("lq/a",): -1}),
        ],
    )
    def test_known_contrasts(self, text: str, terms: dict) -> None:
        assert dict(parse(text).terms) == pytest.approx(terms)

    def test_three_way_interaction(self) -> None:
        text = "(a[1] - a[0]) : (b[1] - b[0]) : (c[1] - c[0])"
        found = parse(text)
        assert found.factors == ("a", "b", "c")
        for levels, weight in found.terms.items():
            assert weight == (-1) ** (3 - sum(map(int, levels)))

    @pytest.mark.parametrize(
        ("text", "position", "fragment"),
        [
            ("", 1, "found the end"),
            ("a[x] -", 7, "found the end"),
            ("a[x] - a", 9, "expected '['"),
            ("a[x", 3, "the ']'"),
            ("a[]", 3, "a level of 'a' is missing"),
            ("a[x,]", 5, "a level of 'a' is missing"),
            ("a[x, x]", 6, "'x' stands twice"),
            ("(a[x] - a[y]", 13, "a ')' is missing"),
            ("a[x] a[y]", 6, "'a' is not expected"),
            ("a[x] ? a[y]", 6, "'?' has no meaning"),
            ("a[x] - b[y]", 8, "names b and an earlier one a"),
            ("(a[x] - a[y]) : b[u] - b[v]", 24, "parentheses"),
            ("(a[x] - a[y]) : a[z]", 15, "both sides of ':' name a"),
            ("a[x] - a[x]", 1, "it is zero"),
            ("3", 2, "found the end"),
        ],
    )
    def test_errors_say_where(self, text: str, position: int, fragment: str) -> None:
        with pytest.raises(UserError) as caught:
            parse(text)
        assert f"'{text}', position {position}: " in str(caught.value)
        assert fragment in str(caught.value)

    def test_undeclared_names_are_refused_with_the_nearest(self) -> None:
        with pytest.raises(UserError, match=r"position 12: the mixer: 'grue'.*Did you mean 'gru'"):
            parse("mixer[mlp, grue] - mixer[attention]", LEVELS)
        with pytest.raises(UserError, match=r"position 8: the factor: 'mixr'.*'mixer'"):
            parse("0.5 *  mixr[gru]", LEVELS)


class TestWeights:
    def test_a_simple_contrast_averages_over_the_other_factors_equally(self) -> None:
        cells = grid()
        found = parse("context[20] - context[1]").weights(cells)
        assert found.strata == ["lq/a", "lq/b@mask"]
        assert set(np.abs(found.table["weight"])) == {1 / 9}
        assert len(found.combinations["lq/a"]) == 9
        assert found.incomplete == []
        assert set(cells.loc[found.table.index, "context"]) == {1, 20}

    def test_an_additive_truth_is_recovered(self) -> None:
        cells = grid()
        means = cells["context"] * 1.0 + cells["mixer"].map({"mlp": 0, "gru": 7, "attention": 9})
        assert estimates("context[20] - context[1]", cells, means) == pytest.approx(
            {"lq/a": 19, "lq/b@mask": 19}
        )
        assert estimates("mixer[attention] - mixer[gru, mlp]", cells, means)["lq/a"] == (
            pytest.approx(5.5)
        )
        interaction = "(context[20] - context[1]) : (mixer[gru] - mixer[mlp])"
        assert estimates(interaction, cells, means)["lq/a"] == pytest.approx(0)

    def test_a_three_way_interaction_is_recovered(self) -> None:
        cells = grid()
        hit = (cells["context"] == 20) & (cells["mixer"] == "gru") & (cells["condition"] == "time")
        text = (
            "(context[20] - context[1]) : (mixer[gru] - mixer[mlp])"
            ": (condition[time] - condition[none])"
        )
        assert estimates(text, cells, 4.0 * hit)["lq/b@mask"] == pytest.approx(4)

    def test_a_contrast_between_data_sets_has_one_stratum(self) -> None:
        cells = grid()
        means = 5.0 * ((cells["data"] == "lq/a") & (cells["context"] == 20))
        text = "(context[20] - context[1]) : (data[lq/a] - data[lq/b@mask])"
        assert estimates(text, cells, means) == pytest.approx({ACROSS: 5})

    def test_a_mean_has_weights_that_sum_to_one(self) -> None:
        table = parse("context[20]").weights(grid()).table
        assert table.groupby("stratum")["weight"].sum().tolist() == pytest.approx([1, 1])

    def test_combinations_that_lack_a_cell_are_left_out_and_said(self) -> None:
        cells = grid()
        gone = (cells["mixer"] == "gru") & (cells["context"] == 1) & (cells["data"] == "lq/a")
        found = parse("context[20] - context[1]").weights(cells[~gone])
        used = cells.loc[found.table.index]
        assert "gru" not in set(used[used["data"] == "lq/a"]["mixer"])
        assert "gru" in set(used[used["data"] == "lq/b@mask"]["mixer"])
        assert len(found.incomplete) == 3
        assert found.incomplete[0] == "lq/a (mixer gru, condition none) lacks context[1]"

    def test_a_data_set_without_any_complete_combination_is_no_stratum(self) -> None:
        cells = grid()
        found = parse("context[20] - context[1]").weights(
            cells[(cells["data"] == "lq/a") | (cells["context"] == 20)]
        )
        assert found.strata == ["lq/a"]
        assert len(found.incomplete) == 9

    def test_nothing_to_weigh_gives_an_empty_table(self) -> None:
        found = parse("context[20] - context[7]").weights(grid())
        assert (len(found.table), found.strata) == (0, [])

    def test_numbers_match_by_value(self) -> None:
        cells = grid(context=[1.0, 5.0, 20.0])
        assert len(parse("context[20] - context[1]").weights(cells).table) == 36

    def test_a_cell_that_stands_twice_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="stands twice"):
            parse("context[20] - context[1]").weights(pd.concat([grid(), grid()]))
        with pytest.raises(ValueError, match="depth"):
            parse("depth[20] - depth[1]").weights(grid())


def levels_of(factor: str) -> st.SearchStrategy[str]:
    names = st.lists(st.sampled_from(LEVELS[factor]), min_size=1, max_size=2, unique=True)
    return names.map(lambda chosen: f"{factor}[{', '.join(map(str, chosen))}]")


def differences(factor: str) -> st.SearchStrategy[str]:
    return st.tuples(levels_of(factor), levels_of(factor)).map(lambda ab: f"({ab[0]} - {ab[1]})")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.sampled_from(
        [("context",), ("context", "mixer"), ("mixer", "condition", "context")]
    ).flatmap(lambda factors: st.tuples(*(differences(f) for f in factors))),
    st.randoms(use_true_random=False),
)
def test_differences_sum_to_zero_whatever_cells_are_there_in_any_order(parts, random) -> None:
    try:
        contrast = parse(" : ".join(parts))
    except UserError as error:
        assert "it is zero" in str(error)  # noqa: PT017 - equal levels were drawn
        return
    cells = grid()
    kept = cells.loc[sorted(random.sample(range(len(cells)), 45))]
    shuffled = kept.loc[random.sample(list(kept.index), len(kept))]
    first, second = contrast.weights(kept), contrast.weights(shuffled)
    assert np.allclose(first.table.groupby("stratum")["weight"].sum(), 0)
    pd.testing.assert_frame_equal(first.table.sort_index(), second.table.sort_index())
    assert sorted(first.incomplete) == sorted(second.incomplete)


@pytest.mark.parametrize(
    ("value", "text"),
    [(20, "20"), (20.0, "20"), ("20", "20"), (" 1e-3", "0.001"), ("nan", "nan"), ("a b ", "a b")],
)
def test_levels_are_compared_by_value(value: object, text: str) -> None:
    assert level_text(value) == text


def test_the_declared_level_is_found() -> None:
    assert find_level("20", [1, 5, 20]) == 20
    assert find_level("7", [1, 5, 20]) is None


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=8).map(str.strip).filter(bool), min_size=2, max_size=2)
)
def test_a_level_of_any_text_can_be_named(levels):
    if level_text(levels[0]) == level_text(levels[1]):
        return
    found = parse(f"{named('a', levels[0])} - {named('a', levels[1])}", {"a": levels})
    assert found.terms == {(level_text(levels[0]),): 1.0, (level_text(levels[1]),): -1.0}
    assert parse(named("a", *levels)).factors == ("a",)


def test_true_and_false_are_levels_however_they_are_spelt():
    assert {level_text(x) for x in (True, "True", "TRUE", "true")} == {"true"}
    assert level_text(False) == "false"
    assert level_text(1) == "1"
    assert find_level("False", [True, False]) is False
    assert find_level("1", [True, False]) is None
