"""What only this study estimates and draws: curves of a share over log(K / D) that begin at chance, and how far two
arms are apart in the middle of them; what a number of tokens buys in each layout.

K is the window in timesteps, D the distance to what decides. With g what chance gives,

    E[share] = g + (1 - g) / (1 + exp(-(a + b log(K / D) + c arm)))

as psychometric functions have it (F. A. Wichmann and N. J. Hill, Perception & Psychophysics 63 (2001) 1293-1313). Where
the share jumps from chance to one between two windows the likelihood has no maximum; with Jeffreys' prior on (a, b, c)
it has one (D. Firth, Biometrika 80 (1993) 27-38; G. Heinze and M. Schemper, Statistics in Medicine 21 (2002)
2409-2419).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from pydantic import ConfigDict, Field
from scipy import optimize, stats

from ablate import words
from ablate.analyse.estimators import Asked, ByT, Estimator, Untold, jackknife, seeds_paired
from ablate.analyse.intervals import Estimate
from ablate.analyse.tidy import several_budgets, usable, values
from ablate.registry import Section, register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results
from ablate.study.contrast import Level, level_text
from ablate.words import Response

Floats = np.ndarray
WINDOW = "plans.timesteps"  # the column of K
CLEAR = 30.0  # of a logit, beyond which a share is 0 or 1
# A share counts as that of so many trials, so that the prior weighs little; what it is worth the jackknife finds.
TRIALS = 100.0
STEPS = 100  # of scoring, at most


def distance(data: str) -> float:
    """D of a fork's name; NaN of any other data set."""
    found = re.match(r"forkcommit/(\d+)", data)
    return float(found[1]) if found else math.nan


def reach(rows: pd.DataFrame) -> Floats:
    """log(K / D) of every row."""
    found: Floats = np.log(
        rows[WINDOW].to_numpy(float) / rows["data"].map(distance).to_numpy(float)
    )
    return found


# --- the estimator ---


def shares(b: Floats, x: Floats, chance: float) -> Floats:
    """Expected shares (n,) at x (n, Q) under coefficients b (Q,)."""
    found: Floats = chance + (1.0 - chance) / (1.0 + np.exp(-np.clip(x @ b, -CLEAR, CLEAR)))
    return found


def information(b: Floats, x: Floats, chance: float) -> Floats:
    """Fisher's information (Q, Q) of `TRIALS` trials in each row."""
    mean = shares(b, x, chance)
    slope = (mean - chance) * (1.0 - mean) / (1.0 - chance)  # of the share by the logit
    weight = np.square(slope) / np.maximum(mean * (1.0 - mean), 1e-300)
    found: Floats = TRIALS * x.T @ (weight[:, None] * x)
    return found


def likelihood(b: Floats, x: Floats, y: Floats, chance: float, prior: bool) -> float:
    """Log-likelihood of the shares y (n,), with half the log-determinant of the information where the prior counts."""
    mean = np.clip(shares(b, x, chance), 1e-12, 1.0 - 1e-12)
    found = TRIALS * float((y * np.log(mean) + (1.0 - y) * np.log1p(-mean)).sum())
    if prior:
        sign, logarithm = np.linalg.slogdet(information(b, x, chance))
        found += 0.5 * logarithm if sign > 0 else -1e6
    return found


def score(b: Floats, x: Floats, y: Floats, chance: float, prior: bool) -> Floats:
    """The derivative (Q,) of `likelihood` by b."""
    mean = np.clip(shares(b, x, chance), chance + 1e-12, 1.0 - 1e-12)
    p = (mean - chance) / (1.0 - chance)
    slope, spread = (1.0 - chance) * p * (1.0 - p), mean * (1.0 - mean)
    each = TRIALS * (y - mean) * slope / spread  # (n,), by the logit
    if prior:
        weight = np.square(slope) / spread
        by_logit = weight * (2.0 * (1.0 - 2.0 * p) - slope * (1.0 - 2.0 * mean) / spread)
        leverage = np.einsum("nq,qn->n", x, np.linalg.pinv(information(b, x, chance)) @ x.T)
        each = each + 0.5 * TRIALS * leverage * by_logit
    found: Floats = x.T @ each
    return found


