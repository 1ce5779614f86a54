"""What only this study measures: acting while what the policy sees of its own past, or what it does, is interfered
with, and how far it then is from the exact posterior's action in the very situation that it is in.

Data sets: the linear-quadratic mixtures (`lq-mix/...`), where the posterior over who acts is known exactly; and
`lq-clone/...`, the same episodes as the exact clone with memory makes them, its own actions in its windows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from matplotlib.lines import Line2D
from pydantic import Field

from ablate import words
from ablate.data import exact, streams
from ablate.data.behaviour import Acted, Behaviour, censored_logp
from ablate.data.catalogue import DataSpec, Family
from ablate.data.collect import collect
from ablate.data.exact import EXPLORATION
from ablate.data.families import lq
from ablate.data.trajectories import Trajectories, action_variance
from ablate.envs.lq import ACTION_SCALE, HORIZON, PROCESS_NOISE, A, B, LinearQuadratic
from ablate.errors import unknown
from ablate.measure.acting import target_return
from ablate.measure.base import Measurement, Numbers, Trained
from ablate.measure.episodes import CAP, LOST, MEDIAN, REGRET, SCORE, SHARE_LOST, regret
from ablate.measure.rollout import Rollouts, rollout
from ablate.models.agent import Actable, Acting, Around
from ablate.models.layouts import Fields
from ablate.registry import Section, register
from ablate.report import style, summaries
from ablate.report.figures import base
from ablate.report.results import Results
from ablate.words import Response

# Of what is measured and generated here. Change it whenever either changes: all rows are then measured again.
VERSION = "e1ac68ceedc1"
NOISE = EXPLORATION / ACTION_SCALE  # of the behaviour, in stored units
Floats = np.ndarray


# --- the exact clone as a policy ---


@dataclass
class ExactClone:
    """The mean of the exact posterior over B episodes at once, one timestep after another.

    context: K timesteps that it sees. mixing, policies: of the data. seen: whether past actions are shown to it; where
    they aren't, the past is evidence by the transitions s, s' alone, which say of z

        p(s' | s, z) = N(s'; (A - B G_z) s, B B' sigma^2 + 0.05^2 I).
    """

    context: int
    mixing: str
    policies: int
    seen: bool = True

    def start(self) -> None:
        """Forget all episodes."""
        self._states: list[Floats] = []
        self._evidence: list[Floats] = []

    def weights(self, state: Floats, previous: Floats) -> Floats:
        """p(z | the last K timesteps) (B, Z) at states (B, 4); previous (B, 2) is shown as the last action."""
        if self._states:
            last = self._states[-1]
            self._evidence.append(
                exact.action_evidence(last, previous, self.policies)
                if self.seen
                else transition_evidence(last, state, self.policies)
            )
        self._states.append(state)
        rows, length = len(state), min(len(self._states), self.context)
        if self.mixing != "episode":
            told = 1 / self.policies if self.mixing == "step" else np.eye(self.policies)[0]
            return np.broadcast_to(told, (rows, self.policies)).astype(np.float64)
        first = len(self._states) - length
        past = sum(self._evidence[first:], np.zeros((rows, self.policies)))
        times, lengths = np.full(rows, first), np.full(rows, length)
        return exact.window_posterior(
            self._states[first], times, lengths, past, self.context, timed=True
        )

    def act(self, state: Floats, previous: Floats) -> tuple[Floats, Floats]:
        """Its action (B, 2), and the weights (B, Z) of the posterior."""
        weights = self.weights(state, previous)
        means = exact.controller_actions(state, self.policies)  # (B, Z, 2)
        return np.einsum("bz,bzi->bi", weights, means), weights


def transition_evidence(state: Floats, following: Floats, policies: int) -> Floats:
    """log p(s' (B, 4) | s (B, 4), controller) with the action unseen, up to a constant: (B, Z)."""
    covariance = EXPLORATION**2 * B @ B.T + PROCESS_NOISE**2 * np.eye(4)
    closed = A - B @ exact.controllers(policies)  # (Z, 4, 4)
    apart = following[:, None] - np.einsum("zij,bj->bzi", closed, state.astype(np.float64))
    weighed: Floats = np.einsum("bzi,ij,bzj->bz", apart, np.linalg.inv(covariance), apart)
    return -0.5 * weighed


# --- interventions ---


@dataclass
class Scene:
    """What an intervention may use at a timestep: t, states (S, E, 4), the exact posterior's weights (S, E, Z) of the
    last timestep, and random numbers of each seed's own, the same in every cell of the seed.

    policy (S, E): a controller drawn for each episode, which has nothing to do with who acts.
    """

    t: int
    state: Floats
    weights: Floats
    policies: int
    policy: Floats
    generators: Sequence[np.random.Generator]

    def normal(self) -> Floats:
        """The behaviour's noise, (S, E, 2)."""
        size = (self.state.shape[1], 2)
        return NOISE * np.stack([g.standard_normal(size) for g in self.generators])

    def uniform(self) -> Floats:
        """(S, E) in [0, 1)."""
        return np.stack([g.random(self.state.shape[1]) for g in self.generators])

    def controller(self, which: Floats) -> Floats:
        """What controllers (S, E) do at the states, with the behaviour's noise: (S, E, 2)."""
        means = exact.controller_actions(self.state, self.policies)  # (S, E, Z, 2)
        mean = np.take_along_axis(means, which[..., None, None].astype(np.int64), axis=2)[:, :, 0]
        return np.clip(mean + self.normal(), -1.0, 1.0)


Changed = Callable[[Scene, Floats], Floats]


def as_it_is(scene: Scene, action: Floats) -> Floats:
    """No change."""
    return action


def with_noise(scene: Scene, action: Floats) -> Floats:
    """The behaviour's noise on top."""
    return np.clip(action + scene.normal(), -1.0, 1.0)


def masked(scene: Scene, action: Floats) -> Floats:
    """Zeros."""
    return np.zeros_like(action)


def resampled(scene: Scene, action: Floats) -> Floats:
    """What a controller drawn from the exact posterior would have done: of the law that the data have."""
    summed = np.cumsum(scene.weights, axis=-1)
    drawn = (scene.uniform()[..., None] > summed[..., :-1]).sum(-1)
    return scene.controller(drawn)


def unrelated(scene: Scene, action: Floats) -> Floats:
    """What one controller, drawn for the episode, would have done, whoever acts."""
    return scene.controller(scene.policy)


def better(scene: Scene, action: Floats) -> Floats:
    """What the best controller would have done."""
    return scene.controller(np.zeros_like(scene.policy))


def taught(steps: int) -> Changed:
    """The controller drawn for the episode acts in the first `steps` timesteps."""

    def change(scene: Scene, action: Floats) -> Floats:
        return scene.controller(scene.policy) if scene.t < steps else action

    return change


# Level -> (what is done, what of it the policy is then shown as its past action). What it is shown changes nothing
# without memory.
INTERVENTIONS: dict[str, tuple[Changed, Changed]] = {
    "none": (as_it_is, as_it_is),
    "noise-shown": (as_it_is, with_noise),
    "noise-executed": (with_noise, as_it_is),
    "masked": (as_it_is, masked),
    "resampled": (as_it_is, resampled),
    "unrelated": (as_it_is, unrelated),
    "better": (as_it_is, better),
    "taught-5": (taught(5), as_it_is),
    "taught-20": (taught(20), as_it_is),
    "taught-50": (taught(50), as_it_is),
}
ACTED = (
    "none",
    "noise-executed",
    "taught-5",
    "taught-20",
    "taught-50",
)  # those that change what is done


class Intervened(Around[Actable]):
    """S policies with whom something interferes; each at the same time compared with the exact clone in its place.

    agent: the policies, or None for the exact clone itself. noise: names of the streams of random numbers.
    """

    def __init__(
        self,
        agent: Actable,
        clone: ExactClone,
        what: str,
        study: str,
        seeds: Sequence[int],
        itself: bool,
    ) -> None:
        super().__init__(agent)
        self.clone, self.what = clone, what
        self.study, self.seeds, self.itself = study, seeds, itself
        self.noise_dim = 0 if itself else agent.noise_dim
        self.apart: list[Floats] = []  # (S, E) a timestep: squared difference from the exact clone

    def start(self, batch: int) -> Acting:
        """`batch` fresh episodes of each policy."""
        return _Interfering(self, batch)


class _Interfering:
    def __init__(self, owner: Intervened, batch: int) -> None:
        self.owner, self.batch = owner, batch
        self.inner = owner.agent.start(batch)
        self.generators = [
            streams.stream(owner.study, seed, "interventions") for seed in owner.seeds
        ]
        owner.clone.start()
        self.policy = np.stack(
            [g.integers(owner.clone.policies, size=batch) for g in self.generators]
        )
        self.scene: Scene | None = None
        self.t = 0

    def act(self, raw: Fields, noise: torch.Tensor | None) -> torch.Tensor:
        """See `Acting`."""
        owner, shape = self.owner, (self.owner.size, self.batch)
        done, shown = INTERVENTIONS[owner.what]
        state = raw.observation.double().cpu().numpy()  # (S, E, 4)
        previous = raw.action.double().cpu().numpy()  # (S, E, 2)
        if (
            self.scene is not None
        ):  # the last action, as it is shown at the state that it was taken in
            previous = shown(self.scene, previous)
        clone, weights = owner.clone.act(state.reshape(-1, 4), previous.reshape(-1, 2))
        action = clone.reshape(*shape, 2)
        if not owner.itself:
            seen = replace(raw, action=torch.from_numpy(previous).to(raw.action))
            action = self.inner.act(seen, noise).double().cpu().numpy()
            owner.apart.append(np.square(action - clone.reshape(action.shape)).mean(-1))
        self.scene = Scene(
            self.t,
            state,
            weights.reshape(*shape, -1),
            owner.clone.policies,
            self.policy,
            self.generators,
        )
        self.t += 1
        return torch.from_numpy(done(self.scene, action)).float().to(owner.device)


@register("measurement", "intervene", VERSION)
class Interventions(Measurement):
    """Acting under an intervention, beside the exact clone under the same one in the same episodes."""

    responses = (
        SCORE,
        MEDIAN,
        REGRET,
        SHARE_LOST,
        Response(
            "own_error", "action error where it acts", "of the action variance", "lower", digits=3
        ),
        Response(
            "clone_regret", "regret of the exact clone", "points", "lower", digits=1, points=True
        ),
        Response(
            "excess_regret",
            "regret beyond the exact clone's",
            "points",
            "lower",
            digits=1,
            points=True,
        ),
        Response("clone_lost", "share lost by the exact clone", "fraction", "lower"),
        Response(
            "own_error_at",
            "action error where it acts",
            "of the action variance",
            "lower",
            index="timestep",
            tabled=False,
        ),
    )
    acts = True

    class Options(Section):
        """what: the intervention, see `INTERVENTIONS`. episodes, target, cap, below: as of `rollout`."""

        what: Literal[tuple(INTERVENTIONS)] = "none"  # type: ignore[valid-type]
        episodes: int = Field(default=200, gt=0)
        target: str | float = "p90"
        cap: float = Field(default=CAP, gt=0)
        below: float = LOST

    def __call__(self, trained: Trained, options: Any) -> Mapping[str, Numbers]:
        data = trained.system.data
        mixing, policies = mixture(data.spec)
        actor = trained.system.actor(trained.models, {"context": None, "state": "re-encoded"})
        clone = ExactClone(trained.system.context, mixing, policies, options.what != "masked")

        def run(itself: bool) -> tuple[Rollouts, Intervened]:
            agent = Intervened(actor, clone, options.what, trained.streams, trained.seeds, itself)
            env = data.spec.make_env(len(trained.seeds) * options.episodes)
            found = rollout(
                agent,
                env,
                options.episodes,
                study=trained.streams,
                seeds=trained.seeds,
                target=target_return(data, options.target),
                policy=data.spec.best_policy,
                sample=True,
            )
            return found, agent

        (own, agent), (ideal, _) = run(False), run(True)
        optimal = data.anchors.score(
            np.stack([data.spec.optimal_returns(each.tolist()) for each in own.env_seeds])
        )
        scores, best = data.anchors.score(own.returns), data.anchors.score(ideal.returns)
        variance = action_variance(data.held_out)
        apart = np.stack(agent.apart, axis=1).mean(-1) / variance  # (S, T)
        mine, its = (regret(each, optimal, options.cap) for each in (scores, best))
        return {
            "score": scores.mean(axis=1),
            "score_median": np.median(scores, axis=1),
            "regret": mine,
            "lost": (scores < options.below).mean(axis=1),
            "own_error": apart.mean(axis=1),
            "clone_regret": its,
            "excess_regret": mine - its,
            "clone_lost": (best < options.below).mean(axis=1),
            "own_error_at": apart,
            "timestep": np.arange(apart.shape[1]),
        }

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        name = str(config["data"])
        if not re.match(r"lq-(mix|clone)/[^@]*$", name):
            return f"the measurement 'intervene' needs the exact posterior; found '{name}', allowed: lq-mix/..."
        return ""

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> frozenset[str]:
        fields = frozenset(cls.Options.model_fields)
        told = str(config["condition"])
        return fields if "return" in told else fields - {"target"}


def mixture(spec: DataSpec) -> tuple[str, int]:
    """How the controllers of a linear-quadratic data set are mixed, and how many there are; the exact clone's own
    episodes are those of the clone of an episode mixture."""
    return ("episode", 2) if spec.family == "lq-clone" else lq.mixture(spec)


# --- the clone's own episodes as data ---


class Clone(Behaviour):
    """The exact clone with K timesteps acts in its own episodes, by the mean of its posterior."""

    def __init__(self, context: int) -> None:
        self._clone = ExactClone(context, "episode", 2)

    def start(self, observation: Floats, rng: np.random.Generator) -> None:
        self._clone.start()
        self._previous = np.zeros((len(observation), 2))

    def act(self, observation: Floats) -> Acted:
        action, _ = self._clone.act(observation, self._previous)
        stored = action.astype(np.float32)
        self._previous = stored
        return Acted(
            stored,
            np.zeros(len(action), dtype=np.int64),
            censored_logp(stored, stored, NOISE),
            stored,
        )


@register("data", "lq-clone", VERSION, label="LQ")
class Clones(Family):
    """`lq-clone/20-3000`: 3,000 episodes of the exact clone that sees 20 timesteps: what relabelling the windows of a
    learner's own episodes by the exact posterior comes to once the learner is good."""

    words: ClassVar = {r"(\d+)-(\d+)": r"the exact clone's own (K = \1), \2 episodes"}

    def resolve(self, member: str, name: str) -> DataSpec:
        found = re.fullmatch(r"([1-9][0-9]?)-([1-9][0-9]{0,4})", member)
        if not found:
            raise unknown("data", name, self.names())
        context, episodes = int(found[1]), int(found[2])
        base = lq.LinearMixtures().resolve("episode", name)

        def part(number: int, which: str) -> Trajectories:
            steps = number * HORIZON
            return collect(f"lq-clone/{member}", which, LinearQuadratic, Clone(context), steps)

        return replace(
            base,
            name=name.partition("@")[0],
            family="lq-clone",
            recipe={"generator": "lq-clone", "version": 1, "context": context, "train": episodes},
            generate=lambda: (part(episodes, "train"), part(100, "held_out")),
            yardstick=None,
            behaviour=lambda: Clone(context),
        )

    def names(self) -> list[str]:
        return ["lq-clone/20-3000"]


# --- the figure ---

WHAT = "measure.intervene.what"
SAID = {
    "none": "nothing is changed",
    "noise-shown": "it sees its past actions with\nthe behaviour's noise",
    "noise-executed": "it acts with the behaviour's noise",
    "masked": "it sees zeros for its past actions",
    "resampled": "it sees what a controller that fits\nits window would have done",
    "unrelated": "it sees what a controller drawn\nat random would have done",
    "better": "it sees what the better\ncontroller would have done",
    "taught-5": "a controller acts for 5 timesteps",
    "taught-20": "a controller acts for 20 timesteps",
    "taught-50": "a controller acts for 50 timesteps",
}
_APART = 0.17  # of a row, between the marks in it


@register("figure", "interventions", order=10)
def interventions(results: Results) -> base.Drawn | None:
    """Regret under each intervention, a mark a mixer, beside the exact clone's; None where nothing was done."""
    done = summaries.finished(results.rows)
    if WHAT not in done or done[WHAT].nunique() < 2:
        return None
    longest = done["context"].max()
    first = results.study.data[0]
    rows = done[(done["data"] == first) & (done["condition"] == "time") & (done["head"] == "mse")]
    memory, without = rows[rows["context"] == longest], rows[rows["context"] == 1]
    levels = [level for level in SAID if level in set(memory[WHAT])]
    mixers = words.levels("mixer", memory["mixer"].unique())
    looks = style.looks("mixer", mixers)
    figure = style.new_figure(0.75 + 0.3 * len(levels))
    panel = figure.subplots()
    for height, level in enumerate(levels):
        one = memory[memory[WHAT] == level]
        for place, mixer in enumerate(mixers):
            group = one[one["mixer"] == mixer]
            if len(group):
                cell = summaries.mean_interval(group["intervene.regret"].to_numpy(dtype=float))
                _bar(panel, cell, height + (place - len(mixers) / 2) * _APART, looks[mixer])
        each = one.drop_duplicates("seed")["intervene.clone_regret"]
        cell = summaries.mean_interval(each.to_numpy(dtype=float))
        _bar(panel, cell, height + len(mixers) / 2 * _APART, _CLONE)
        if height:
            panel.axhline(height - 0.5, color="#cccccc", linewidth=0.4, zorder=0)
    plain = without[without[WHAT] == "none"]["intervene.regret"]
    if len(plain):
        panel.axvline(
            float(plain.mean()), color="#808080", linewidth=0.9, linestyle=":", zorder=0.5
        )
        panel.text(
            float(plain.mean()),
            -0.62,
            "no memory, nothing changed",
            ha="center",
            va="bottom",
            fontsize=style.SMALL,
        )
    panel.set_yticks(range(len(levels)), [SAID[level] for level in levels], linespacing=1.0)
    panel.set_ylim(len(levels) - 0.5, -0.5)
    panel.set_xlim(left=0)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel(words.response("intervene.regret").axis())
    handles = [_handle(looks[mixer], words.level("mixer", mixer)) for mixer in mixers]
    figure.legend(
        handles=[*handles, _handle(_CLONE, "exact clone")], loc="outside upper center", ncols=4
    )
    seeds = memory["seed"].nunique()
    return base.Drawn(
        figure=figure,
        title="What closes the gap to the exact clone",
        caption=(
            f"Regret to the optimal policy (0 is best) of clones that see {longest} timesteps, when something is done"
            f" to them while they act; beside them the exact clone, the mean of the exact posterior,"
            f" with the same window, intervention and episodes. {words.data(first)}; means over {seeds} seeds of 200"
            f" episodes each, with 95 % intervals over seeds. Dotted: the same models trained without memory."
        ),
        trials=tuple(dict.fromkeys([*memory["trial"], *without["trial"]])),
    )


_CLONE = style.Look("#1a1a1a", "D", "-")


def _bar(panel: Any, cell: summaries.Interval, height: float, look: style.Look) -> None:
    panel.plot([cell.low, cell.high], [height] * 2, color=look.colour, linewidth=0.9, zorder=2)
    panel.plot(cell.mean, height, color=look.colour, marker=look.marker, markersize=3.8, zorder=3)


def _handle(look: style.Look, label: str) -> Line2D:
    return Line2D([], [], color=look.colour, marker=look.marker, linewidth=0.9, label=label)
