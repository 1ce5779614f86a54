"""What a fraction of a factorial can tell."""

import itertools

import pandas as pd
import pytest

from ablate.study.aliasing import Effect, aliasing

LEVELS = {"data": ["d"], "a": [0, 1], "b": [0, 1], "c": [0, 1]}


def cells(keep=lambda a, b, c: True, levels=LEVELS) -> pd.DataFrame:
    rows = [row for row in itertools.product(*levels.values()) if keep(*row[1:4])]
    return pd.DataFrame(rows, columns=list(levels))


def by_name(table: pd.DataFrame, levels=LEVELS) -> dict[str, Effect]:
    return {effect.name: effect for effect in aliasing(table, levels).effects}


def test_a_full_factorial_estimates_everything() -> None:
    found = aliasing(cells(), LEVELS)
    assert (found.run, found.full, found.fraction) == (8, 8, 1.0)
    assert all(e.estimable == e.degrees == 1 for e in found.effects)
    assert [e.name for e in found.effects] == ["a", "b", "c", "a:b", "a:c", "b:c"]
    assert found.words == [
        "8 of the 8 cells of the full factorial on these data sets are run (100.0 %).",
        "Not varied, so without any effect to estimate: data.",
        "Estimable in full: a, b, c, a:b, a:c, b:c.",
    ]


def test_a_half_fraction_aliases_main_effects_with_interactions() -> None:
    """The textbook 2^(3-1) design with c = ab."""
    effects = by_name(cells(lambda a, b, c: (a + b + c) % 2 == 0))
    assert {n: e.partners for n, e in effects.items()} == {
        "a": ("b:c",),
        "b": ("a:c",),
        "c": ("a:b",),
        "a:b": ("c",),
        "a:c": ("b",),
        "b:c": ("a",),
    }
    assert all((e.present, e.estimable) == (1, 0) for e in effects.values())


def test_factors_that_change_together_are_aliased_with_each_other() -> None:
    effects = by_name(cells(lambda a, b, c: a == b))
    assert (effects["a"].estimable, effects["a"].partners) == (0, ("b",))
    assert (effects["a:b"].present, effects["a:b"].estimable) == (0, 0)
    assert effects["c"].estimable == 1
    assert effects["a:c"].partners == ("b:c",)


def test_one_factor_at_a_time_estimates_main_effects_only() -> None:
    found = aliasing(cells(lambda a, b, c: a + b + c <= 1), LEVELS)
    effects = {e.name: e for e in found.effects}
    assert all(effects[n].estimable == 1 for n in "abc")
    assert all(effects[n].present == 0 for n in ("a:b", "a:c", "b:c"))
    assert "a:b: not estimable; its combinations were not run together." in found.words


def test_levels_that_were_never_run_are_said_and_don_t_count() -> None:
    levels = {**LEVELS, "a": [0, 1, 2]}
    found = aliasing(cells(), levels)
    assert found.never_run == {"a": [2]}
    assert (found.run, found.full) == (8, 12)
    assert "Never run: a 2." in found.words


def test_missing_combinations_cost_degrees_of_freedom() -> None:
    levels = {"data": ["d"], "a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1]}
    table = cells(lambda a, b, c: (a, b) != (2, 2), levels)
    effects = by_name(table, levels)
    pair = effects["a:b"]
    assert (pair.degrees, pair.present, pair.estimable) == (4, 3, 3)
    assert effects["a"].estimable == 2
    words = aliasing(table, levels).words
    assert (
        "a:b: 3 of its 4 degrees of freedom estimable; 1 lost to combinations that were not run."
    ) in words


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_cells_does_not_matter(order: int) -> None:
    table = cells(lambda a, b, c: (a + b + c) % 2 == 0)[::order]
    assert by_name(table)["a"].partners == ("b:c",)


def test_data_sets_that_were_not_run_don_t_count() -> None:
    assert aliasing(cells(), {**LEVELS, "data": ["d", "e"]}).full == 8
