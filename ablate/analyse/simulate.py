"""Made-up runs with known truth: a 2 x 2 factorial of memory and architecture over data sets.

    score = level_d + (memory + slope_d) (m - 1/2) + (architecture + slope'_d) (a - 1/2)
            + interaction (m - 1/2) (a - 1/2) + seed effects + noise,    m, a in {0, 1}

so that the three effects are the usual contrasts: differences of means, and the difference of
differences. Seeds are shared by the four cells of a data set and by data sets. The defaults are the
spreads of the simulation by which the procedures were chosen, in normalised points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablate.analyse.intervals import Floats

MIXERS = ("mlp", "gru")
CONTEXTS = (1, 20)
CONTRASTS = {
    "memory": "context[20] - context[1]",
    "architecture": "mixer[gru] - mixer[mlp]",
    "interaction": "(context[20] - context[1]) : (mixer[gru] - mixer[mlp])",
}


@dataclass(frozen=True)
class Factorial:
    """Effects and standard deviations, in points; data_sets and seeds are counts."""

    data_sets: int = 6
    seeds: int = 5
    memory: float = 0.0
    architecture: float = 0.0
    interaction: float = 0.0
    slope_sd: float = 4.0  # of both effects over data sets
    level_sd: float = 15.0  # of the data sets' levels
    data_seed_sd: float = 4.0
    seed_sd: float = 3.0
    noise_sd: float = 6.0

    def draw(self, rng: np.random.Generator, repetitions: int) -> tuple[Floats, Floats]:
        """Scores (R, D, 2 contexts, 2 mixers, S) and the slopes of memory on the data sets (R,
        D)."""
        shape = (repetitions, self.data_sets)
        m = np.array([-0.5, 0.5])[:, None, None]
        a = np.array([-0.5, 0.5])[:, None]
        slopes = rng.normal(0.0, self.slope_sd, shape)
        others = rng.normal(0.0, self.slope_sd, shape)
        level = rng.normal(0.0, self.level_sd, shape)
        scores = rng.normal(0.0, self.noise_sd, (*shape, 2, 2, self.seeds))
        scores += rng.normal(0.0, self.data_seed_sd, (*shape, 1, 1, self.seeds))
        scores += rng.normal(0.0, self.seed_sd, (repetitions, 1, 1, 1, self.seeds))
        scores += level[..., None, None, None]
        scores += (self.memory + slopes)[..., None, None, None] * m
        scores += (self.architecture + others)[..., None, None, None] * a
        scores += self.interaction * m * a
        return scores, slopes


def table(scores: Floats) -> pd.DataFrame:
    """One draw (D, 2, 2, S) as a tidy table: a row a trial."""
    index = np.indices(scores.shape).reshape(4, -1)
    return pd.DataFrame(
        {
            "data": [f"d{i + 1}" for i in index[0]],
            "context": [CONTEXTS[i] for i in index[1]],
            "mixer": [MIXERS[i] for i in index[2]],
            "seed": index[3],
            "score": scores.ravel(),
        }
    )
