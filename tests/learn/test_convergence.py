"""Whether a training has converged, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablate.learn.convergence import loss_fall


def curve(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [{"update": update, "heldout_loss": loss} for update, loss in points]


@pytest.mark.parametrize(
    ("untrained", "points", "expected"),
    [
        # From 4 to 1 at 90; at 60, two thirds, it is 2: (2 - 1) / (4 - 1), wherever the first point is.
        (4.0, [(30, 3.5), (60, 2.0), (90, 1.0)], 1 / 3),
        (4.0, [(30, 1.0), (60, 2.0), (90, 1.0)], 1 / 3),
        # Two thirds of 100 lie between 60 and 100 at 66.67, a sixth of the way: 2 - 1/6.
        (5.0, [(20, 3.0), (60, 2.0), (100, 1.0)], (2 - 1 / 6 - 1) / 4),
        (3.0, [(10, 2.0), (80, 1.0), (90, 1.0), (120, 1.0)], 0.0),
        (3.0, [(30, 3.0), (60, 1.0), (90, 1.5)], 0.0),  # it rose at the end
        (1.0, [(30, 1.0), (60, 2.0), (90, 1.0)], math.nan),  # it never fell
        (1.0, [(30, 1.0), (60, 2.0), (90, 3.0)], math.nan),
        (math.nan, [(30, 3.0), (60, 2.0), (90, 1.0)], math.nan),
        (4.0, [(45, 2.0), (90, 1.0)], math.nan),  # two points
        (4.0, [(70, 3.0), (80, 2.0), (90, 1.0)], math.nan),  # no point before two thirds
        (4.0, [(30, 4.0), (45, math.nan), (60, 2.0), (90, 1.0)], 1 / 3),
        (4.0, [], math.nan),
    ],
)
def test_the_fall_over_the_last_third(
    untrained: float, points: list[tuple[float, float]], expected: float
) -> None:
    found = loss_fall(curve(*points), {"heldout_loss": untrained})
    assert found == pytest.approx(expected, nan_ok=True)


def test_an_exponential_falls_by_what_the_formula_says() -> None:
    updates = np.arange(1, 3001)
    points = curve(*zip(updates, 1 + np.exp(-updates / 700), strict=True))
    then, last = (math.exp(-u / 700) for u in (2000, 3000))
    found = loss_fall(points, {"heldout_loss": 2.0})
    assert found == pytest.approx((then - last) / (1 - last), rel=1e-9)
    fewer = loss_fall(points[499::500], {"heldout_loss": 2.0})
    assert fewer == pytest.approx(found, rel=1e-9)  # however many points there are


def test_a_curve_without_a_held_out_loss_says_nothing() -> None:
    points = [{"update": u, "train_loss": 1.0 / u} for u in (1, 2, 3)]
    assert math.isnan(loss_fall(points, {"heldout_loss": 2.0}))


def test_a_joint_models_curve_is_that_of_the_density_of_a_timestep() -> None:
    points = [(30, 4.0), (60, 2.0), (90, 1.0)]
    rows = [{"update": update, "timestep_nll": loss} for update, loss in points]
    assert loss_fall(rows, {"timestep_nll": 4.0}) == pytest.approx(1 / 3)
