"""How verdicts change without one data set, and with failed trials as the worst."""

from __future__ import annotations

import pandas as pd
from matplotlib.patches import Rectangle

from ablate.report import style
from ablate.report import text as words
from ablate.report.figures import base

_LETTERS = {"supported": "S", "equivalent": "E", "refuted": "R", "inconclusive": "I"}
_ROW = 0.19  # inches


def draw(
    without: pd.DataFrame, failed: pd.DataFrame, trials: tuple[str, ...] = ()
) -> base.Drawn | None:
    """A grid of verdicts, hypotheses down and settings across; None without any.

    without, failed: as `ablate.analyse.leave_out` gives them.
    """
    own = "as declared"
    parts = []
    for rows in (without, failed):
        if len(rows):
            first = rows.groupby("hypothesis", sort=False)["setting"].transform("first")
            parts.append(rows.assign(setting=rows["setting"].where(rows["setting"] != first, own)))
    if not parts:
        return None
    shown = pd.concat(parts).drop_duplicates(["hypothesis", "setting"])
    settings = [own, *(s for s in shown["setting"].unique() if s != own)]
    names = shown["hypothesis"].unique().tolist()
    figure = style.new_figure(_ROW * len(names) + 1.25)
    panel = figure.subplots()
    for row in shown.itertuples(index=False):
        x, y = settings.index(row.setting), names.index(row.hypothesis)
        colour = style.VERDICTS.get(str(row.verdict))
        strong = row.setting == own or row.changed
        if colour is not None:
            panel.add_patch(
                Rectangle(
                    (x - 0.44, y - 0.4),
                    0.88,
                    0.8,
                    facecolor=colour,
                    alpha=0.85 if strong else 0.25,
                    linewidth=0.9 if row.changed else 0.0,
                    edgecolor="#000000",
                )
            )
        panel.text(
            x,
            y,
            _LETTERS.get(str(row.verdict), "–"),
            ha="center",
            va="center",
            fontsize=6.5,
            fontweight="bold" if strong else "normal",
        )
    panel.set_xlim(-0.5, len(settings) - 0.5)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_yticks(range(len(names)), names)
    panel.set_xticks(
        range(len(settings)),
        [_setting(setting, without) for setting in settings],
        rotation=35,
        ha="left",
        rotation_mode="anchor",
        fontsize=6,
    )
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    changed = int(shown["changed"].sum())
    what = []
    if len(without):
        what.append("without one data set at a time")
    if len(failed):
        what.append("with failed trials counted as the worst value of their data set")
    return base.Drawn(
        name="leave_out",
        figure=figure,
        title="Verdicts with less, or with failures",
        caption=(
            f"Verdicts {words.listing(what)}: S supported, E equivalent, R refuted, I inconclusive, "
            f"– not tested. Framed: {words.count(changed, 'verdict')} that differ"
            f"{'s' if changed == 1 else ''} from the declared one. Empty: the hypothesis doesn't rest "
            "on that data set."
        ),
        trials=trials,
        script="ablate/report/figures/leave_out.py",
    )


def _setting(setting: str, without: pd.DataFrame) -> str:
    if len(without) and setting in set(without["setting"]):
        return f"without {words.data(setting)}"
    return setting
