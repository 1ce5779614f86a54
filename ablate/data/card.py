"""The card of a data set: what a person wants to know before trusting a result on it, as tables of text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.data.catalogue import PLAIN, DataSet
from ablate.data.dose import Interval, Reading, measure
from ablate.data.trajectories import Trajectories
from ablate.errors import UserError

BARS = " ▁▂▃▄▅▆▇█"
BINS = 30
POLICIES_SHOWN = 8
# A coordinate counts as clipped when at least this share of its values is exactly its largest or smallest.
CLIPPED = 1e-4


@dataclass(frozen=True)
class Section:
    """A table of the card: a title, a heading for each column ("" for none) and rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def card(data: DataSet, dose: bool = True) -> list[Section]:
    """Where the data come from, what is in them, what is hidden and, with `dose`, what the past tells."""
    sections = [
        Section(data.spec.name, ["", ""], [[a, b] for a, b in facts(data).items()]),
    ]
    if data.train.behaviour_id is not None and data.spec.num_policies > 1:
        sections.append(policies(data))
    if data.spec.exact is not None:
        sections.append(exact_values(data.spec.exact()))
    if dose:
        sections.append(dose_meter(data.train))
    return sections


def facts(data: DataSet) -> dict[str, str]:
    """What holds for the whole set, as text by name."""
    train, spec = data.train, data.spec
    recipe = {key: value for key, value in spec.recipe.items() if key != "observable"}
    quantiles = np.percentile(train.returns, [0, 10, 50, 90, 100])
    width, plain = train.observations.shape[1], data.anchors == PLAIN
    found = {
        "made by": ", ".join(f"{key} {_short(value)}" for key, value in recipe.items()),
        "training": f"{train.num_episodes:,} episodes, {len(train.rewards):,} timesteps",
        "held out": f"{data.held_out.num_episodes:,} episodes,"
        f" {len(data.held_out.rewards):,} timesteps",
        "observation": f"{width} numbers",
        "action": f"{train.actions.shape[1]} numbers in [-1, 1]",
        "hidden": _hidden(data),
        "episode length": f"{train.lengths.min()} to {train.lengths.max()} timesteps,"
        f" mean {train.lengths.mean():.4g}",
        "episodes end": f"{train.terminations.sum() / train.num_episodes:.1%} by termination",
        "returns": "min {:.4g}, p10 {:.4g}, median {:.4g}, p90 {:.4g}, max {:.4g}".format(
            *quantiles
        ),
        "histogram": histogram(train.returns),
        "simulator": f"none: {spec.lacks_simulator}" if spec.lacks_simulator else "",
        "score 0": "" if plain else f"return {data.anchors.low:.6g}",
        "score 100": "" if plain else f"return {data.anchors.high:.6g}",
        "anchors": data.anchors.source,
        "mean score": f"{float(data.anchors.score(train.returns.mean())):.1f}",
        "action to action": autocorrelation(train),
        "saturated actions": f"{(np.abs(train.actions) >= 1).mean():.2%} of all numbers are -1 or 1",
        "clipped": clipped(train),
        "also known": ", ".join(_extras(train)) or "nothing",
        "content": data.content_hash,
    }
    return {key: value for key, value in found.items() if value}


def histogram(values: np.ndarray) -> str:
    """Counts in BINS equal bins between the smallest and the largest value, as a line of bars."""
    counts, _ = np.histogram(values, bins=BINS)
    heights = np.ceil(counts / counts.max() * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights)


def autocorrelation(data: Trajectories) -> str:
    """Correlation of each action coordinate with itself one timestep before, within episodes."""
    now = np.delete(np.arange(len(data.rewards)), data.episode_starts[:-1])
    if not len(now):
        return ""
    actions = data.actions.astype(np.float64)
    found = []
    for column in actions.T:
        before, after = column[now - 1], column[now]
        spread = before.std() * after.std()
        if spread > 0:
            centred = (before - before.mean()) * (after - after.mean())
            found.append(float(centred.mean() / spread))
    if not found:
        return "constant actions"
    return f"correlation {np.mean(found):.3f} at lag 1 ({min(found):.3f} to {max(found):.3f})"