def maximum(
    x: Floats, y: Floats, chance: float, prior: bool, begin: Floats, of: slice = slice(None)
) -> tuple[Floats, float]:
    """Where `likelihood` is highest (Q,), and how high, with the coefficients that aren't among `of` at 0.

    What a general optimiser finds is followed by steps of Fisher's scoring, so that the last digits don't depend on the
    way there, which is another one on another processor.
    """
    at = np.zeros(x.shape[1])

    def whole(some: Floats) -> Floats:
        at[of] = some
        return at.copy()

    found = optimize.minimize(
        lambda some: -likelihood(whole(some), x, y, chance, prior),
        begin[of],
        jac=lambda some: -score(whole(some), x, y, chance, prior)[of],
        method="BFGS",
    )
    best, high = whole(found.x), -float(found.fun)
    for _ in range(STEPS):
        inside = information(best, x, chance)[of, of]
        if not np.isfinite(high) or np.linalg.cond(inside) > 1e12:
            break
        step = np.linalg.solve(inside, score(best, x, y, chance, prior)[of])
        nearer = whole(best[of] + step)
        then = likelihood(nearer, x, y, chance, prior)
        if then < high - 1e-9 * abs(high):
            break
        best, high = nearer, then
        if np.abs(step).max() < 1e-14 * max(1.0, np.abs(best).max()):
            break
    return best, high


def fitted(
    x: Floats, y: Floats, chance: float, prior: bool = True, begin: Floats | None = None
) -> tuple[Floats, float]:
    """Coefficients (Q,) and twice the log-likelihood at its maximum, see `likelihood`. begin: where to look for it.

    Raises Untold where there is no maximum.
    """
    if begin is None:
        begin = np.zeros(x.shape[1])
        begin[min(1, len(begin) - 1)] = 2.0  # a curve that begins at chance is to rise
    found, high = maximum(x, y, chance, prior, begin)
    if not np.isfinite(high) or np.abs(found).max() > 1e3:
        raise Untold("the curve doesn't settle: the share jumps, or K / D doesn't vary")
    return found, 2.0 * high


