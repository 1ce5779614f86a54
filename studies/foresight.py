"""What only this study measures and draws: the exact filter of the linear system, which reads logged actions as what
they are, evidence; errors over the horizon beside the simulator's; and where the gap between two models comes from.

A controller that sees the state answers the noise. Its logged actions therefore tell of states that the simulator,
which is only told to do them, cannot know: with x' = A x + B u + w, w ~ N(0, Q), and u = -G x + e, e ~ N(0, R), what
comes after a known state x_0 and logged u_0 ... u_{h-1} is, by the Kalman filter,

    x_h | x_0, u_0 .. u_{h-1} ~ N(m_h, P_h),    m_1 = A x_0 + B u_0,  P_1 = Q,
    K = P G' (G P G' + R)^-1,  m_{h+1} = A (m - K (u + G m)) + B u,  P_{h+1} = A (P - K G P) A' + Q.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from pydantic import Field

from ablate import words
from ablate.data import exact
from ablate.data.normalise import moments
from ablate.envs.lq import ACTION_SCALE, PROCESS_NOISE, A, B
from ablate.measure import openloop
from ablate.measure.base import Measurement, Numbers, Trained
from ablate.registry import Section, register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results
from ablate.words import Response

# Of what is measured here. Change it whenever that changes: all its rows are then measured again.
VERSION = "1"
Floats = np.ndarray


# --- the exact filter ---


def filtered(start: Floats, actions: Floats) -> tuple[Floats, Floats]:
    """Mean (E, h, 4) and covariance (h, 4, 4) of the states 1 .. h timesteps after `start` (E, 4), given that state
    and the logged actions (E, h, 2) in stored units of the better controller."""
    gain = exact.controllers(2)[0]
    noise, seen = PROCESS_NOISE**2 * np.eye(4), exact.EXPLORATION**2 * np.eye(2)
    mean, spread = start.astype(np.float64), np.zeros((4, 4))
    means, spreads = [], []
    for force in np.moveaxis(ACTION_SCALE * actions.astype(np.float64), 1, 0):
        kalman = np.linalg.solve(gain @ spread @ gain.T + seen, gain @ spread).T  # (4, 2)
        mean = mean - (force + mean @ gain.T) @ kalman.T
        spread = spread - kalman @ gain @ spread
        mean = mean @ A.T + force @ B.T
        spread = A @ spread @ A.T + noise
        means.append(mean)
        spreads.append(spread)
    return np.stack(means, axis=1), np.stack(spreads)


@register("measurement", "filter", VERSION)
class Filter(Measurement):
    """The exact filter from the same beginnings as `open-loop` with logged actions: the least error that anybody who
    sees the present state and the actions can have. The models don't matter, but for their seeds."""

    responses = (
        Response("area", "excess log error of the exact filter", openloop.EXCESS, digits=2),
        Response("rmse", "error of the exact filter", openloop.UNIT, index="horizon", places=openloop.PLACES),
    )  # fmt: skip

    class Options(Section):
        """As of `open-loop`, to begin where that does."""

        horizon: int = Field(default=50, ge=1)
        samples: int = Field(default=8, ge=2)
        beginnings: int = Field(default=100, ge=1)
        past: int = Field(default=19, ge=0)

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        """See `Measurement`; NaN but on lq-mix/single, where one linear controller acts."""
        data, index = trained.system.data, np.arange(1, options.horizon + 1)
        if not re.fullmatch(r"lq-mix/single(-\d+)?", data.spec.name):
            undefined = np.full((len(trained.seeds), options.horizon), np.nan)
            return {"area": undefined[:, 0], "rmse": undefined, "horizon": index}
        deviation = moments(data.train.observations)[1]
        areas, errors = [], []
        for seed in trained.seeds:
            there = openloop.happened(
                openloop.Asked(data), "logged", options.past, options.horizon, options.beginnings,
                options.samples, trained.streams, seed,
            )  # fmt: skip
            assert there.simulated is not None
            logged = data.held_out.actions[there.rows[:, None] + np.arange(options.horizon)]
            mean, _ = filtered(data.held_out.observations[there.rows], logged)
            truth = there.truth / deviation
            found = openloop.errors(mean[:, None] / deviation, truth)["rmse"]
            best = openloop.errors(there.simulated / deviation, truth)["rmse"]
            errors.append(found)
            areas.append(openloop.area(found, best))
        return {"area": np.array(areas), "rmse": np.stack(errors), "horizon": index}


# --- the figures ---

