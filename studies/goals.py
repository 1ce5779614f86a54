"""What only this study has: goals that stand at different places of a window (`goal-prefix`, ...), relabelled by
several rules; a layout in which the goal scales the features (`film`); and the measurement `reaching`, in rooms whose
pairs were seen or not.

Every window has one goal, that of its present timestep; a placement only says where it is written (see
`ablate.data.windows.PLACES`), and the causal mask isn't touched. With one timestep, the oldest is the present: a goal
before the sequence and one at every timestep are then the same model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from matplotlib.lines import Line2D
from pydantic import Field
from torch import Tensor, nn

from ablate import words
from ablate.data import streams
from ablate.data.families.fourrooms import PAIRS
from ablate.data.trajectories import Trajectories
from ablate.data.waypoints import Waypoints
from ablate.envs.base import Floats, Step, VectorEnv, Wrapper
from ablate.envs.fourrooms import HORIZON, MAP, FourRooms
from ablate.measure.base import Measurement, Numbers, Trained
from ablate.measure.episodes import FEWER, fewer
from ablate.measure.rollout import evaluation_seeds, rollout
from ablate.models.agent import stored
from ablate.models.conditions.goal import Goal
from ablate.models.layouts import Layout
from ablate.models.linear import Linear
from ablate.models.spec import Column
from ablate.models.tokens import Step as StepLayout
from ablate.models.tokens import Token
from ablate.registry import Section, register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results
from ablate.study.contrast import level_text
from ablate.words import Response

# Of what is measured and trained here. Change it whenever either changes: all rows are then measured again.
VERSION = "1"
SOON = 1 / 50  # of the geometric rule: a goal is 50 timesteps away on average

# --- which goals hindsight tells ---


def relabelled(trajectories: Trajectories, rule: str) -> np.ndarray:
    """The timestep (T,), a row of the data, whose place is told as the goal at each timestep.

    uniform: of the timestep's own future, evenly; final: where the episode ends; geometric: 1, 2, ... timesteps ahead
    with probabilities p, p (1 - p), ..., p = SOON, the end where the episode is over before; shuffled: the uniform one
    of another timestep, which has nothing to do with it. At an episode's last timestep it is that one.
    """
    last = np.repeat(trajectories.episode_starts[1:] - 1, trajectories.lengths)  # (T,)
    rows = np.arange(len(last))
    rng = streams.stream("goals", 0, f"hindsight/{rule}")
    if rule == "final":
        return last
    if rule == "geometric":
        return np.minimum(rows + rng.geometric(SOON, len(rows)), last)
    if rule == "shuffled":
        return rng.permutation(relabelled(trajectories, "uniform"))
    share = rng.random(len(rows))
    return np.minimum(rows + 1 + np.floor(share * (last - rows)).astype(np.int64), last)


class Placed(Goal):
    """A goal in hindsight by one of the rules; see `Goal`."""

    rule: ClassVar[str] = "uniform"

    def logged(self, trajectories: Trajectories, layout: Layout) -> Numbers:
        rows = relabelled(trajectories, self.rule)
        return trajectories.observations[rows][:, layout.goal]


SAID = {
    "prefix": ("first", "goal before the window"),
    "sliding": ("start", "goal before the episode"),
    "behind": ("behind", "goal behind each timestep"),
    "concat": ("everywhere", "goal at every timestep"),
}
RULES = ("uniform", "final", "geometric", "shuffled")
for _name, (_place, _label) in SAID.items():
    for _rule in RULES:
        _kind = type(f"Goal_{_name}_{_rule}", (Placed,), {"stands": _place, "rule": _rule})
        _tail = "" if _rule == "uniform" else f"-{_rule}"
        _said = _label if _rule == "uniform" else f"{_label} ({_rule})"
        register("condition", f"goal-{_name}{_tail}", VERSION, label=_said)(_kind)


@register("layout", "film", VERSION, label="FiLM")
class Film(StepLayout):
    """Everything of a timestep in one token, whose features are scaled by its goal: W x + b, each times 1 + V g + c
    (Perez et al. 2018; the shift is the goal's part of W x)."""

    def cut(self, columns: list[Column]) -> list[Token]:
        start = 0
        for name, width, *_ in columns:
            if name.startswith("goal"):
                self.goal = (start, start + width)
            start += width
        return super().cut(columns)

    def make(self, width: int) -> None:
        super().make(width)
        low, high = getattr(self, "goal", (0, 0))
        if high == low:
            raise ValueError("the layout 'film' needs a goal as condition")
        self.scale = Linear(high - low, width)
        nn.init.zeros_(self.scale.bias)

    def token(self, rows: Tensor, number: int) -> Tensor:
        low, high = self.goal
        return super().token(rows, number) * (1.0 + self.scale(rows[..., low:high]))

    def flops(self) -> int:
        return super().flops() + 2 * self.scale.weight.numel()


# --- acting ---


class Watching(Wrapper):
    """Notes how far each episode's goal is in the end, and may name other goals than the episodes have.

    distance: (B,) in cells. told: `goal`: each episode's own; `other`: the next episode's; `constant`: the centre.
    """

    def __init__(self, env: VectorEnv, told: str) -> None:
        super().__init__(env)
        self.told = told

    def reset(self, seeds: Any) -> Floats:
        self._live = np.ones(self.num_envs, dtype=bool)
        self.distance = np.full(self.num_envs, np.nan)
        return super().reset(seeds)

    def step(self, actions: np.ndarray) -> Step:
        made = super().step(actions)
        self.distance = np.where(self._live, made[4]["distance"], self.distance)
        self._live &= ~(made[2] | made[3])
        return made

    def goals(self) -> Floats | None:
        goals = super().goals()
        assert goals is not None
        if self.told == "constant":
            return np.zeros_like(goals)
        return np.roll(goals, -1, axis=0) if self.told == "other" else goals


def shortest(env: FourRooms, seeds: list[int]) -> np.ndarray:
    """Timesteps (B,) that the waypoint controller needs without noise, the horizon where it doesn't arrive."""
    rng = streams.stream("goals", 0, "waypoints")
    shown = env.reset(seeds).astype(np.float64)
    walker = Waypoints(MAP, len(seeds))
    for place, row in enumerate(shown):
        walker.set_goal(place, row[:2], row[4:6], rng)
    needed = np.full(len(seeds), HORIZON)
    for t in range(HORIZON):
        shown, _, arrived, _, _ = env.step(walker.act(shown[:, :2], shown[:, 2:4]))
        shown = shown.astype(np.float64)
        needed = np.where(arrived, np.minimum(needed, t + 1), needed)
        if (needed < HORIZON).all():
            break
    return needed


def spl(success: np.ndarray, needed: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Success weighted by path length (S, E): needed / max(needed, taken) where it is reached, else 0, in timesteps.

    Source: Anderson et al. 2018, "On evaluation of embodied navigation agents".
    """
    found: np.ndarray = success * needed / np.maximum(needed, taken)
    return found


SPANS = (
    0,
    1,
    4,
    10,
    19,
    20,
    40,
    80,
    120,
)  # timesteps at which the influence of the goal is asked for
WIDE = 0.05  # cells: the goal is moved by so much
_needed: dict[tuple[str, bytes], np.ndarray] = {}


SUCCESS = Response("success", "success rate", "%", "higher", digits=1, points=True)


@register("measurement", "reaching", VERSION)
class Reaching(Measurement):
    """The models are sent to goals between pairs of rooms that were in the data, or never were."""

    responses = (
        SUCCESS,
        Response("spl", "success by path length", "%", "higher", digits=1, points=True),
        Response("distance", "final distance", "cells", "lower", digits=2),
        Response("influence", "influence of the goal", "of the action, a cell", index="timestep"),
        *SUCCESS.ways(*FEWER),
    )
    acts = True

    class Options(Section):
        """pairs: between which rooms, as in `fourrooms/...`. told: the goal that the models are told, see `Watching`.
        episodes: as of `rollout`."""

        pairs: Literal["seen", "held-out"] = "seen"
        told: Literal["goal", "other", "constant"] = "goal"
        episodes: int = Field(default=100, gt=0)

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        """See `Measurement`."""
        data, seeds = trained.system.data, trained.seeds
        pairs = PAIRS[options.pairs][1]
        plain: VectorEnv = FourRooms(len(seeds) * options.episodes, pairs)
        if data.spec.hiding is not None:
            plain = data.spec.hiding.wrap(plain, data.train.observations.std(axis=0))
        env = Watching(plain, options.told)
        agent = trained.system.actor(trained.models, {"context": None, "state": "re-encoded"})
        found = rollout(
            agent,
            env,
            options.episodes,
            study=trained.streams,
            seeds=seeds,
            target=0.0,
            policy=None,
            sample=False,
        )
        lists = [evaluation_seeds(trained.streams, seed, options.episodes) for seed in seeds]
        key = (options.pairs, np.array(lists).tobytes())
        if key not in _needed:
            each = [seed for one in lists for seed in one]
            needed = shortest(FourRooms(len(each), pairs), each)
            _needed[key] = needed.reshape(len(seeds), options.episodes)
        return {
            "success": 100.0 * found.success.mean(axis=1),
            **fewer("success", 100.0 * found.success),
            "spl": 100.0 * spl(found.success, _needed[key], found.lengths).mean(axis=1),
            "distance": env.distance.reshape(len(seeds), -1).mean(axis=1),
            "influence": influence(trained),
            "timestep": np.array(SPANS),
        }

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        if re.match(r"fourrooms/", str(config["data"])):
            return ""
        return f"the measurement 'reaching' needs rooms; found '{config['data']}', allowed: fourrooms/..."

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        fields = frozenset(cls.Options.model_fields)
        return fields if "goal" in str(config["condition"]) else fields - {"told"}


@torch.no_grad()
def influence(trained: Trained, most: int = 200) -> np.ndarray:
    """(S, SPANS) by how much the action at a timestep moves as the goal is moved, the root mean square over held-out
    windows of the Frobenius norm of its derivative by the goal's two coordinates, by central differences."""
    system = trained.system
    agent, part = system.program(trained.models), system.data.held_out
    agent.eval()
    data = stored(part, agent.layout, agent.device)
    named = [name for name in agent.layout.conditions if name.startswith("goal")]
    found = np.zeros((len(trained.seeds), len(SPANS)))
    if not named:
        return found
    (name,) = named
    groups = [np.flatnonzero(part.timestep == t)[:most] for t in SPANS]
    targets = torch.from_numpy(np.concatenate(groups)).to(agent.device)
    targets = targets.expand(len(trained.seeds), -1)
    squares = np.zeros(targets.shape)
    goal = data.fields.told[name]
    for axis in range(goal.shape[1]):
        ends = []
        for sign in (-1.0, 1.0):
            moved = goal.clone()
            moved[:, axis] += sign * WIDE
            told = {**data.fields.told, name: moved}
            fields = data.fields.map(lambda each: each)
            fields = type(fields)(
                fields.observation, fields.action, fields.reward, fields.time, told
            )
            params = agent.predict(type(data)(fields, data.timestep), targets)
            ends.append(agent.stack.head.mean(params).double().cpu().numpy())
        squares += np.square((ends[1] - ends[0]) / (2 * WIDE)).sum(-1)
    start = 0
    for place, group in enumerate(groups):
        stop = start + len(group)
        found[:, place] = np.sqrt(squares[:, start:stop].mean(1)) if len(group) else np.nan
        start = stop
    return found


# --- the figure ---

SHOWN = {
    "goal-prefix": "once, before the window",
    "goal-concat": "at every timestep",
    "film": "at every timestep, scaling features",
    "goal-behind": "behind each timestep",
    "goal-sliding": "once, before the episode",
    "goal-concat-shuffled": "another's goal, in training",
    "none": "none",
}
SEEN, COVERED = "fourrooms/seen-v0@mask-goal", "fourrooms/covered-v0@mask-goal"
KINDS = {  # data, pairs of rooms -> in words, look: greys, since the colours are those of where the goal stands
    (SEEN, "seen"): ("pairs that the data hold", style.Look("#1a1a1a", "o", "-")),
    (SEEN, "held-out"): ("pairs that they never hold", style.Look("#808080", "s", "-")),
    (COVERED, "held-out"): ("the same, once they do", style.Look("#b0b0b0", "D", "-")),
}


def _placement(row: Any) -> str:
    return "film" if str(row.get("layout", "step")) == "film" else str(row["condition"])


@register("figure", "placements", order=10)
def placements(results: Results) -> base.Drawn | None:
    """Success on pairs that were seen and that weren't, by where the goal stands; and how long its influence lasts.
    None where nothing was sent anywhere."""
    done = summaries.finished(results.rows)
    if "reaching.success" not in done.columns or done.empty:
        return None
    for factor, level in (("measure.reaching.told", "goal"), ("mixer", "attention")):
        if factor in done.columns:
            done = done[done[factor].map(level_text).isin([level, "", "nan", "None"])]
    if not (done["data"] == SEEN).any():
        return None
    done = done.assign(placement=[_placement(row) for _, row in done.iterrows()])
    per_context = done[done["data"] == SEEN].groupby("context")["placement"].nunique()
    longest = per_context.idxmax()  # where most are compared
    rows = done[done["context"] == longest]
    names = [name for name in SHOWN if name in set(rows["placement"])]
    if len(names) < 2:
        return None
    figure = style.new_figure(1.15 + 0.24 * len(names))
    panels = figure.subplots(1, 2, width_ratios=(3, 2))
    for height, name in enumerate(names):
        for shift, ((data, pairs), (_, look)) in zip((-0.2, 0.0, 0.2), KINDS.items(), strict=True):
            one = rows[(rows["placement"] == name) & (rows["data"] == data)]
            one = one[one["measure.reaching.pairs"] == pairs]
            if one.empty:
                continue
            cell = summaries.mean_interval(one["reaching.success"].to_numpy(dtype=float))
            low, high = max(cell.low, 0.0), min(cell.high, 100.0)
            panels[0].plot([low, high], [height + shift] * 2, color=look.colour, linewidth=0.9)
            panels[0].plot(cell.mean, height + shift, color=look.colour, marker=look.marker)
        if height:
            panels[0].axhline(height - 0.5, color="#cccccc", linewidth=0.4, zorder=0)
    panels[0].set_yticks(range(len(names)), [SHOWN[name] for name in names])
    panels[0].tick_params(axis="y", length=0)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    panels[0].set_xlim(-2, 102)
    panels[0].set_xlabel("success, in % of the episodes")
    series = results.series[results.series["response"] == "reaching.influence"]
    there = rows[(rows["measure.reaching.pairs"] == "seen") & (rows["data"] == SEEN)]
    series = series.merge(there, on="trial")
    kept = [name for name in names if name.startswith("goal") and "shuffled" not in name]
    looks = style.looks("", kept)
    for name, look in looks.items():
        one = series[series["placement"] == name]
        if len(one):
            mean = one.groupby("index")["value"].mean()
            panels[1].plot(
                [np.log2(float(t) + 1) for t in mean.index], mean, color=look.colour,
                linestyle=look.line, marker=look.marker, markersize=3,
            )  # fmt: skip
    panels[1].set_xticks([np.log2(t + 1) for t in (0, 4, 19, 80)], ["0", "4", "19", "80"])
    panels[1].axvline(np.log2(longest), color="#808080", linewidth=0.6, linestyle=":")
    panels[1].set_ylim(bottom=0)
    panels[1].set_xlabel("timestep of the episode")
    base.label(panels[1], "influence of the goal on the action")
    shown = set(zip(rows["data"], rows["measure.reaching.pairs"], strict=True))
    kinds = [(said, look) for kind, (said, look) in KINDS.items() if kind in shown]
    for panel, each in ((panels[0], kinds), (panels[1], [(SHOWN[n], x) for n, x in looks.items()])):
        handles = [
            Line2D(
                [], [], color=look.colour, linestyle=look.line, marker=look.marker, markersize=3,
                label=said,
            )
            for said, look in each
        ]  # fmt: skip
        panel.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)
    return base.Drawn(
        figure=figure,
        title="Where the goal stands",
        caption=(
            f"Left: success of {words.level('mixer', 'attention')} models with {longest} timesteps by where in the"
            " window the goal stands, between pairs of rooms that the data hold, between pairs that they never"
            f" hold, and between these of models whose data hold them, too; means over {rows['seed'].nunique()} seeds"
            " with 95 % intervals. Right: by how much the action moves with the goal, per cell, over an episode, on"
            " average over seeds; dotted: the window is full, and begins to slide."
        ),
        trials=tuple(dict.fromkeys(rows["trial"])),
    )
