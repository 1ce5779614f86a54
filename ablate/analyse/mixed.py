"""The mixed model with random slopes: the model-based twin of the t over data sets.

Runs r of cell c on data set d, where the contrast has the weights w_dc (0 but for its cells):

    y_dcr = (cell means free on every data set but for the contrast) + e_dcr,   e ~ N(0, s^2)
    sum_c w_dc E[y_dc] = beta + b_d,                                            b ~ N(0, t^2)

Every data set has a level and other effects of its own (fixed) and its own size of the contrast
(the random slope), as Barr et al. ask of confirmatory tests; the spread of seeds is pooled over data
sets. With k_d = sum_c w_dc^2 / n_dc the restricted likelihood is that of two independent parts, the
spread within cells (N - C degrees of freedom) and the data sets' contrasts, N(beta, s^2 (rho + k_d))
with rho = t^2 / s^2. s^2 and beta are found in closed form for each rho, so that one bounded variable
is left: nothing is iterated over matrices, and nothing fails to converge. Unequal numbers of
seeds and missing cells enter through k_d. It is the REML fit of statsmodels' MixedLM with the same
terms, but for its t with D - 1 degrees of freedom instead of z, which gives twice as many false
alarms at 6 data sets x 5 seeds (`ablate bench inference`).

Where the cells of a data set share their seeds, the contrasts of single seeds take the place of the
cells (k_d = 1 / seeds): what a seed does to all cells alike then cancels, as it does with a random
effect of the seed in the model.

Source: D. J. Barr, R. Levy, C. Scheepers and H. J. Tily, J. Memory and Language 68 (2013) 255-278;
H. D. Patterson and R. Thompson, Biometrika 58 (1971) 545-554 (REML).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from ablate.analyse.intervals import Estimate, Floats, spread


@dataclass(frozen=True)
class Mixed:
    """A fit. `estimate` has D - 1 degrees of freedom; seed_sd, slope_sd: s and t of the model."""

    estimate: Estimate
    seed_sd: float
    slope_sd: float


def fit(contrasts: Floats, scales: Floats, within: Sequence[Floats]) -> tuple[Mixed | None, str]:
    """Fit the model by REML.

    contrasts (D,): the data sets' contrasts of cell means; scales (D,): their k_d; within: samples
    whose spread is that between seeds, cells' runs or seeds' contrasts (n_c,). Returns (fit, "") or
    (None, why there is none).
    """
    count = len(contrasts)
    if count < 2:
        return None, "a random slope needs two data sets or more"
    freedom = sum(len(cell) - 1 for cell in within)
    squares = math.fsum((len(cell) - 1) * spread(cell) for cell in within if len(cell) > 1)
    if freedom == 0:
        return None, "no cell has two seeds, so slopes and seeds can't be told apart"
    if squares == 0.0 or float(np.ptp(contrasts)) == 0.0:
        return None, "nothing varies over seeds or over data sets"
    total = freedom + count - 1
    # The contrast variance that seeds alone would give sets the scale on which rho is searched.
    unit = float(np.mean(scales))

    def parts(ratio: float) -> tuple[float, float, float, float]:
        """At rho = ratio * unit: beta, sum of 1 / (rho + k), s^2 and -2 log restricted likelihood."""
        inverse = 1.0 / (ratio * unit + scales)  # (D,)
        whole = float(inverse.sum())
        beta = float(inverse @ contrasts) / whole
        variance = (squares + float(inverse @ np.square(contrasts - beta))) / total
        deviance = total * math.log(variance) - float(np.log(inverse).sum()) + math.log(whole)
        return beta, whole, variance, deviance

    # ratio = x / (1 - x): the interval (0, 1) holds every ratio. A grid finds the basin, Brent the
    # bottom; the boundary x = 0 (no spread of slopes) is a candidate of its own.
    def objective(x: float) -> float:
        return parts(x / (1.0 - x))[3]

    grid = np.linspace(0.0, 1.0, 34)[:-1] ** 0.5
    values = [objective(x) for x in grid]
    best = int(np.argmin(values))
    low = float(grid[max(best - 1, 0)])
    high = float(grid[best + 1]) if best + 1 < len(grid) else 1.0 - 1e-9
    found = optimize.minimize_scalar(
        objective, bounds=(low, high), method="bounded", options={"xatol": 1e-10}
    )
    x = float(found.x) if found.fun < values[0] else 0.0
    beta, whole, variance, _ = parts(x / (1.0 - x))
    slope = variance * unit * x / (1.0 - x)
    estimate = Estimate(beta, variance / whole, float(count - 1), count, 0)
    return Mixed(estimate, math.sqrt(variance), math.sqrt(slope)), ""
