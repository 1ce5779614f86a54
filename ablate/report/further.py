r"""Attribution, variance and robustness in words, tables and macros."""

from __future__ import annotations

from ablate.analyse.attribution import Attribution
from ablate.analyse.further import Further
from ablate.analyse.intervals import Estimate, interval
from ablate.analyse.multiverse import Multiverse
from ablate.analyse.variance import Components
from ablate.report import text
from ablate.report.context import Grid
from ablate.report.figures.variance import omega_rows

SCRIPT = "ablate/report/further.py"


def paragraphs(found: Further) -> list[tuple[str, str]]:
    """(heading, paragraph) of each part, or why there is none."""
    out = []
    if found.attribution is not None:
        out.append(("What brings the gain", attribution_words(found.attribution)))
    elif "attribution" in found.reasons:
        out.append(("What brings the gain", f"Not attributed: {found.reasons['attribution']}"))
    if found.variance is not None:
        out.append(("Where the scores vary", variance_words(found.variance)))
    if found.multiverse is not None and found.multiverse.universes > 1:
        out.append(("The same runs, scored otherwise", multiverse_words(found.multiverse)))
    if len(found.without) or len(found.failed):
        out.append(("With less, or with failures", leave_out_words(found)))
    return out


def attribution_words(found: Attribution) -> str:
    """The attribution as a paragraph that can be quoted."""
    digits = text.digits_for(found.metric, found.total.value)
    unit = text.unit(found.metric)
    parts = []
    for share in found.shares:
        said = f"{share.change.name} ({share.change.words}) {_shown(share.fixed, found, digits)}"
        if share.percent is not None:
            p = share.percent
            said += f" or {text.number(p.value, 0)} % ({text.interval(p.low, p.high, 0)} %)"
        parts.append(said)
    over = text.count(len(found.data_sets), "data set")
    out = (
        f"Of the total gain in {text.metric(found.metric)} of {_shown(found.total, found, digits)} "
        f"{unit}, averaged over {over}, the Shapley shares are: {text.listing(parts)} "
        f"(in {unit or 'the unit of the metric'}, with {100 * found.confidence:.3g} % intervals for "
        f"new seeds; {text.count(found.n_trials, 'trial')})."
    )
    if found.refusal:
        out += f" No percentages are given: {found.refusal}"
    population = [share.population for share in found.shares]
    if found.total_population is not None and all(one is not None for one in population):
        told = text.listing(
            f"{share.change.name} {_shown(share.population, found, digits)}"
            for share in found.shares
            if share.population is not None
        )
        out += f" For new data sets: {told}."
    return out


def variance_words(found: Components) -> str:
    """The components as a sentence: the largest first."""
    grouped = found.grouped()
    total = sum(max(value, 0.0) for value in grouped.values())
    if total <= 0.0:
        return "No variance was found."
    ordered = sorted(grouped.items(), key=lambda pair: -pair[1])
    told = (
        f"{_source(name)} {text.number(value**0.5, 1)} ({100 * value / total:.0f} % of the variance)"
        for name, value in ordered
        if value > 0.005 * total
    )
    return (
        f"Standard deviations by source, by {found.method}: {text.listing(told)}; "
        f"from {found.n_cells:,} of {found.n_possible:,} cells."
    )


def _source(name: str) -> str:
    return "data set" if name == "data" else name.replace("× data", "× data set")


def multiverse_words(found: Multiverse) -> str:
    """In what share of universes each verdict stands, and what could not be varied."""
    told = (
        f"{row['hypothesis']} ({row['verdict']}) in {100 * row['stands']:.0f} %"
        for row in found.shares.to_dict("records")
    )
    axes = (f"{name} ({', '.join(options)})" for name, options in found.axes.items())
    out = (
        f"Judged again in {found.universes} universes of {text.listing(axes)}, the verdicts stand: "
        f"{text.listing(told)}."
    )
    if found.unserved:
        why = (f"{what} ({reason})" for what, reason in found.unserved.items())
        out += f" Not varied: {text.listing(why)}."
    return out


def leave_out_words(found: Further) -> str:
    """Which verdicts change without a data set, and with failed trials as the worst."""
    out = []
    if len(found.without):
        changed = found.without[found.without["changed"]]
        several = found.without["hypothesis"].nunique()
        told = (
            f"{row['hypothesis']} is {row['verdict']} without {text.data(str(row['setting']))}"
            for row in changed.to_dict("records")
        )
        out.append(
            f"{text.count(several, 'hypothesis', 'hypotheses')} rest on several data sets; without "
            + (f"one of them {text.listing(told)}." if len(changed) else "any one none changes.")
        )
    if len(found.failed):
        changed = found.failed[found.failed["changed"]]
        told = (f"{row['hypothesis']} ({row['verdict']})" for row in changed.to_dict("records"))
        out.append(
            "With failed trials counted as the worst value of their data set "
            + (f"these change: {text.listing(told)}." if len(changed) else "no verdict changes.")
        )
    return " ".join(out)


