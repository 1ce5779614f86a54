"""Refusals are one readable line: where, what was found, what is allowed."""

from __future__ import annotations

from ablate.errors import UserError, unknown


def test_a_near_name_is_suggested() -> None:
    error = unknown("mixer", "grru", ["gru", "lstm"])
    assert isinstance(error, UserError)
    assert str(error) == "mixer: 'grru' is not known; allowed: gru, lstm. Did you mean 'gru'?"


def test_a_far_one_is_not() -> None:
    assert str(unknown("mixer", "zzz", ["gru", "lstm"])) == (
        "mixer: 'zzz' is not known; allowed: gru, lstm."
    )


def test_any_value_can_be_refused() -> None:
    assert str(unknown("context", 4, (1, 5, 20))) == (
        "context: '4' is not known; allowed: 1, 5, 20."
    )