OPTION = "measure.open-loop."
DRAWN = {OPTION + "sampling": "draw", OPTION + "propagation": "ts-inf", "settings.unroll": 1}
NETS = {"algorithm": "joint", "mixer": "mlp", "layout": "modality", "context": 2}
SEQUENCE = {
    "algorithm": "joint",
    "mixer": "attention",
    "layout": "dimension",
    "head": "categorical",
}
# What is compared, from one end of the gap to the other; each differs from the next by what stands in STEPS.
MODELS: dict[str, dict[str, Any]] = {
    "ensemble of 5 one-step models": {"algorithm": "one-step", "settings.members": 5},
    "one-step perceptron, Gaussian": {**NETS, "head": "gaussian"},
    "one-step perceptron, bins": {**NETS, "head": "autoregressive"},
    "Trajectory Transformer, K = 2": {**SEQUENCE, "context": 2},
    "Trajectory Transformer, K = 10": {**SEQUENCE, "context": 10},
}
PATH = list(MODELS)[1:]
STEPS = ("head", "attention and tokens", "context")
SIMULATOR, FLOOR, EXACT = (
    style.Look("#000000", "", (0, (1, 1))),
    style.Look("#808080", "", (0, (4, 2))),
    style.Look("#000000", "", (0, (5, 1, 1, 1))),
)


def at(rows: pd.DataFrame, levels: Mapping[str, Any]) -> pd.DataFrame:
    """The rows at these levels of the factors that the table has."""
    return summaries.at(rows, {name: level for name, level in levels.items() if name in rows})


def shown(results: Results) -> pd.DataFrame:
    """The finished trials of futures that are drawn, of models trained as all are."""
    return at(summaries.finished(results.rows), DRAWN)


def _looks() -> dict[str, style.Look]:
    return style.looks("", list(MODELS))


@register("figure", "foresight", order=10)
def foresight(results: Results) -> base.Drawn | None:
    """Error over the horizon under logged actions, a panel a data set and a line a model, beside the true simulator and
    what the bins alone cost; None where nothing runs over a horizon."""
    rows = at(shown(results), {OPTION + "actions": "logged"})
    series = results.series[results.series["trial"].isin(rows["trial"])]
    series = series[
        series["response"].str.startswith(("open-loop.", "filter.")) & series["value"].notna()
    ]
    names = [name for name in results.study.data if name in set(rows["data"])]
    names = [n for n in names if len(at(rows[rows["data"] == n], MODELS[PATH[-1]]))][:8]
    if series.empty or not names:
        return None
    joined = series.merge(rows, on="trial")
    figure, panels, place = base.grid(len(names), 3, 1.75, head=0.55)
    looks, trials = _looks(), set()
    for panel, name in zip(panels, names, strict=True):
        here = joined[joined["data"] == name]
        for label, look in looks.items():
            mine = at(here, MODELS[label])
            mine = mine[mine["response"] == "open-loop.rmse"]
            trials |= set(mine["trial"])
            _line(panel, mine, look, band=True)
        for response, look in (
            ("open-loop.simulator_rmse", SIMULATOR),
            ("open-loop.floor_rmse", FLOOR),
            ("filter.rmse", EXACT),
        ):
            one = here[(here["response"] == response)]
            _line(panel, one[one["trial"].isin(_once(one))], look, band=False)
        panel.set_yscale("log")
        drawn = np.concatenate([line.get_ydata() for line in panel.get_lines()])
        panel.set_ylim(0.7 * drawn.min(), 1.5 * drawn.max())  # a band of few seeds may be wider
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_xlabel("timesteps ahead")
        base.title(panel, words.data(name))
    for panel in panels[::3]:
        base.label(panel, "error, in deviations of the state")
    handles = [_handle(look, label) for label, look in looks.items()]
    handles += [_handle(SIMULATOR, "true simulator"), _handle(FLOOR, "the same, after the bins")]
    if (joined["response"] == "filter.rmse").any():
        handles.append(_handle(EXACT, "exact filter"))
    if place is not None:
        place.legend(handles=handles, loc="center", borderpad=0)
    else:
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return base.Drawn(
        figure=figure,
        title="Error of imagined futures under logged actions",
        caption=(
            "Root mean squared error of the mean of the futures that a model draws, by timesteps ahead, under the"
            " actions that were logged; geometric means over seeds with 95 % intervals. Dotted: the true simulator"
            " from the same states under the same actions; dashed: its futures once they went through the bins. A"
            " model can be below the simulator where noise drives the system, as logged actions of a controller that"
            " saw the states tell of the noise; the exact filter is what can be made of that."
        ),
        trials=tuple(sorted(trials)),
    )


