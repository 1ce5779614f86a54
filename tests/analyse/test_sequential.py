"""Looks before all seeds are there: boundaries against published tables, and what they let through."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from analyse_samples import claim, tidy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablate.analyse import batch, decisions, sequential
from ablate.analyse.sequential import boundaries, constant, crossing, plan, spend
from ablate.analyse.verdict import INCONCLUSIVE, SUPPORTED, judge
from ablate.study.looks import SequentialSection

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
KINDS = [
    (spending, bound) for spending in ("obrien-fleming", "pocock") for bound in ("union", "normal")
]


def declared(*seeds: int, spending: str = "obrien-fleming", bound: str = "union"):
    return SequentialSection(looks=seeds, spending=spending, bound=bound)


@pytest.mark.parametrize(
    ("kind", "published"),
    [  # five equal looks, two-sided 5 %: Lan and DeMets' spending functions
        ("obrien-fleming", (4.877, 3.357, 2.680, 2.290, 2.031)),
        ("pocock", (2.438, 2.427, 2.410, 2.397, 2.386)),
    ],
)
def test_spending_boundaries_are_the_published_ones(kind, published):
    spent = tuple(2.0 * spend(kind, t, 0.025) for t in FIFTHS)
    assert np.allclose(boundaries(FIFTHS, spent, 2), published, atol=6e-4)


@pytest.mark.parametrize(
    ("looks_", "pocock", "obrien_fleming"),
    [  # Jennison and Turnbull (2000), tables 2.1 and 2.3, alpha = .05
        (2, 2.178, 1.977),
        (3, 2.289, 2.004),
        (4, 2.361, 2.024),
        (5, 2.413, 2.040),
        (10, 2.555, 2.087),
    ],
)
def test_classical_boundaries_are_the_published_ones(looks_, pocock, obrien_fleming):
    fractions = [(i + 1) / looks_ for i in range(looks_)]
    assert constant(fractions, 0.05)[-1] == pytest.approx(pocock, abs=6e-4)
    assert constant(fractions, 0.05, power=0.5)[-1] == pytest.approx(obrien_fleming, abs=6e-4)


def test_unequal_looks_agree_with_the_multivariate_normal():
    fractions = np.array([0.3, 0.5, 1.0])
    z = np.array([2.5, 2.2, 1.8])
    low = np.minimum.outer(fractions, fractions) / np.sqrt(np.outer(fractions, fractions))
    inside = stats.multivariate_normal(cov=low, abseps=1e-9).cdf(z)
    assert crossing(fractions, z, sides=1) == pytest.approx(1.0 - inside, abs=1e-6)


@pytest.mark.parametrize(("spending", "bound"), KINDS)
def test_all_of_alpha_is_spent_and_no_more(spending, bound):
    made = plan(declared(4, 6, 8, 10, spending=spending, bound=bound), 0.05)
    assert made.spent[-1] == 0.05
    assert np.all(np.diff(made.spent) > 0.0)
    if bound == "union":
        assert sum(made.levels) == pytest.approx(0.05)
    else:
        z = stats.norm.isf(made.levels)
        assert crossing([0.4, 0.6, 0.8, 1.0], z, sides=1) == pytest.approx(0.05, abs=1e-7)


def test_one_look_is_no_look():
    for bound in ("union", "normal"):
        assert plan(declared(10, bound=bound), 0.05, 8).levels[0] == pytest.approx(0.05)


@given(
    st.lists(st.integers(2, 30), min_size=2, max_size=5, unique=True).map(sorted),
    st.sampled_from(["obrien-fleming", "pocock"]),
    st.integers(1, 12),
)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_a_level_holds_for_every_divisor_of_holm(seeds, spending, divisor):
    found = {
        bound: plan(declared(*seeds, spending=spending, bound=bound), 0.05, 12)
        for bound in ("union", "normal")
    }
    assert np.all(np.array(found["union"].levels) <= np.array(found["normal"].levels) + 1e-9)
    z = stats.norm.isf(np.array(found["normal"].levels) / divisor)
    assert crossing([n / seeds[-1] for n in seeds], z, 1) <= 0.05 / divisor * (1.0 + 1e-4)


@pytest.mark.parametrize("seeds", [(2, 3, 4, 5), (4, 6, 8, 10), (3, 5, 10)])
@pytest.mark.parametrize("spreads", [(1.0, 1.0), (3.0, 1.0)])
def test_overall_error_of_welchs_t(seeds, spreads):
    """Measured: the union keeps 5 % everywhere; the normal law's bounds go up to 6.3 % where Welch's
    t is itself liberal (spreads of 3 and 1)."""
    repetitions = 20_000
    rng = np.random.default_rng(3)
    cells = [s * rng.standard_normal((repetitions, seeds[-1])) for s in spreads]
    for alternative, (spending, bound) in itertools.product(("greater", "two-sided"), KINDS):
        made = plan(declared(*seeds, spending=spending, bound=bound), 0.05)
        stopped = np.zeros(repetitions, dtype=bool)
        for n, level in zip(seeds, made.levels, strict=True):
            estimates = batch.combine([1.0, -1.0], [cell[:, :n] for cell in cells])
            stopped |= batch.p_value(estimates, 0.0, alternative) < level
        rate = float(stopped.mean())
        noise = 3.0 * np.sqrt(0.05 * 0.95 / repetitions)
        assert rate < (0.05 if bound == "union" else 0.063) + noise, (spending, bound, rate)


def test_overall_error_through_the_verdicts_themselves():
    """A family of three true nulls, judged at each look: how often any of them is ever supported."""
    repetitions, seeds = 30, (3, 4)
    hypotheses = [
        claim("a", primary=True),
        claim("b", "mixer[gru] - mixer[mlp]", test="difference", primary=True),
        claim("c", threshold=0.0, where={"mixer": "mlp"}, margin=1.0, primary=True),
    ]
    made = plan(declared(*seeds), 0.05, divisors=6)
    levels = {"data": ["d"], "mixer": ["mlp", "gru"], "context": [1, 20]}
    false = 0
    for draw in range(repetitions):
        table = tidy(lambda cell: 0.0, data=["d"], mixer=["mlp", "gru"], seeds=seeds[-1], draw=draw)
        for n, level in zip(seeds, made.levels, strict=True):
            found = judge(
                table[table["seed"] < n].reset_index(drop=True),
                hypotheses,
                levels,
                alpha=level,
                margin=1.0,
                registered=dict.fromkeys("abc", True),
            )
            if any(v.verdict == SUPPORTED for v in found):
                false += 1
                break
    assert false <= stats.binom.ppf(0.999, repetitions, 0.05)


def record(*verdicts: str) -> decisions.Record:
    made = plan(declared(4, 6, 8), 0.05)
    found = decisions.Record("hash", made, (), {}, ("a", "b"))
    for i, verdict in enumerate(verdicts):
        look = decisions.Look(made.seeds[i], made.levels[i], 10 * (i + 1), 0)
        table = tidy(lambda cell: 0.0, seeds=2)
        kinds = {"a": verdict, "b": INCONCLUSIVE}
        blank = judge(
            table,
            [claim("a"), claim("b")],
            {"data": ["lq-mix/episode"], "context": [1, 20]},
            alpha=0.05,
            margin=3.0,
            registered={"a": True, "b": True},
        )
        found = decisions.after(
            found, look, [replace(v, verdict=kinds[v.hypothesis]) for v in blank]
        )
    return found


def test_what_a_look_decided_stays_decided(tmp_path):
    found = record(INCONCLUSIVE, SUPPORTED, INCONCLUSIVE)
    assert found.decided["a"].look == 2
    assert found.open == ("b",)
    (tmp_path / decisions.NAME).write_text(found.text())
    assert decisions.read(tmp_path) == found
    verdicts = judge(
        tidy(lambda cell: 0.0, seeds=3),
        [claim("a"), claim("b")],
        {"data": ["lq-mix/episode"], "context": [1, 20]},
        alpha=found.level,
        margin=3.0,
        registered={"a": True, "b": True},
    )
    a, b = decisions.held(verdicts, found)
    assert (a.verdict, b.verdict) == (SUPPORTED, verdicts[1].verdict)
    assert "decided at look 2 of 3" in a.notes[-1]


def test_the_line_says_how_the_study_was_run():
    assert "no look was taken yet" in record().line
    assert "look 1 of 3 (4 seeds" in record(INCONCLUSIVE).line
    ended = record(INCONCLUSIVE, INCONCLUSIVE, SUPPORTED).line
    assert "ended at the last, look 3 of 3" in ended
    assert ended.endswith("not decided: b.")


def test_spending_grows_with_information():
    for kind in ("obrien-fleming", "pocock"):
        spent = [spend(kind, t, 0.05) for t in np.linspace(0.01, 1.0, 50)]
        assert np.all(np.diff(spent) > 0.0)
        assert spent[-1] == 0.05
    assert sequential.spend("obrien-fleming", 0.2, 0.05) < sequential.spend("pocock", 0.2, 0.05)
