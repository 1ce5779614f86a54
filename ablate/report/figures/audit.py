"""What each model was found to see: influence by lag, from the audit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm

from ablate import words
from ablate.registry import register
from ablate.report import style
from ablate.report.figures import base
from ablate.report.results import Results

LOGGED = {
    "observation": "state",
    "action": "action",
    "reward": "reward",
}  # then the conditions, by name


@register("figure", "receptive_fields", order=90)
def draw(results: Results) -> base.Drawn | None:
    """Heat strips, lag by mixer, for every declared field in training and in acting shape.

    Shown for the setting (context, history, condition, head) with most mixers, then most
    conditions, then longest context. None when no record holds an influence.
    """
    usable = [
        record
        for record in results.audit
        if record.get("lags") and any((record.get("influence") or {}).values())
    ]  # models of single timesteps have none
    if not usable:
        return None
    sizes = Counter(_setting(record) for record in usable)
    chosen = max(sizes, key=lambda key: (sizes[key], len(key[2]), key[0], key[1:]))
    records = {r["mixer"]: r for r in usable if _setting(r) == chosen}
    looks = words.levels("mixer", records)
    named = {name for record in records.values() for name in record["declared"]}
    fields = [
        name
        for name in (*LOGGED, *sorted(named - LOGGED.keys()))
        if any(record["declared"].get(name) or _seen(record, name) for record in records.values())
    ]
    shapes = list(next(iter(records.values()))["influence"])
    if not fields:
        return None
    figure = style.new_figure(0.55 + len(fields) * (0.14 + 0.125 * len(looks)))
    panels = figure.subplots(len(fields), len(shapes), squeeze=False, sharex=True, sharey=True)
    colours = matplotlib.colormaps["cividis_r"].with_extremes(bad="#f2f2f2")
    values = [
        v
        for r in records.values()
        for shape in shapes
        for name in fields
        for v in r["influence"][shape][name]
    ]
    positive = [v for v in values if v > 0] or [1.0]
    norm = LogNorm(
        max(min(positive), max(positive) * 1e-6), max(max(positive), min(positive) * 1.01)
    )
    lags = np.asarray(records[looks[0]]["lags"])
    mesh: Any = None
    for row, name in enumerate(fields):
        for column, shape in enumerate(shapes):
            panel = panels[row][column]
            strip = np.array(
                [records[mixer]["influence"][shape][name] for mixer in looks], dtype=float
            )
            mesh = panel.pcolormesh(
                lags,
                np.arange(len(looks)),
                np.ma.masked_less_equal(strip, 0.0),
                cmap=colours,
                norm=norm,
                edgecolors="white",
                linewidth=0.4 if len(lags) <= 60 else 0.0,  # else the gaps hide the cells
            )
            for edge in (-0.5, chosen[0] - 0.5):
                panel.axvline(edge, color="#d55e00", linewidth=0.9)
            panel.set_ylim(len(looks) - 0.5, -0.5)
            panel.spines[:].set_visible(False)
            panel.tick_params(length=0)
            if row == 0:
                panel.set_title(f"{shape} shape")
            if row == len(fields) - 1:
                panel.set_xlabel("lag (timesteps before the output)")
            if column == len(shapes) - 1:
                panel.text(
                    1.02,
                    0.5,
                    LOGGED.get(name) or words.level("condition", name),
                    transform=panel.transAxes,
                    rotation=-90,
                    va="center",
                    fontsize=style.SMALL,
                )
    step = max(1, len(lags) // 8)
    panels[0][0].set_xticks([lag for lag in lags if lag >= 0 and lag % max(step, 1) == 0])
    panels[0][0].set_yticks(
        range(len(looks)),
        [words.level("mixer", m) + ("" if records[m]["passed"] else " (refused)") for m in looks],
    )
    for panel in panels[:, 0]:
        panel.tick_params(axis="y", labelsize=style.SMALL)
    bar = figure.colorbar(mesh, ax=list(panels.flat), shrink=0.7, aspect=30, pad=0.015)
    bar.set_label("relative change of the output")
    bar.outline.set_visible(False)
    refused = [words.level("mixer", m) for m in looks if not records[m]["passed"]]
    return base.Drawn(
        figure=figure,
        title="Receptive fields found by the audit",
        caption=(
            f"Receptive fields as audited at K = {chosen[0]} ({_words(chosen)}): relative change "
            "of the output when one input at one lag is altered; light grey is exactly none. The "
            "vertical lines enclose what is declared visible: the present and the K - 1 "
            "timesteps before it; left of them lies the future. The action and reward of lag 0 "
            "come after the decision. "
            + (f"Refused: {words.listing(refused)}." if refused else "Every model shown passed.")
        ),
        trials=(),
        appended=True,
        also={"audited": sorted(looks), "audit_records": len(results.audit)},
    )


def _setting(record: dict[str, Any]) -> tuple[int, str, str, str]:
    return (int(record["context"]), record["history"], record["condition"], record["head"])


def _seen(record: dict[str, Any], name: str) -> bool:
    return any(v > 0 for by_field in record["influence"].values() for v in by_field.get(name, ()))


def _words(setting: tuple[int, str, str, str]) -> str:
    names = ("history", "condition", "head")
    return words.held(dict(zip(names, setting[1:], strict=True)))
