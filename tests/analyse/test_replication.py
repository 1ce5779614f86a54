"""Whether an effect reproduces an earlier one: every branch of the written rule."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablate.analyse.intervals import combine
from ablate.analyse.replication import judge


def ours(effect: float, half_width: float):
    """An estimate of ten seeds each side whose 95 % interval has about this half-width."""
    noise = np.linspace(-1.0, 1.0, 10)
    noise *= half_width / 0.90 if half_width else 0.0
    return combine([1.0, -1.0], [effect + noise, noise])


@pytest.mark.parametrize(
    ("mine", "earlier", "margin", "word"),
    [
        ((20.0, 2.0), (29.0, 3.2), 3.0, "reproduces"),
        ((-20.0, 2.0), (29.0, 3.2), 3.0, "refutes"),
        ((0.5, 1.0), (-0.4, 0.1), 3.0, "reproduces"),  # both none, whatever their signs
        ((0.5, 1.0), (29.0, 3.2), 3.0, "refutes"),
        ((20.0, 2.0), (-0.4, 0.1), 3.0, "refutes"),
        ((3.0, 1.0), (0.4, 0.1), 3.0, "open"),  # more than none, perhaps not more than the margin
        ((20.0, 2.0), (-1.0, 5.3), 3.0, "open"),
        ((1.0, 8.0), (29.0, 3.2), 3.0, "open"),
        ((20.0, 2.0), (29.0, math.nan), 3.0, "open"),
        ((0.5, 0.1), (0.2, 0.1), None, "reproduces"),
        ((-0.5, 0.1), (0.2, 0.1), None, "refutes"),
        ((0.5, 1.0), (0.2, 0.1), None, "open"),
    ],
)
def test_the_rule(mine, earlier, margin, word):
    assert judge(ours(*mine), *earlier, margin) == word
    assert judge(ours(-mine[0], mine[1]), -earlier[0], earlier[1], margin) == word