def _once(rows: pd.DataFrame) -> list[str]:
    """One trial a seed: what doesn't depend on the model."""
    return list(rows.drop_duplicates("seed")["trial"])


def _line(panel: Any, rows: pd.DataFrame, look: style.Look, band: bool) -> None:
    """The geometric mean over seeds along the index, with its interval where there are several."""
    if rows.empty:
        return
    logs = np.log(np.maximum(rows["value"], openloop.LEAST))
    cells = {
        index: summaries.mean_interval(each.to_numpy(dtype=float))
        for index, each in logs.groupby(rows["index"])
    }
    x = sorted(cells)
    if band and rows["seed"].nunique() > 1:
        low, high = (np.exp([getattr(cells[i], end) for i in x]) for end in ("low", "high"))
        panel.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
    mean = np.exp([cells[i].mean for i in x])
    panel.plot(x, mean, color=look.colour, linestyle=look.line, linewidth=1.0)


def _handle(look: style.Look, label: str) -> Line2D:
    return Line2D([], [], color=look.colour, linestyle=look.line, linewidth=1.0, label=label)


def contributions(rows: pd.DataFrame) -> dict[str, summaries.Interval]:
    """Of trials on one data set under one source of actions: what each step of the path takes off the excess log error,
    and all of them together, within seeds; empty where a model is missing."""
    found = []
    for label in PATH:
        one = at(rows, MODELS[label]).set_index("seed")["open-loop.area"]
        if one.empty or one.index.has_duplicates:
            return {}
        found.append(one)
    paired = pd.concat(found, axis=1, join="inner", keys=PATH)
    made = {
        step: summaries.mean_interval((paired[a] - paired[b]).to_numpy(dtype=float))
        for step, a, b in zip(STEPS, PATH, PATH[1:], strict=False)
    }
    whole = (paired[PATH[0]] - paired[PATH[-1]]).to_numpy(dtype=float)
    return {**made, "together": summaries.mean_interval(whole)}


@register("figure", "contributions", order=11)
def contributed(results: Results) -> base.Drawn | None:
    """What head, attention with its tokens, and context take off the error on the way from a one-step Gaussian
    perceptron to a Trajectory Transformer, by data set and by who acts; None where the path isn't there."""
    rows = shown(results)
    sources = {"logged": "logged actions", "behaviour": "the behaviour acts"}
    found = {
        (name, source): made
        for name in results.study.data
        for source in sources
        if (made := contributions(at(rows, {"data": name, OPTION + "actions": source})))
    }
    if not found:
        return None
    names = list(dict.fromkeys(name for name, _ in found))
    bars = [*STEPS, "together"]
    figure = style.new_figure(0.75 + (0.62 * len(names) + 0.1))
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    looks = style.looks("", bars)
    # the widest intervals, of few seeds, are cut
    reach = 1.6 * max(abs(cell.mean) for made in found.values() for cell in made.values())
    for panel, (source, said) in zip(panels, sources.items(), strict=True):
        for height, name in enumerate(names):
            for place, bar in enumerate(bars):
                cell = found.get((name, source), {}).get(bar)
                if cell is None:
                    continue
                y = height + (place - 1.5) * 0.19
                panel.plot([cell.low, cell.high], [y, y], color=looks[bar].colour, linewidth=0.9)
                panel.plot(
                    cell.mean, y, color=looks[bar].colour, marker=looks[bar].marker, markersize=3.8
                )
            if height:
                panel.axhline(height - 0.5, color="#cccccc", linewidth=0.4, zorder=0)
        panel.axvline(0.0, color="#808080", linewidth=0.7, zorder=0)
        panel.set_xlim(-reach, reach)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_xlabel("less log error: better to the right")
        base.title(panel, said)
    panels[0].set_yticks(
        range(len(names)), ["\n".join(base.wrap(words.data(n), 22)) for n in names]
    )
    panels[0].tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linewidth=0.9, label=bar)
        for bar, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return base.Drawn(
        figure=figure,
        title="What makes the futures of a Trajectory Transformer better",
        caption=(
            "What each step takes off the excess log error (the mean over 50 timesteps of log error above the true"
            " simulator's; 0.69 halves the error) on the way from a one-step perceptron with a Gaussian head to a"
            " Trajectory Transformer with 10 timesteps: the head becomes autoregressive over bins; the perceptron"
            " becomes attention over a token for each dimension; and the context grows from 2 to 10. To the left the"
            " error grows. Means over seeds with 95 % intervals, paired within seeds; the widest are cut."
        ),
        trials=tuple(sorted(rows["trial"])),
    )
