"""Effects that were put in are found, by the rule and on both estimands."""

from __future__ import annotations

import numpy as np
import pytest
from analyse_samples import analyse

from ablate.analyse.simulate import CONTEXTS, CONTRASTS, MIXERS, Factorial, table
from ablate.analyse.verdict import judge
from ablate.study.hypotheses import Hypothesis

PLANTED = {"memory": 6.0, "architecture": 0.0, "interaction": 3.0}
WANTED = {"memory": "supported", "architecture": "equivalent", "interaction": "supported"}


def hypotheses(estimand: str) -> list[Hypothesis]:
    tests = {"memory": "superiority", "architecture": "equivalence", "interaction": "superiority"}
    return [
        Hypothesis(
            id=name,
            says=f"{name} as planted",
            contrast=CONTRASTS[name],
            test=tests[name],
            estimand=estimand,
            margin=3.0,
            primary=True,
        )
        for name in PLANTED
    ]


def study(draw: int, slopes: float):
    design = Factorial(
        **PLANTED,
        data_sets=8,
        seeds=10,
        slope_sd=slopes,
        data_seed_sd=1.0,
        seed_sd=1.0,
        noise_sd=2.0,
    )
    return table(design.draw(np.random.default_rng(draw), 1)[0][0])


@pytest.mark.parametrize("draw", range(5))
@pytest.mark.parametrize("estimand", ["fixed", "population"])
def test_memory_6_architecture_0_and_interaction_3(draw, estimand):
    result = analyse(study(draw, slopes=1.0), hypotheses(estimand), registered=True, margin=3.0)
    assert {v.hypothesis: v.verdict for v in result.verdicts} == WANTED
    for verdict in result.verdicts:
        assert verdict.low < PLANTED[verdict.hypothesis] + 2.0
        assert verdict.high > PLANTED[verdict.hypothesis] - 2.0
        assert verdict.status == "confirmatory"


def test_the_intervals_cover_what_was_planted():
    """For new data sets, in 40 studies at 95 %."""
    missed = dict.fromkeys(PLANTED, 0)
    wanted = hypotheses("population")
    levels = {"context": CONTEXTS, "mixer": MIXERS}
    before = dict.fromkeys(PLANTED, True)
    for draw in range(40):
        runs = study(draw, slopes=3.0)
        for verdict in judge(runs, wanted, levels, alpha=0.05, margin=3.0, registered=before):
            truth = PLANTED[verdict.hypothesis]
            missed[verdict.hypothesis] += not verdict.low <= truth <= verdict.high
    assert max(missed.values()) <= 7  # of 40; the .999 quantile at 5 %
    assert sum(missed.values()) <= 14  # of 120


def test_a_table_of_a_draw_has_its_means():
    scores, slopes = Factorial(memory=5.0).draw(np.random.default_rng(1), 3)
    assert scores.shape == (3, 6, 2, 2, 5)
    assert slopes.shape == (3, 6)
    found = table(scores[0])
    cell = found.query("data == 'd2' and context == 20 and mixer == 'mlp'")["score"]
    assert cell.mean() == pytest.approx(scores[0, 1, 1, 0].mean())
    many, own = Factorial(
        memory=5.0, noise_sd=0.0, data_seed_sd=2.0, seed_sd=2.0, interaction=3.0, architecture=1.0
    ).draw(np.random.default_rng(2), 50)
    gain = (many[:, :, 1] - many[:, :, 0]).mean(axis=(2, 3))
    assert gain == pytest.approx(5.0 + own)  # seeds hit all cells of a data set alike
    twice = (many[:, :, 1, 1] - many[:, :, 1, 0]) - (many[:, :, 0, 1] - many[:, :, 0, 0])
    assert twice == pytest.approx(3.0)
