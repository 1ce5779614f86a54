"""A notebook: what a study found, one figure of its rows, and one question more.

It reads the results that lie in this repository and trains nothing. With the extra `notebook` installed,

    marimo edit examples/ask_more.py

opens it in a browser, and `python examples/ask_more.py` runs it as a script.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App()


@app.cell
def _():
    import marimo as mo

    import ablate
    from ablate import words
    from ablate.report import style, summaries
    from ablate.report.figures import base

    return ablate, base, mo, style, summaries, words


@app.cell
def _(ablate, mo):
    found = ablate.results("loss_told", folder=mo.notebook_dir().parent / "results")
    mo.md(f"# What a study found\n\n**{found.study.question}**\n\n{found.answer}")
    return (found,)


@app.cell
def _(found):
    found.verdicts[["hypothesis", "verdict", "estimate", "low", "high", "unit", "status"]].round(3)
    return


@app.cell
def _(mo):
    mo.md("""
    ## One figure

    The trials are a table, so that any program can draw them; here in the style of the report. Another response
    may be chosen, and all that follows changes with it.
    """)
    return


@app.cell
def _(mo):
    metric = mo.ui.dropdown(
        ["rollout.regret", "rollout.score_median", "rollout.lost", "held-out.action_error"],
        value="rollout.regret",
    )
    mo.md(f"Response: {metric}")
    return (metric,)


@app.cell
def _(base, found, metric, mo, style, summaries, words):
    def draw(metric):
        """The response against the updates of training: a line a loss, a panel a condition."""
        conditions, losses = found.study.factors["condition"], found.study.factors["train.loss"]
        looks = style.looks("train.loss", losses)
        with style.paper_style():
            figure, panels, _ = base.grid(len(conditions), 2, 1.8)
            panels[1].sharey(panels[0])
            for panel, condition in zip(panels, conditions, strict=True):
                rows = found.trials[found.trials["condition"] == condition]
                cells = summaries.by_level(rows, ["budget", "train.loss"], metric)
                base.lines(panel, cells, looks, {budget: budget for budget, _ in cells})
                base.title(panel, words.level("condition", condition))
                panel.set_xlabel("updates of training")
            panels[0].set_ylabel(words.response(metric).axis())
            base.legend(figure, "train.loss", looks)
            return style.files(figure)["png"]

    picture = draw(metric.value)
    mo.vstack([mo.image(picture), "Means over seeds with 95 % intervals."])
    return (picture,)


@app.cell
def _(mo):
    mo.md("""
    ## One question more

    The study asks what the loss changes where the return is told, and where it is not. It doesn't ask whether these
    two differ, which is an interaction. A hypothesis that is written now, when the trials are there, is reported as
    exploratory.
    """)
    return


@app.cell
def _(ablate, found, metric, mo):
    asked = ablate.verdicts(
        found,
        [
            {
                "id": "more-where-told",
                "says": "What the loss changes is another where the return is told.",
                "contrast": (
                    "(train.loss[all] - train.loss[last])"
                    " : (condition[return-to-go+time] - condition[time])"
                ),
                "metric": metric.value,
                "test": "difference",
            },
        ],
    )
    sentence = asked.loc[0, "sentence"]
    if mo.app_meta().mode == "script":
        print(sentence)
    mo.md(sentence)
    return (asked,)


if __name__ == "__main__":
    app.run()
