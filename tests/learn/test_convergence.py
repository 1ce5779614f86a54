"""Whether a training has converged, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablate.learn.convergence import loss_fall


def curve(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [{"update": update, "heldout_loss": loss} for update, loss in points]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # From 4 at 30 to 1 at 90; at 60, two thirds, it is 2: (2 - 1) / (4 - 1).
        ([(30, 4.0), (60, 2.0), (90, 1.0)], 1 / 3),
        # Two thirds of 100 lie between 60 and 100 at 66.67, a sixth of the way: 2 - 1/6.
        ([(20, 5.0), (60, 2.0), (100, 1.0)], (2 - 1 / 6 - 1) / 4),
        ([(10, 3.0), (80, 1.0), (90, 1.0), (120, 1.0)], 0.0),
        ([(30, 3.0), (60, 1.0), (90, 1.5)], 0.0),  # it rose at the end
        ([(30, 1.0), (60, 2.0), (90, 1.0)], math.nan),  # it never fell
        ([(30, 1.0), (60, 2.0), (90, 3.0)], math.nan),
        ([(45, 2.0), (90, 1.0)], math.nan),  # two points
        ([(70, 3.0), (80, 2.0), (90, 1.0)], math.nan),  # no point before two thirds
        ([(30, 4.0), (45, math.nan), (60, 2.0), (90, 1.0)], 1 / 3),
        ([], math.nan),
    ],
)
def test_the_fall_over_the_last_third(points: list[tuple[float, float]], expected: float) -> None:
    assert loss_fall(curve(*points)) == pytest.approx(expected, nan_ok=True)


def test_an_exponential_falls_by_what_the_formula_says() -> None:
    updates = np.arange(1, 3001)
    found = loss_fall(curve(*zip(updates, 1 + np.exp(-updates / 700), strict=True)))
    start, then, last = (math.exp(-u / 700) for u in (1, 2000, 3000))
    assert found == pytest.approx((then - last) / (start - last), rel=1e-9)


def test_a_curve_without_a_held_out_loss_says_nothing() -> None:
    assert math.isnan(loss_fall([{"update": u, "train_loss": 1.0 / u} for u in (1, 2, 3)]))


def test_a_joint_models_curve_is_that_of_the_density_of_a_timestep() -> None:
    points = [(30, 4.0), (60, 2.0), (90, 1.0)]
    found = loss_fall([{"update": update, "timestep_nll": loss} for update, loss in points])
    assert found == pytest.approx(1 / 3)
