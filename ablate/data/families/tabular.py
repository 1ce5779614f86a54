"""Mixtures of two policies in tabular processes, where every value is known exactly.

`chain/TASK-MIXING-v0` and `grid/TASK-MIXING-v0` (`ablate.envs.tabular`):

    chain  gamble    at the right end a gamble, +20 at best, -4 in the mean, beside +12 for sure
           certain   its deterministic twin: daring pays -4
    grid   cliff     moves slip aside with probability 1/8
           calm      its deterministic twin

A task may be followed by `-sticky10` or `-sticky25`, the percentage at which the action executed last is executed
again, which the observation shows; and that by `-hidden`, the same trajectories without it, as in the Arcade
Learning Environment. Mixings as in `lq-mix`: `episode` draws one of two policies per episode, so that the past
tells who acts; `step` draws one at every step; `single` is the better one alone; `optimal` is none of the two, but the
best policy that doesn't mind the time, alone: where it leads, the data's values are the optimal ones. `apart`, of the
chain, draws one of two others per episode: one makes for the near end, which is worse but likelier, as it is nearer;
the other for the far one, whose first steps are worth more by the data's values, too. These two are not listed.

The observation is the cell, one-hot, then the action executed last where there are sticky ones; after the end of an
episode it is zero. Actions are one-hot, scaled to -1 and +1. `behaviour_action` is the acting policy's mean action,
`simulator_state` the index of the process's state. The time isn't shown: it is a condition that a study may add.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import numpy as np

from ablate.data import tabular
from ablate.data.behaviour import Acted, Behaviour
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.collect import collect
from ablate.data.tabular import Law
from ablate.data.tabular_returns import Conditioned
from ablate.data.tabular_windows import window_actions
from ablate.data.trajectories import Trajectories, action_variance
from ablate.envs.base import MaskedEnv, VectorEnv
from ablate.envs.tabular import (
    CELLS,
    FIRST_CELL,
    SLIP,
    Array,
    Tabular,
    TabularMDP,
    chain,
    cliff,
    free_cells,
    sticky,
)
from ablate.errors import UserError, unknown
from ablate.registry import register

MIXINGS = ("episode", "step", "single")
ALONE, APART = "optimal", "apart"
TASKS = {"chain": ("gamble", "certain"), "grid": ("cliff", "calm")}
EPISODES = {"train": 2000, "held_out": 500}
EARLY = 8  # steps 0 to 7 of an episode are "early", as in `lq-mix`
NOISE = 0.1  # how often a policy in the grid moves at random
# Of left, right and dare, everywhere in the chain: who makes for the near and who for the far end.
ENDS = {"near": (0.85, 0.1, 0.05), "far": (0.1, 0.8, 0.1)}
_MEMBER = re.compile(
    r"(?P<task>[a-z]+)(-sticky(?P<sticky>10|25)(?P<hidden>-hidden)?)?-(?P<mixing>[a-z]+)-v0"
)

# Where the grid's policies go; the first keeps away from the cliff. (`ablate.envs.tabular.GRID`)
ARROWS = "^>v<"
ROUTES = {
    "careful": (">>>>v", "^###v", "^<>>v", "^xxxG"),
    "daring": ("v>>>v", "v###v", ">>>>v", "^xxxG"),
}


@dataclass(frozen=True)
class Member:
    """What a name says: task, stickiness in per cent, whether the last action is hidden, how policies are mixed."""

    family: str
    task: str
    sticky: int
    hidden: bool
    mixing: str

    @property
    def name(self) -> str:
        """The full name of the data set."""
        last = f"-sticky{self.sticky}" if self.sticky else ""
        hidden = "-hidden" if self.hidden else ""
        return f"{self.family}/{self.task}{last}{hidden}-{self.mixing}-v0"

    @cached_property
    def process(self) -> TabularMDP:
        """The process that it takes place in."""
        if self.family == "chain":
            made = chain(gamble=self.task == "gamble")
        else:
            made = cliff(slip=SLIP if self.task == "cliff" else 0.0)
        return sticky(made, self.sticky / 100) if self.sticky else made

    @cached_property
    def policies(self) -> dict[str, Array]:
        """The policies (cells, A) that act, by name, the better one first."""
        if self.mixing == ALONE:
            best = tabular.optimise(self.process)[1][0]  # (S, A), with all the time left
            cells = len(free_cells()) if self.family == "grid" else CELLS
            firsts = self.process.features[~self.process.terminal, :cells].argmax(1)
            return {ALONE: best[~self.process.terminal][np.unique(firsts, return_index=True)[1]]}
        if self.mixing == APART:
            tables = {name: np.tile(row, (CELLS, 1)) for name, row in ENDS.items()}
        else:
            tables = chain_policies() if self.family == "chain" else grid_policies()
        value = {
            name: tabular.expected_return(self.process, on_states(self.process, table))
            for name, table in tables.items()
        }
        ranked = {name: tables[name] for name in sorted(tables, key=lambda name: -value[name])}
        return dict(list(ranked.items())[:1]) if self.mixing == "single" else ranked

    @cached_property
    def observable(self) -> list[int] | None:
        """The shown coordinates."""
        cells = len(next(iter(self.policies.values())))
        return list(range(cells)) if self.hidden else None

    @cached_property
    def law(self) -> Law:
        """The exact law of the data."""
        policies = np.stack([on_states(self.process, p) for p in self.policies.values()])
        return Law(
            process=self.process,
            policies=policies,
            weights=np.full(len(policies), 1 / len(policies)),
            mixing="step" if self.mixing == "step" else "episode",
            observable=self.observable,
        )


class _Tabular(Family):
    """2,000 training and 500 held-out episodes; behaviour_id 0: the better policy."""

    family: str

    def resolve(self, member: str, name: str) -> DataSpec:
        base = parse(f"{self.family}/{member}", name, self.names())
        return _spec(base)

    def names(self) -> list[str]:
        risky, twin = TASKS[self.family]
        tasks = [risky, twin, f"{risky}-sticky25", f"{risky}-sticky25-hidden"]
        return [f"{self.family}/{task}-{mixing}-v0" for task in tasks for mixing in MIXINGS]


@register("data", "chain", label="Chain")
class Chains(_Tabular):
    """Chain of nine cells with a gamble at its end; two policies."""

    family = "chain"


@register("data", "grid", label="Grid")
class Grids(_Tabular):
    """Grid with a cliff; two policies."""

    family = "grid"


def parse(base: str, name: str, known: list[str]) -> Member:
    """What the name of a tabular data set says.

    Raises UserError with the nearest of the `known` names.
    """
    family, _, member = base.partition("/")
    found = _MEMBER.fullmatch(member)
    if (
        family not in TASKS
        or found is None
        or found["task"] not in TASKS[family]
        or found["mixing"] not in (*MIXINGS, ALONE, *([APART] if family == "chain" else []))
        or (found["mixing"] == ALONE and found["sticky"])
    ):
        raise unknown("data", name, known)
    return _member(
        family, found["task"], int(found["sticky"] or 0), bool(found["hidden"]), found["mixing"]
    )


@cache
def _member(family: str, task: str, percent: int, hidden: bool, mixing: str) -> Member:
    return Member(family, task, percent, hidden, mixing)


def exact_table(name: str) -> list[dict[str, str | float]]:
    """The exact values of a tabular data set as rows for a person.

    Every row has `what`, `return` (expected) and `score`; where they apply also `sd`, the return's standard deviation
    over episodes, `promised`, what a plan or a return that is asked for holds out, and `unseen`, as in
    `ablate.data.tabular_returns.Achieved`. Look-ahead stops where the promise is V*; it needs the state, so that it is
    missing where some is hidden. Raises UserError when there is no such data set.
    """
    member = parse(name, name, [*Chains().names(), *Grids().names()])
    law, process = member.law, member.process
    rows: list[dict[str, str | float]] = []

    def add(what: str, policy: Array, **more: float) -> None:
        spread = tabular.return_variance(process, policy) ** 0.5
        value = tabular.expected_return(process, policy)
        rows.append({"what": what, **more, "return": value, "sd": spread})

    for label, policy in zip(member.policies, law.staged_policies, strict=True):
        add(f"policy {label}", policy)
    if len(member.policies) > 1:
        for mixing in tabular.MIXINGS:
            mixed = replace(law, mixing=mixing)
            spread = mixed.return_variance**0.5
            rows.append(
                {"what": f"mixed per {mixing}", "return": mixed.expected_return, "sd": spread}
            )
    cloned = tabular.clone(law)
    add("clone without memory, sampling", cloned)
    add("clone without memory, likeliest action", tabular.greedy(cloned))
    asked = Conditioned(law)
    for which, target in (
        ("median", asked.quantile(0.5)),
        ("90th percentile", asked.quantile(0.9)),
        ("greatest", float(asked.targets().max())),
    ):
        found = asked.achieve(target)
        rows.append(
            {
                "what": f"asking for the {which} return",
                "promised": found.promised,
                "return": found.achieved,
                "unseen": found.unseen,
            }
        )
    best, policy = tabular.optimise(process)
    if law.observable is None:
        after, most = tabular.data_values(law).state, float(process.start @ best.state[0])
        for steps in range(1, process.horizon + 1):
            promise, planned = tabular.lookahead(process, after, steps)
            promised = float(process.start @ promise[0])
            add(f"look-ahead of {steps}", planned, promised=promised)
            if promised > most - tabular.TIE:
                break
    add("optimal" if law.observable is None else "optimal, nothing hidden", policy)
    at = anchors(member)
    # Rounded as the anchors are, or what defines score 0 would be a little off it.
    return [{**row, "score": round(float(at.score(row["return"])), 6) + 0.0} for row in rows]


def _spec(member: Member) -> DataSpec:
    def make_env(num_envs: int) -> VectorEnv:
        env = Tabular(num_envs, member.process)
        return env if member.observable is None else MaskedEnv(env, member.observable)

    return DataSpec(
        name=member.name,
        family=member.family,
        recipe={
            "generator": f"tabular-{member.family}",
            "version": 1,
            "task": member.task,
            "sticky": member.sticky,
            "hidden": member.hidden,
            "mixing": member.mixing,
            "horizon": member.process.horizon,
            "seed": 0,
            **EPISODES,
        },
        generate=lambda: (simulate(member, "train"), simulate(member, "held_out")),
        make_env=make_env,
        anchors=lambda: anchors(member),
        best_policy=0,
        num_policies=len(member.policies),
        observable=member.observable,
        yardstick=lambda part, at, context: yardstick(member.law, part, at, context),
        behaviour=lambda: Mixed(member),
        exact=lambda: exact_table(member.name),
        optimal=partial(tabular.optimal_returns, member.process),
        optimal_values=None if member.hidden else tabular.optimal_values(member.process),
    )


def anchors(member: Member) -> Anchors:
    """Score 0 is the worse policy's expected return, 100 the optimal one's, with nothing hidden."""
    both = replace(member, mixing="episode").law
    values = [float(both.process.start @ v.state[0]) for v in both.values]
    best = float(both.process.start @ tabular.optimise(both.process)[0].state[0])
    return Anchors(
        low=round(min(values), 9),
        high=round(best, 9),
        source="expected returns of the worse policy and of the optimal one that sees everything, exact",
    )


def yardstick(
    law: Law, held_out: Trajectories, anchors: Anchors, context: int
) -> dict[str, float] | None:
    """Errors and score of the exact p(action | K timesteps, the time); None beyond an episode.

    The errors are those of its mean. The score is that of sampling from it. Where the whole state is shown, that is the
    score of the data for any K, by the equivalence of `clone` for windows in the place of states; where some is hidden,
    it is left out beyond K = 1.
    """
    if context > law.process.horizon:
        return None
    assert held_out.behaviour_action is not None
    predicted = 2.0 * window_actions(law, held_out, context) - 1.0
    squares = np.square(predicted - held_out.behaviour_action)
    early = held_out.timestep < EARLY
    variance = action_variance(held_out)
    found = {
        "action_error": float(squares.mean()) / variance,
        "action_error_early": float(squares[early].mean()) / variance,
    }
    if law.observable is None or context == 1:
        value = tabular.expected_return(law.process, tabular.clone(law))
        found["score"] = float(anchors.score(value))
    return found


# --- who acts ---


class Mixed(Behaviour):
    """The policies of a member, mixed as its name says. They see the cell, nothing else."""

    def __init__(self, member: Member) -> None:
        self._tables = np.stack(list(member.policies.values()))  # (Z, cells, A)
        self._per_step = member.mixing == "step"

    def start(self, observation: np.ndarray, rng: np.random.Generator) -> None:
        self._rng = rng
        self._ids = self._draw(len(observation))

    def act(self, observation: np.ndarray) -> Acted:
        cells = self._tables.shape[1]
        if observation.shape[1] < cells:
            raise UserError(
                f"behaviour: the observation has {observation.shape[1]} numbers; its policies need the"
                f" {cells} of the cell."
            )
        batch = len(observation)
        ids = self._draw(batch) if self._per_step else self._ids
        chances = self._tables[ids, observation[:, :cells].argmax(axis=1)]  # (B, A)
        bounds = chances.cumsum(-1)
        luck = self._rng.random((batch, 1)) * bounds[:, -1:]
        chosen = (luck >= bounds).sum(axis=1)
        actions = np.where(np.arange(chances.shape[1]) == chosen[:, None], 1.0, -1.0)
        return Acted(
            actions=actions.astype(np.float32),
            ids=ids,
            logp=np.log(chances[np.arange(batch), chosen]),
            mean=(2.0 * chances - 1.0).astype(np.float32),
        )

    def _draw(self, batch: int) -> np.ndarray:
        return self._rng.integers(len(self._tables), size=batch)


def simulate(member: Member, part: str) -> Trajectories:
    """Episodes of a member; the same ones whether or not the last action is hidden."""
    episodes, horizon = EPISODES[part], member.process.horizon
    shown = replace(member, hidden=False)
    made = collect(
        shown.name,
        part,
        lambda num_envs: Tabular(num_envs, member.process),
        Mixed(shown),
        # Enough for so many episodes of any length. A fixed number of episodes, not of timesteps: else long
        # episodes would be missing at the end.
        episodes * horizon,
        batch=episodes,
    ).select(np.arange(episodes))
    if member.observable is None:
        return made
    return made.observe(member.observable, member.name)


def chain_policies() -> dict[str, Array]:
    """(9, 3) each, probabilities of left, right and dare: one mostly takes what is sure, one gambles.

    Left of the start both make for the left end. So a short plan, which ends by what the data get, goes there too;
    one that reaches the right end finds what is sure.
    """
    near = np.array([0.6, 0.3, 0.1])
    far = {"patient": np.array([0.1, 0.8, 0.1]), "bold": np.array([0.15, 0.6, 0.25])}
    at_the_end = {"patient": np.array([0.05, 0.7, 0.25]), "bold": np.array([0.05, 0.15, 0.8])}
    tables = {}
    for name in far:
        table = np.tile(far[name], (CELLS, 1))
        table[:FIRST_CELL] = near
        table[FIRST_CELL] = 0.5 * (near + far[name])
        table[-1] = at_the_end[name]
        tables[name] = table
    return tables


def grid_policies() -> dict[str, Array]:
    """(cells, 4) each: along ROUTES, but for NOISE."""
    tables = {}
    for name, rows in ROUTES.items():
        moves = [ARROWS.index(rows[r][c]) for r, c in free_cells()]
        tables[name] = (1.0 - NOISE) * np.eye(4)[moves] + NOISE / 4
    return tables


def on_states(process: TabularMDP, table: Array) -> Array:
    """A policy that sees the cell, (cells, A), as one on states (S, A); uniform in terminal ones."""
    cells, actions = table.shape
    chosen = table[process.features[:, :cells].argmax(axis=1)]
    policy: Array = np.where(process.terminal[:, None], 1.0 / actions, chosen)
    return policy