@register("estimator", "reach")
class Reach(Estimator):
    """How far two arms are apart in the middle of their curves over log(K / D), as shares; see the module.

    Halfway between the places of both curves their shares differ by (1 - g) tanh(c / 4). The interval is a t of the
    jackknife over seeds. Beside it stands the likelihood-ratio test of c = 0, divided by the design effect (J. N. K.
    Rao and A. J. Scott, Annals of Statistics 12 (1984) 46-60), as runs of a seed share their episodes.
    """

    class Options(Section):
        """one, other: levels of factors that tell the arms' rows. chance: g."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        one: dict[str, Level]
        other: dict[str, Level]
        chance: float = Field(default=0.5, ge=0.0, lt=1.0)

    @classmethod
    def gives(cls, response: Response) -> Response:
        return replace(response, label=f"offset of {response.said} in the middle", unit="fraction")

    @property
    def says(self) -> str:
        names = (" ".join(map(level_text, each.values())) for each in self._arms)
        return f"{next(names)} - {next(names)} over log(K / D)"

    @property
    def _arms(self) -> tuple[dict[str, Level], dict[str, Level]]:
        return self.options.one, self.options.other

    def __call__(self, rows: pd.DataFrame, asked: Asked) -> ByT:
        chance = self.options.chance
        for name in {*self._arms[0], *self._arms[1], WINDOW} - set(rows.columns):
            raise Untold(f"the table has no column '{name}'")
        rows = usable(rows, asked.metric)
        first, second = (_at(rows, levels) for levels in self._arms)
        if not (len(first) and len(second)):
            raise Untold("an arm has no finished run here")
        both = pd.concat([first, second])
        design = pd.DataFrame(
            {
                "one": 1.0,
                "x": reach(both),
                "arm": np.repeat([1.0, 0.0], [len(first), len(second)]) - 0.5,
                "y": values(both, asked.metric),
                "seed": both["seed"].to_numpy(),
            }
        )
        if not np.isfinite(design["x"]).all() or not design["y"].between(0.0, 1.0).all():
            raise Untold("some data set has no distance, or the response isn't a share")
        columns = ["one", "x", "arm"]

        x, y = design[columns].to_numpy(), design["y"].to_numpy()
        b, with_arm = fitted(x, y, chance)

        def offsets(some: pd.DataFrame) -> Floats:
            c, _ = fitted(some[columns].to_numpy(), some["y"].to_numpy(), chance, begin=b)
            return np.array([(1.0 - chance) * math.tanh(c[2] / 4.0), c[2]])

        whole, covariance, n = jackknife(design, offsets, asked.paired)
        # The prior of both is that of the larger model, or its size would count as fit.
        _, without = maximum(x, y, chance, True, b, of=slice(2))
        naive = float(np.linalg.inv(information(b, x, chance))[2, 2])
        effect = covariance[1, 1] / naive
        gained = max(with_arm - 2.0 * without, 0.0)
        ratio = gained / effect if effect > 0.0 else math.nan
        p = float(stats.f.sf(ratio, 1, n - 1))
        note = (
            f"likelihood-ratio test of one curve: F = {ratio:.3g} (1 and {n - 1} degrees of freedom),"
            f" {words.p_said(p)}; the middle lies at K / D = {middle(b):.2f}"
        )
        estimate = Estimate(float(whole[0]), float(covariance[0, 0]), n - 1.0, 1, 0)
        pairing = seeds_paired(n) if asked.paired else "unpaired: runs are the units"
        return ByT(estimate, n, pairing, (note,))


def middle(b: Floats) -> float:
    """K / D at which the mean of both curves has come halfway; NaN where it never does."""
    return math.exp(np.clip(-b[0] / b[1], -CLEAR, CLEAR)) if b[1] > 0.0 else math.nan


def _at(rows: pd.DataFrame, levels: Mapping[str, Any]) -> pd.DataFrame:
    """The rows at these levels."""
    for name, level in levels.items():
        rows = rows[rows[name].map(level_text) == level_text(level)]
    return rows


# --- the figures ---

# The arms, from the paper's model to one token a timestep; a chain is the autoregressive head.
ARMS: dict[str, dict[str, Any]] = {
    "a token a dimension": {"layout": "dimension", "head": "categorical"},
    "a modality, chain": {"layout": "modality", "head": "autoregressive"},
    "a timestep, chain": {"layout": "step", "head": "autoregressive"},
    "a modality, factorised": {"layout": "modality", "head": "categorical"},
    "a timestep, factorised": {"layout": "step", "head": "categorical"},
}
EACH = {"dimension": 7, "modality": 4, "step": 1}  # tokens of a timestep of the forks
LAYOUTS = {
    "dimension": "a token a dimension",
    "modality": "a token a modality",
    "step": "a token a timestep",
}
BUDGET = 512  # tokens that the figure is about
RELEASED = {"mixer": "attention", "measure.plans.mode": "reference", "measure.plans.visible": 0}


def looks() -> dict[str, style.Look]:
    """Of the arms."""
    return style.looks("", list(ARMS))


def forks(trials: pd.DataFrame) -> pd.DataFrame:
    """The finished trials on forks whose route is shown at first, by attention with the window that it trained with."""
    rows = summaries.finished(trials)
    if "plans.success" not in rows:
        return rows[:0]
    rows = rows[
        rows["data"].str.fullmatch(r"forkcommit/\d+(x\d+)?-v0") & rows["plans.success"].notna()
    ]
    held = {name: level for name, level in RELEASED.items() if name in rows}
    return _at(rows, held)


def _legend(figure: Any, place: Any, looks: Mapping[str, style.Look]) -> None:
    """What each line is, in the place of a panel where the grid leaves one."""
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.line, label=label)
        for label, look in looks.items()
    ]
    if place is None:
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    else:
        place.legend(handles=handles, loc="center")


@register("figure", "tokens", order=10)
def bought(results: Results) -> base.Drawn | None:
    """What tokens buy in each layout, in timesteps and in success; None where no contexts in tokens were run."""
    rows = forks(results.rows)
    rows = rows[[level_text(context).endswith("tokens") for context in rows["context"]]]
    if rows.empty:
        return None
    figure = style.new_figure(2.5)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    every = style.looks("layout", list(EACH))
    x = np.geomspace(16, 16_384, 50)
    for layout, look in every.items():
        left.plot(x, np.maximum(x // EACH[layout], 1), color=look.colour, linestyle=look.line)
        k = BUDGET // EACH[layout]
        left.plot(BUDGET, k, color=look.colour, marker=look.marker, markersize=5, linestyle="")
        left.annotate(
            f"{k} timesteps", (BUDGET, k), xytext=(6, -3), textcoords="offset points", color=look.colour,
            fontsize=style.SMALL, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    shown = sorted({distance(name) for name in rows["data"]} | {20.0, 80.0, 320.0})
    for d in shown:
        left.axhline(d, color="#808080", linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
        far = d > BUDGET / max(EACH.values())  # where the labels of the lines stand on the right
        left.annotate(
            f"fork {d:g} ahead", (17 if far else 15_000, d), xytext=(0, 1.5), textcoords="offset points",
            color=base.GREY, ha="left" if far else "right", fontsize=style.SMALL,
        )  # fmt: skip
    left.axvline(BUDGET, color="#000000", linewidth=0.6, zorder=0)
    left.set_xscale("log", base=2)
    left.set_yscale("log", base=2)
    left.set_xlim(16, 16_384)
    left.set_ylim(2, 4096)
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    left.set_xticks([16, 64, BUDGET, 4096, 16_384])
    left.set_xlabel("tokens of the window")
    left.set_ylabel("timesteps that it sees")
    base.title(left, f"What {BUDGET} tokens buy")
    trials = _rates(right, rows, every)
    _legend(figure, None, {LAYOUTS[layout]: look for layout, look in every.items()})
    return base.Drawn(
        figure=figure,
        title="What tokens buy in each layout",
        caption=(
            "Left: timesteps that a window of so many tokens sees in each layout, where a timestep is seven numbers;"
            f" at {BUDGET} tokens a fork 80 timesteps ahead is out of sight for one layout and in sight for the others."
            " Right: share of forks at which the arm that had been shown was taken, by the tokens of the window, for"
            " the longest distance with several layouts; chance is one half. Means over seeds with 95 % intervals."
        ),
        trials=trials,
    )


def _rates(panel: Any, rows: pd.DataFrame, every: Mapping[str, style.Look]) -> tuple[str, ...]:
    """Success by tokens of each layout, on the data set with most layouts and then the largest distance."""
    count = rows.groupby("data")["layout"].nunique()
    data = max(count.index, key=lambda name: (count[name], distance(name)))
    rows = rows[rows["data"] == data]
    for place, (layout, look) in enumerate(every.items()):
        mine = rows[rows["layout"] == layout]
        # of the heads, the one that reads a token's numbers one after another where it was run
        heads = [h for h in ("autoregressive", "categorical") if h in set(mine["head"])]
        mine = mine[mine["head"] == heads[0]] if heads else mine
        tokens = mine["context"].map(lambda c: int(level_text(c).split()[0]))
        cells = {
            t: summaries.mean_interval(each["plans.success"].to_numpy(float))
            for t, each in mine.groupby(tokens)
        }
        at = np.array(sorted(cells)) * 1.06 ** (place - 1)
        means = [cells[t].mean for t in sorted(cells)]
        panel.plot(
            at, means, color=look.colour, linestyle=look.line, marker=look.marker, markersize=4
        )
        for here, t in zip(at, sorted(cells), strict=True):
            if cells[t].n > 1:
                panel.plot(
                    [here, here],
                    [max(cells[t].low, 0.0), min(cells[t].high, 1.0)],
                    color=look.colour,
                    linewidth=0.7,
                )
    panel.axhline(0.5, color="#808080", linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.set_ylim(0.3, 1.03)
    panel.set_xlabel("tokens of the window")
    panel.set_ylabel("forks taken rightly")
    base.title(panel, f"A fork {distance(data):g} timesteps ahead")
    return tuple(sorted(rows["trial"]))


@register("figure", "collapse", order=11)
def collapsed(results: Results) -> base.Drawn | None:
    """Success, coherence and faithfulness of plans over K / D, a line an arm; None where nothing varies there."""
    rows = forks(results.rows)
    targets = "train.targets_per_update"
    if targets in rows and len(
        rows
    ):  # what shows that the longest windows can be had is trained on a few of them
        rows = rows[rows[targets] == rows[targets].mode()[0]]
    rows = rows.assign(reach=np.exp(reach(rows)) if len(rows) else [])
    rows = rows[np.isfinite(rows["reach"].to_numpy(float))]
    if rows["reach"].nunique() < 2:
        return None
    panels_of = {
        "success": "forks taken rightly",
        "switches": "plans that switch",
        "coherent": "plans of one way",
        "violation": "dynamics violated",
    }
    figure, panels, place = base.grid(len(panels_of), 4, 2.0, head=0.45)
    every, trials = looks(), set()
    for panel, (name, said) in zip(panels, panels_of.items(), strict=True):
        column = f"plans.{name}"
        for arm, levels in ARMS.items():
            mine = _at(rows, {k: v for k, v in levels.items() if k in rows})
            mine = mine[mine[column].notna()] if column in mine else mine[:0]
            if mine.empty:
                continue
            trials |= set(mine["trial"])
            means = mine.groupby("reach")[column].mean()
            panel.plot(
                means.index, means, color=every[arm].colour, linestyle=every[arm].line,
                marker=every[arm].marker, markersize=3,
            )  # fmt: skip
        panel.axvline(1.0, color="#808080", linewidth=0.6, zorder=0)
        floor = f"plans.floor_{name}"
        if floor in rows and rows[floor].notna().any():
            panel.axhline(
                float(rows[floor].mean()), color="#808080", linewidth=0.8, linestyle=(0, (4, 2))
            )
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.set_xlabel("K / D")
        if name == "violation":
            panel.set_ylim(bottom=0.0)
        else:
            panel.set_ylim(-0.03, 1.03)
        base.title(panel, said)
    _legend(figure, place, every)
    return base.Drawn(
        figure=figure,
        title="Success and coherence of plans over the window's reach",
        caption=(
            "Over the timesteps K of the window in units of the distance D to what decides: share of forks taken"
            " rightly, of consecutive plans that switch the arm, of plans that take one arm and no other, and how far"
            " the states of a plan are from where the simulator goes. Means over seeds and distances; dashed: what the"
            " bins alone cost."
        ),
        trials=tuple(sorted(trials)),
    )


@register("figure", "learning", order=12)
def learned(results: Results) -> base.Drawn | None:
    """Success over the updates of training, a panel a window and a line an arm; None for a single budget."""
    rows = forks(results.budgets)
    if rows.empty or not several_budgets(rows):
        return None
    windows = sorted(rows[WINDOW].unique())
    figure, panels, place = base.grid(len(windows), 3, 2.0, head=0.45)
    every = looks()
    for panel, window in zip(panels, windows, strict=True):
        shown = rows[rows[WINDOW] == window]
        for arm, levels in ARMS.items():
            mine = _at(shown, levels)
            # Each model, and their mean: seeds learn it at once or not at all, which an interval doesn't show.
            for _, model in mine.groupby("seed"):
                model = model.sort_values("budget")
                panel.plot(
                    model["budget"], model["plans.success"], color=every[arm].colour, linewidth=0.5, alpha=0.6
                )  # fmt: skip
            if len(mine):
                mean = mine.groupby("budget")["plans.success"].mean()
                panel.plot(
                    mean.index, mean, color=every[arm].colour, linestyle=every[arm].line, marker=every[arm].marker,
                    markersize=3.5,
                )  # fmt: skip
        panel.axhline(0.5, color="#808080", linewidth=0.6, linestyle=(0, (1, 2)), zorder=0)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.set_xticks(sorted(rows["budget"].unique()))
        panel.set_ylim(0.3, 1.03)
        panel.set_xlabel("updates of training")
        base.title(panel, f"K = {window:g}, a fork {distance(shown['data'].iloc[0]):g} ahead")
    panels[0].set_ylabel("forks taken rightly")
    there = [arm for arm, levels in ARMS.items() if len(_at(rows, levels))]
    _legend(figure, place, {arm: every[arm] for arm in there})
    return base.Drawn(
        figure=figure,
        title="How soon each layout learns what the route is for",
        caption=(
            "Share of forks taken rightly by the updates of training, a panel a window of K timesteps, which has to be"
            " longer than the distance of the fork. Thin: each model; thick: their mean; chance is one half."
        ),
        trials=tuple(sorted(rows["trial"])),
    )
