"""How often each procedure cries wolf at a nominal 5 %: ours, and beside them the popular ones.

Population estimand: simulated 2 x 2 factorials over six data sets and five seeds, where the effect
of memory is 0 on average over new data sets but differs between these (`ablate.analyse.simulate`).

Fixed estimand: A/A splits of a table of real runs. Each variant's runs on each data set are split at
random into two halves, as if they were two variants; nothing differs, so whatever is found is a false
alarm. Runs of one seed on several data sets are independent, so every data set is split by itself;
beside that, the same split of seeds on all data sets, as one would do by hand: few distinct splits,
and so a larger Monte-Carlo error. Splits of one variant share runs, so that error is taken over
variants. Without a table the runs are made up: spreads that differ between cells as much as real
ones do, heavy tails.

The t over data sets is that of the verdicts: never narrower than that over seeds on these data sets.
At six data sets the two-sided p of the sign flips is a multiple of 2/64, so their level is 2/64 =
3.1 % and cannot come nearer to 5 %: an exact test of few arrangements, not one that is too careful.

Shared episodes: made-up studies of two mixers and two contexts, in which a list of evaluation episodes
shifts all cells alike, and each context by itself, as lists of 100 episodes of `lq-mix/episode` did: the
memory effect differs between lists with a standard deviation of 5.7 points, while seeds on one list differ by
about 1. Lists and seeds are redrawn in every repetition, and memory is worth nothing over new lists. The old
procedure scores all seeds on one list and takes them as independent runs; the verdicts' draws a list for each
seed, shares it between the seed's cells and pairs by seed. With two data sets of one environment a seed's list
is the same on both, which is why the seed is the unit there too: taking data sets as independent stands beside.

TOST is asked about an effect that lies at the margin, where its false alarm is to call it equivalent.
Popular procedures have no goal: those that take runs as independent answer another question where
data sets differ, and percentile bootstraps are too narrow at five seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from ablate.analyse import batch, mixed
from ablate.analyse.curves import IsotonicRise, Logistic
from ablate.analyse.estimators import Asked, Estimator, RatioOfContrasts, SlopeDifference
from ablate.analyse.intervals import Estimate, Floats, combine, equivalence_p, p_value, wider
from ablate.analyse.randomisation import (
    Block,
    generator,
    holm,
    over_data_sets,
    permutation,
    sign_flip,
)
from ablate.analyse.simulate import Factorial
from ablate.analyse.trends import jonckheere_test
from ablate.bench.update import Row
from ablate.data import d4rl_index
from ablate.errors import UserError, unknown

LEVEL = 0.05
POPULATION_GOAL = (3.0, 6.5)  # per cent
FIXED_GOAL = (3.5, 6.5)
MARGIN = 30.0  # points, wide beside the standard errors, so that TOST can reach its level
LIST_SD, LIST_EFFECT_SD, SEED_SD = (
    12.0,
    5.7,
    1.0,
)  # points: of lists, of memory between them, of seeds
RESAMPLES = 500
DRAWS = 499  # (24 + 1) / (499 + 1) = .05, so that drawing permutations keeps the level exact
DATA_SETS = 6  # that a variant of a real table needs
Halves = Sequence[tuple[Floats, Floats]]  # the two arms on each data set


def inference(
    table: Path | None = None, repetitions: int = 4000, popular: int = 500, splits: int = 250
) -> list[Row]:
    """False alarms of every procedure, one row each.

    table: a CSV of real runs with columns data (or dataset), seed and score; every other column
    tells variants apart. repetitions: of the simulation; the popular procedures, which resample,
    see the first `popular`. splits: of every variant of the table. Raises UserError for a table
    without such columns or with nothing to split.
    """
    runs = real(table) if table is not None else heavy_tailed(generator("bench/inference/runs"))
    source = table.name if table is not None else "made-up heavy-tailed runs"
    return [
        *population_rows(repetitions, popular),
        *fixed_rows(runs, splits, source),
        *fixed_rows(runs, splits, source, together=True),
        *shared_rows(max(2 * repetitions, 400)),
        *estimator_rows(repetitions // 10),
    ]


def population_rows(repetitions: int, popular: int) -> list[Row]:
    """The simulation: what each procedure says of memory, whose effect is 0 over new data sets."""
    design = Factorial()
    rng = generator("bench/inference/population")
    scores, _ = design.draw(rng, repetitions)
    ours = _Tally()
    theirs = _Tally()
    for r in range(repetitions):
        ours.add(population_alarms(scores[r], rng))
        if r < popular:
            theirs.add(_popular_factorial(scores[r], rng))
    what = f"simulation: {design.data_sets} data sets x {design.seeds} seeds, slopes differ"
    return [
        *ours.rows(what, "population", POPULATION_GOAL),
        *theirs.rows(what, "popular", None),
    ]


def shared_rows(repetitions: int, seeds: int = 5) -> list[Row]:
    """Studies whose cells share lists of episodes: the old procedure's false alarms beside the paired one's."""
    found: list[Row] = []
    for data_sets in (1, 2):
        rng = generator(f"bench/inference/shared/{data_sets}")
        one = memory_effects(rng, repetitions, data_sets, seeds, lists=1)
        own = memory_effects(rng, repetitions, data_sets, seeds, lists=seeds)
        paired = _paired(own)
        old, unpaired = _unpaired(one), _unpaired(own)
        apart = batch.combine(
            np.full(data_sets, 1.0 / data_sets), list((own[1] - own[0]).mean(axis=0))
        )
        alarms: dict[str, tuple[str, Floats]] = {
            "one list for all, Welch-Satterthwaite t": ("popular", batch.p_value(old)),
            "a list a seed, paired t over seeds": ("fixed", batch.p_value(paired)),
            "a list a seed, TOST by paired t over seeds": (
                "fixed",
                batch.equivalence_p(paired.shifted(MARGIN), MARGIN),
            ),
            "a list a seed, Welch-Satterthwaite t": ("popular", batch.p_value(unpaired)),
        }
        if data_sets > 1:
            alarms["a list a seed, paired, data sets independent"] = (
                "popular",
                batch.p_value(apart),
            )
        sets = f"{data_sets} data set{'s' if data_sets > 1 else ''}"
        for name, (kind, p) in alarms.items():
            tally = _Tally()
            for alarm in (p <= LEVEL).tolist():
                tally.add({name: alarm})
            goal = FIXED_GOAL if kind == "fixed" else None
            found += tally.rows(f"shared episodes: {sets} x {seeds} seeds", kind, goal)
    return found


def estimator_rows(repetitions: int, seeds: int = 6) -> list[Row]:
    """The built-in estimators where nothing is to be found, a list of episodes a seed."""
    rng = generator("bench/inference/estimators")
    cases: dict[str, tuple[Estimator, float]] = {
        "ratio (Fieller)": (
            RatioOfContrasts({"of": "context[5] - context[1]", "over": "context[20] - context[1]"}),
            0.5,
        ),
        "slope difference": (
            SlopeDifference({"over": "context", "between": "mixer[gru] - mixer[mlp]", "log": True}),
            0.0,
        ),
        "logistic offset": (
            Logistic({"of": "success", "in": "log(context / 5)", "by": "mixer"}),
            0.0,
        ),
        "isotonic rise": (IsotonicRise({"of": "flat", "over": "context"}), 0.0),
    }
    tally = _Tally()
    for r in range(repetitions):
        rows = made_up_curves(rng, seeds)
        alarms = {}
        for name, (estimator, null) in cases.items():
            found = estimator(rows, Asked("score", name=f"{name}/{r}"))
            alarms[f"{name}, two-sided"] = found.p_value(null, "two-sided") <= LEVEL
        tally.add(alarms)
    return tally.rows(
        f"estimators: {seeds} seeds, a list of episodes each", "estimator", FIXED_GOAL
    )


def made_up_curves(rng: np.random.Generator, seeds: int) -> pd.DataFrame:
    """Two mixers over three contexts, alike: `score` rises by 0, 10, 20 points, `flat` doesn't, `success`
    (of 100 episodes) follows a logistic curve of log context. A seed's list of episodes moves all cells,
    and each context by itself."""
    rows = []
    for seed in range(seeds):
        lists = rng.normal(0.0, LIST_SD)
        own = dict(
            zip((1, 5, 20), rng.normal(0.0, LIST_EFFECT_SD / math.sqrt(2.0), 3), strict=True)
        )
        shift = rng.normal(0.0, 0.3)
        for mixer, (context, rise) in itertools.product(
            ("mlp", "gru"), ((1, 0.0), (5, 10.0), (20, 20.0))
        ):
            noise = lists + own[context] + rng.normal(0.0, SEED_SD)
            chance = 1.0 / (1.0 + math.exp(-(math.log(context / 5.0) - shift)))
            success = rng.binomial(100, chance) / 100.0
            cell = {"data": "d", "mixer": mixer, "context": context, "seed": seed}
            rows.append(cell | {"score": 50.0 + rise + noise, "flat": noise, "success": success})
    return pd.DataFrame(rows)


def memory_effects(
    rng: np.random.Generator, repetitions: int, data_sets: int, seeds: int, lists: int
) -> Floats:
    """Scores (2 contexts, 2 mixers, D, R, S) without an effect of memory over new lists.

    lists: 1 for all seeds, or one a seed. A list is the same on all data sets.
    """
    shape = (2, 2, data_sets, repetitions, seeds)
    common = rng.normal(0.0, LIST_SD, (1, 1, 1, repetitions, lists))
    own = rng.normal(0.0, LIST_EFFECT_SD / math.sqrt(2.0), (2, 1, 1, repetitions, lists))
    scores: Floats = 50.0 + common + own + rng.normal(0.0, SEED_SD, shape)
    return scores


def _paired(scores: Floats) -> batch.Estimates:
    """The memory effect formed within seeds."""
    return batch.combine([1.0], [(scores[1] - scores[0]).mean(axis=(0, 1))])


def _unpaired(scores: Floats) -> batch.Estimates:
    """The memory effect of cells that are taken as independent samples."""
    cells = [cell for context in scores for mixer in context for cell in mixer]
    share = np.repeat([-1.0, 1.0], len(cells) // 2) / (len(cells) // 2)
    return batch.combine(share, cells)


def fixed_rows(
    runs: Sequence[Sequence[Floats]], splits: int, source: str, together: bool = False
) -> list[Row]:
    """A/A splits of variants: for each, its runs (n,) on every data set, in the order of seeds.

    together: split all data sets at the same seeds, where they have equally many; there are then at
    most as many splits as ways to halve the seeds.
    """
    rng = generator(f"bench/inference/splits/{together}")
    ours, theirs = _Tally(), _Tally()
    for cells in runs:
        for tally in (ours, theirs):
            tally.next_cluster()
        number = len(cells[0])
        if together and any(len(cell) != number for cell in cells):
            continue
        ways = math.comb(number, number // 2) // (1 if number % 2 else 2)
        for _ in range(min(splits, ways) if together else splits):
            order = rng.permutation(number)
            shuffled = [cell[order] if together else rng.permutation(cell) for cell in cells]
            halves = [(cell[: len(cell) // 2], cell[len(cell) // 2 :]) for cell in shuffled]
            ours.add(fixed_alarms(halves, rng))
            theirs.add(_popular_halves(halves, rng))
    if not ours.clusters[-1]:
        return []
    how = "same seeds everywhere" if together else "each data set by itself"
    what = f"A/A splits, {how}: {source}"
    return [*ours.rows(what, "fixed", FIXED_GOAL), *theirs.rows(what, "popular", None)]


def population_alarms(scores: Floats, rng: np.random.Generator) -> dict[str, bool]:
    """Ours on one simulated study, scores (D, 2 contexts, 2 mixers, S), null memory effect."""
    by_seed = (scores[:, 1] - scores[:, 0]).mean(axis=1)  # (D, S): seeds' contrasts
    contrasts = by_seed.mean(axis=1)
    estimate, _ = over_data_sets(contrasts)
    shifted, _ = over_data_sets(contrasts + MARGIN)
    scales = np.full(len(contrasts), 1.0 / by_seed.shape[1])
    model, _ = mixed.fit(contrasts, scales, list(by_seed))
    assert estimate is not None
    assert shifted is not None
    assert model is not None
    seeds = combine([1.0], [by_seed.mean(axis=0)])  # on these data sets
    estimate = wider(estimate, seeds, 1.0 - LEVEL)
    shifted = wider(shifted, seeds, 1.0 - LEVEL)
    flips = sign_flip(contrasts / len(contrasts), rng)
    return {
        "t over data sets": p_value(estimate) <= LEVEL,
        "mixed model, random slopes, t": p_value(model.estimate) <= LEVEL,
        "exact sign flips over data sets": flips.two_sided <= LEVEL,
        "TOST by t over data sets": equivalence_p(shifted, MARGIN) <= LEVEL,
    }


def fixed_alarms(halves: Halves, rng: np.random.Generator) -> dict[str, bool]:
    """Ours on one A/A split."""
    share = np.array([-1.0, 1.0]) / len(halves)
    estimate = _welch(halves)
    blocks = [Block(share, half) for half in halves]
    pairs = [y[: len(x)] - x for x, y in halves]
    terms = np.concatenate([pair / len(pair) for pair in pairs]) / len(halves)
    at_margin = _welch([(x, y + MARGIN) for x, y in halves])
    return {
        "Welch-Satterthwaite t": p_value(estimate) <= LEVEL,
        "stratified permutation": permutation(blocks, rng, DRAWS).two_sided <= LEVEL,
        "sign flips of seeds' contrasts": sign_flip(terms, rng, DRAWS).two_sided <= LEVEL,
        "Jonckheere-Terpstra permutation": jonckheere_test(blocks, rng, DRAWS).two_sided <= LEVEL,
        "TOST by Welch-Satterthwaite t": equivalence_p(at_margin, MARGIN) <= LEVEL,
    }


def _popular_factorial(scores: Floats, rng: np.random.Generator) -> dict[str, bool]:
    """Popular procedures on one simulated study."""
    without, with_ = scores[:, 0], scores[:, 1]  # (D, mixers, S)
    count, runs = len(scores), without[0].size
    by_seed = (with_ - without).mean(axis=1)  # (D, S)
    model, _ = mixed.fit(
        by_seed.mean(axis=1), np.full(count, 1.0 / by_seed.shape[1]), list(by_seed)
    )
    assert model is not None
    flat = [(x.ravel(), y.ravel()) for x, y in zip(without, with_, strict=True)]
    squares = math.fsum(np.square(a - a.mean()).sum() for half in flat for a in half)
    # Ordinary least squares with a dummy a data set: the data sets' differences are its residuals
    # too, and there are 2 D R runs for D + 1 coefficients.
    gap = np.array([y.mean() - x.mean() for x, y in flat])
    squares += runs / 2.0 * float(np.square(gap - gap.mean()).sum())
    freedom = 2 * count * runs - count - 1
    ols = Estimate(float(gap.mean()), 2.0 * squares / (freedom * count * runs), freedom, 2, 0)
    wald = 2.0 * stats.norm.sf(abs(model.estimate.value) / math.sqrt(model.estimate.variance))
    pooled = stats.ttest_ind(with_.ravel(), without.ravel(), equal_var=False)
    picks = rng.integers(0, count, (RESAMPLES, count))  # data sets, then seeds in them
    seeds = rng.integers(0, by_seed.shape[1], (RESAMPLES, count, by_seed.shape[1]))
    both = by_seed[picks[..., None], seeds].mean(axis=(1, 2))
    only = by_seed[np.arange(count)[:, None], seeds].mean(axis=(1, 2))
    return {
        "Welch's t on pooled runs": bool(pooled.pvalue <= LEVEL),
        "least squares with data-set dummies": p_value(ols) <= LEVEL,
        "mixed model, random slopes, Wald z": bool(wald <= LEVEL),
        "paired t over runs": bool(stats.ttest_1samp(by_seed.ravel(), 0.0).pvalue <= LEVEL),
        "hierarchical bootstrap, percentile": _excludes_zero(both),
        "stratified bootstrap of paired means": _excludes_zero(only),
        "stratified bootstrap of the IQM": _excludes_zero(_bootstrap(flat, _iqm, rng)),
    }


def _popular_halves(halves: Halves, rng: np.random.Generator) -> dict[str, bool]:
    """Popular procedures on one A/A split."""
    each = np.array([p_value(combine([-1.0, 1.0], half)) for half in halves])
    left, right = np.concatenate([x for x, _ in halves]), np.concatenate([y for _, y in halves])
    over, _ = over_data_sets(np.array([y.mean() - x.mean() for x, y in halves]))
    assert over is not None
    return {
        "stratified bootstrap of the IQM": _excludes_zero(_bootstrap(halves, _iqm, rng)),
        "stratified bootstrap of the mean": _excludes_zero(_bootstrap(halves, _mean, rng)),
        "any data set by Welch's t": bool((each <= LEVEL).any()),
        "any data set by Welch's t, Holm": bool((holm(each.tolist()) <= LEVEL).any()),
        "Welch's t on pooled runs": bool(
            stats.ttest_ind(left, right, equal_var=False).pvalue <= LEVEL
        ),
        "t over data sets": p_value(over) <= LEVEL,
    }


def _welch(halves: Halves) -> Estimate:
    """Mean over data sets of the second arm less the first, for new seeds."""
    share = np.array([-1.0, 1.0]) / len(halves)
    return combine(np.tile(share, len(halves)), list(itertools.chain.from_iterable(halves)))


def _mean(scores: Floats) -> Floats:
    """(..., n) -> (...,)."""
    result: Floats = scores.mean(axis=-1)
    return result


def _iqm(scores: Floats) -> Floats:
    """Mean of the middle half, (..., n) -> (...,)."""
    cut = scores.shape[-1] // 4
    kept = np.partition(scores, (cut, scores.shape[-1] - cut - 1), axis=-1)
    result: Floats = kept[..., cut : scores.shape[-1] - cut].mean(axis=-1)
    return result


def _bootstrap(halves: Halves, statistic: object, rng: np.random.Generator) -> Floats:
    """(RESAMPLES,) differences of `statistic`, runs resampled within data set and arm."""
    sides = []
    for side in (0, 1):
        drawn = [
            half[side][rng.integers(0, len(half[side]), (RESAMPLES, len(half[side])))]
            for half in halves
        ]
        sides.append(statistic(np.concatenate(drawn, axis=1)))  # type: ignore[operator]
    result: Floats = sides[1] - sides[0]
    return result


def _excludes_zero(resampled: Floats) -> bool:
    low, high = np.percentile(resampled, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    return not low <= 0.0 <= high


class _Tally:
    """Counts of false alarms by procedure, in clusters that share runs."""

    def __init__(self) -> None:
        self.clusters: list[dict[str, list[bool]]] = [{}]

    def next_cluster(self) -> None:
        if self.clusters[-1]:
            self.clusters.append({})

    def add(self, alarms: dict[str, bool]) -> None:
        for name, alarm in alarms.items():
            self.clusters[-1].setdefault(name, []).append(alarm)

    def rows(self, what: str, kind: str, goal: tuple[float, float] | None) -> list[Row]:
        """kind: the estimand that the procedure is for, or "popular"."""
        found = []
        for name in self.clusters[0]:
            rates = 100.0 * np.array([np.mean(cluster[name]) for cluster in self.clusters])
            rate = float(rates.mean())
            if len(rates) > 1:
                error = float(rates.std(ddof=1)) / math.sqrt(len(rates))
            else:
                error = math.sqrt(rate * (100.0 - rate) / len(self.clusters[0][name]))
            within = "" if goal is None else "yes" if goal[0] <= rate <= goal[1] else "no"
            found.append(
                {
                    "runs": what,
                    "for": kind,
                    "procedure": name,
                    "false alarms %": rate,
                    "s.e.": error,
                    "goal %": f"{goal[0]:g} to {goal[1]:g}" if goal else "",
                    "within": within,
                }
            )
        return found


def real(path: Path) -> list[list[Floats]]:
    """Runs (n,) by data set of every variant of a CSV that has DATA_SETS data sets or more, four
    seeds on each.

    Returns on data sets whose D4RL id is known are put on its scale from 0 to 100.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: it cannot be read as CSV ({reason}).") from None
    data = "data" if "data" in table.columns else "dataset"
    for column in (data, "seed", "score"):
        if column not in table.columns:
            raise unknown(f"{path}: the column", column, table.columns)
    if not pd.api.types.is_numeric_dtype(table["score"]):
        raise UserError(f"{path}: column 'score' holds text; allowed: numbers.")
    finite = np.isfinite(table["score"].to_numpy(dtype=float))
    table = table[finite]
    apart = [c for c in table.columns if c not in (data, "seed", "score")]
    known = d4rl_index.entries()
    names = {name: str(name).removeprefix("d4rl/") for name in table[data].unique()}
    raw = [n for n, bare in names.items() if bare in known]
    scale = pd.Series(1.0, index=table.index)
    offset = pd.Series(0.0, index=table.index)
    returns = table.loc[table[data].isin(raw)]
    if len(returns) and float(returns["score"].abs().median()) > 150.0:  # else they are points
        for name in raw:
            entry = known[names[name]]
            mine = table[data] == name
            offset[mine], scale[mine] = entry.low, (entry.high - entry.low) / 100.0
    table = table.assign(score=(table["score"] - offset) / scale)
    table = table.sort_values("seed", kind="stable")
    found = []
    groups = table.groupby(apart, sort=True) if apart else [("", table)]
    for _, variant in groups:
        cells = [c["score"].to_numpy(dtype=float) for _, c in variant.groupby(data, sort=True)]
        cells = [cell for cell in cells if len(cell) >= 4]
        if len(cells) >= DATA_SETS:
            found.append(cells)
    if len(found) < 2:
        raise UserError(
            f"{path}: {len(found)} variants have {DATA_SETS} data sets with four seeds or more;"
            " allowed: two variants or more."
        )
    return found


def heavy_tailed(
    rng: np.random.Generator, variants: int = 9, data_sets: int = 12, seeds: int = 10
) -> list[list[Floats]]:
    """Made-up runs: standard deviations of cells log-normal with median 2.7 and root mean square
    10.7 points (those of d3rlpy's published runs), Student's t with 4 degrees of freedom."""
    log_sd = math.sqrt(math.log(10.7 / 2.7))
    spread = 2.7 * np.exp(log_sd * rng.normal(size=(variants, data_sets, 1)))
    noise = rng.standard_t(4, size=(variants, data_sets, seeds)) / math.sqrt(2.0)
    level = rng.normal(50.0, 20.0, (variants, data_sets, 1))
    return [list(variant) for variant in level + spread * noise]