def grids(found: Further) -> list[Grid]:
    """Tables in plain text: attribution, omega squared, and the shares of the multiverse."""
    made = [_attribution(found.attribution), _omega(found), _shares(found)]
    return [grid for grid in made if grid is not None]


def _attribution(found: Attribution | None) -> Grid | None:
    if found is None:
        return None
    digits = text.digits_for(found.metric, found.total.value)
    rows = []
    for share in found.shares:
        percent = share.percent
        rows.append(
            (
                share.change.name,
                share.change.words,
                _shown(share.fixed, found, digits),
                "–"
                if percent is None
                else f"{text.number(percent.value, 0)} ({text.interval(percent.low, percent.high, 0)})",
                "–" if share.population is None else _shown(share.population, found, digits),
                text.number(share.first.value, digits, sign=True),
                text.number(share.last.value, digits, sign=True),
            )
        )
    population = found.total_population
    first = sum(share.first.value for share in found.shares)
    last = sum(share.last.value for share in found.shares)
    rows.append(
        (
            "total",
            "",
            _shown(found.total, found, digits),
            "–" if found.refusal else "100",
            "–" if population is None else _shown(population, found, digits),
            text.number(first, digits, sign=True),
            text.number(last, digits, sign=True),
        )
    )
    return Grid(
        "attribution",
        "What brings the gain",
        f"Shapley shares of the gain in {text.axis(found.metric)}, averaged over "
        f"{text.count(len(found.data_sets), 'data set')}, with {100 * found.confidence:.3g} % "
        "intervals for new seeds and for new data sets; percentages with Fieller intervals. Alone: "
        "the factor changed from the start; last: into the end. The latter two don't sum to the "
        "total; in its row stand their sums."
        + (f" No percentages: {found.refusal}" if found.refusal else ""),
        ("", "change", "share", "%", "share, new data sets", "alone", "last"),
        tuple(rows),
        found.trials,
    )


def _omega(found: Further) -> Grid | None:
    if found.anova is None or found.variance is None:
        return None
    return Grid(
        "omega_squared",
        "Omega squared",
        "Share of variance by effect, omega squared with sum coding (type III sums of squares), for these levels; "
        "below zero: less than chance.",
        ("effect", "df", "sum of squares", "omega squared", "partial"),
        tuple(omega_rows(found.anova)),
        found.variance.trials,
    )


def _shares(found: Further) -> Grid | None:
    other = found.multiverse
    if other is None or other.universes < 2:
        return None
    rows = tuple(
        (
            str(row["hypothesis"]),
            str(row["verdict"]),
            *(
                f"{100 * row[name]:.0f}"
                for name in ("stands", "otherwise", "undecided", "same_sign")
            ),
        )
        for row in other.shares.to_dict("records")
    )
    trials = found.variance.trials if found.variance is not None else ()
    return Grid(
        "multiverse",
        "The same runs, scored otherwise",
        f"Percent of {other.universes} universes in which each verdict stands, is decided otherwise or "
        "is undecided, and in which the estimate keeps its sign.",
        ("", "verdict", "stands", "otherwise", "undecided", "same sign"),
        rows,
        trials,
    )


def macros(found: Further) -> dict[str, str]:
    r"""Name -> LaTeX text: `\AttributionTotal`, `\AttributionMemoryShare`, `\StandsMemory`, ..."""
    out: dict[str, str] = {}
    one = found.attribution
    if one is not None:
        digits = text.digits_for(one.metric, one.total.value)
        out["AttributionTotal"] = text.math_number(text.number(one.total.value, digits, sign=True))
        low, high = interval(one.total, one.confidence)
        out["AttributionTotalInterval"] = text.math_number(text.interval(low, high, digits))
        for share in one.shares:
            name = text.macro_name("attribution", share.change.name)
            low, high = interval(share.fixed, one.confidence)
            shown = text.number(share.fixed.value, digits, sign=True)
            out[f"{name}Share"] = text.math_number(shown)
            out[f"{name}Interval"] = text.math_number(text.interval(low, high, digits))
            percent = "none" if share.percent is None else text.number(share.percent.value, 0)
            out[f"{name}Percent"] = text.math_number(percent)
    if found.multiverse is not None:
        out["UniverseCount"] = str(found.multiverse.universes)
        for row in found.multiverse.shares.to_dict("records"):
            name = text.macro_name("stands", str(row["hypothesis"]))
            out[name] = f"{100 * row['stands']:.0f}\\,\\%"
    return out


def _shown(estimate: Estimate | None, found: Attribution, digits: int) -> str:
    """`+24.1 (23.2 to 25.0)`."""
    if estimate is None:
        return "–"
    low, high = interval(estimate, found.confidence)
    shown = text.number(estimate.value, digits, sign=True)
    return f"{shown} ({text.interval(low, high, digits)})"