def clipped(data: Trajectories) -> str:
    """Coordinates of the observation that pile up exactly at their bounds, as clipped velocities do."""
    rows = data.observations
    share = ((rows == rows.min(axis=0)) | (rows == rows.max(axis=0))).mean(axis=0)
    # A quantity with a few values only is at its bounds without having been clipped.
    varied = np.array([len(np.unique(column[:2000])) > 20 for column in rows.T])
    cut = np.flatnonzero(varied & (share > CLIPPED) & (share * len(rows) > 2))
    if not len(cut):
        return "no coordinate is"
    at_all = (
        (rows[:, cut] == rows[:, cut].min(axis=0)) | (rows[:, cut] == rows[:, cut].max(axis=0))
    ).any(axis=1)
    which = ", ".join(f"{i} ({share[i]:.2%})" for i in cut)
    return f"{at_all.mean():.2%} of timesteps; coordinates {which}"


def policies(data: DataSet) -> Section:
    """What each behaviour policy did: its share of the timesteps and how often it goes on acting."""
    train = data.train
    assert train.behaviour_id is not None
    ids = train.behaviour_id
    inside = np.delete(np.arange(len(ids)), train.episode_starts[1:] - 1)
    stays = ids[inside] == ids[inside + 1]
    rows = []
    for policy in range(data.spec.num_policies):
        here = ids == policy
        own = here[inside]
        again = f"{stays[own].mean():.1%}" if own.any() else ""
        rows.append([str(policy), f"{here.mean():.1%}", again])
    if len(rows) > 2 * POLICIES_SHOWN:
        left_out = len(rows) - 2 * POLICIES_SHOWN
        gap = [[f"({left_out} more)", "", ""]]
        rows = rows[:POLICIES_SHOWN] + gap + rows[-POLICIES_SHOWN:]
    return Section("Behaviour policies", ["id", "timesteps", "acts at the next one too"], rows)


def exact_values(table: list[dict[str, str | float]]) -> Section:
    """The exact table of a tabular set; look-aheads that change nothing are left out."""
    columns = list(dict.fromkeys(key for row in table for key in row))
    rows: list[list[str]] = []
    for row in table:
        cells = [_cell(row.get(column, "")) for column in columns]
        if rows and cells[1:] == rows[-1][1:] and "look-ahead" in cells[0]:
            continue
        rows.append(cells)
    return Section("Exact values", columns, rows)


def dose_meter(train: Trajectories) -> Section:
    """How much the past tells about the next state and the next action, beyond the present."""
    title = "What the past tells beyond the present (95 % intervals)"
    rows = []
    for question, said in (("dynamics", "of the next state"), ("behaviour", "of the next action")):
        try:
            rows.append([said, *_reading(measure(train, question))])
        except UserError as error:
            rows.append([said, "not measured", str(error), "", ""])
    columns = ["", "R2 of the present", "gain in R2", "gain in nats a step", "history, timesteps"]
    return Section(title, columns, rows)


def _reading(found: Reading) -> list[str]:
    def spell(interval: Interval) -> str:
        return f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})"

    return [f"{found.present:.3f}", spell(found.gain), spell(found.nats), str(found.history)]


def _hidden(data: DataSet) -> str:
    spec = data.spec
    if spec.hiding is None:
        return "nothing"
    shown = len(spec.hiding.observable)
    kind = "sees only what is shown" if spec.hiding.masked else "saw everything"
    return f"{spec.hiding.text}: {shown} of {spec.hiding.width} coordinates shown; the behaviour {kind}"


def _extras(train: Trajectories) -> list[str]:
    known = ("behaviour_id", "behaviour_logp", "behaviour_action", "goal", "simulator_state")
    return [name for name in known if getattr(train, name) is not None]


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
