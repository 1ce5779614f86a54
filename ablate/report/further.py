r"""Attribution, variance and robustness in words, tables and macros."""

from __future__ import annotations

from ablate import words
from ablate.analyse.attribution import Attribution
from ablate.analyse.beyond import Beyond
from ablate.analyse.intervals import Estimate, interval
from ablate.analyse.multiverse import Control, Multiverse
from ablate.analyse.variance import Components
from ablate.analyse.verdict import NOT_CONVERGED
from ablate.report import tex
from ablate.report.grid import Grid

AXES = {  # axis of the multiverse -> in words
    "checkpoint": "checkpoint",
    "target": "return asked for",
    "episodes": "how episodes become a number",
    "list": "list of episodes",
    "anchors": "anchors of the score",
    "seeds": "seeds",
    "summary": "how seeds become a number",
}
_AXIS_OF = {"number of episodes": "episodes", "regret and score": "episodes"}


def paragraphs(found: Beyond, metric: str) -> list[tuple[str, str]]:
    """(heading, paragraph) of each part, or why there is none. metric: what the variance is of."""
    out = []
    if found.attribution is not None:
        out.append(("What brings the gain", attribution_words(found.attribution)))
    elif "attribution" in found.reasons:
        out.append(("What brings the gain", f"Not attributed: {found.reasons['attribution']}"))
    if found.variance is not None:
        out.append(("Where the scores vary", variance_words(found.variance, metric)))
    if found.multiverse is not None and found.multiverse.universes > 1:
        out.append(("The same runs, scored otherwise", multiverse_words(found.multiverse)))
    if len(found.without) or len(found.failed):
        out.append(("With less, or with failures", leave_out_words(found)))
    return out


def attribution_words(found: Attribution) -> str:
    """The attribution as a paragraph that can be quoted."""
    response = words.response(found.metric)
    unit = response.unit
    parts = []
    for share in found.shares:
        said = f"{share.change.name} ({share.change.words}) {_shown(share.fixed, found)}"
        if share.percent is not None:
            p = share.percent
            said += f" or {words.number(p.value, 0)} % ({words.interval(p.low, p.high, 0)} %)"
        parts.append(said)
    over = words.count(len(found.data_sets), "data set")
    out = (
        f"Of the total gain in {response.said} of {_shown(found.total, found)} "
        f"{unit}, averaged over {over}, the Shapley shares are: {words.listing(parts)} "
        f"(in {unit or 'the unit of the metric'}, with {words.percent(found.confidence)} intervals for "
        f"new seeds; {words.count(found.n_trials, 'trial')})."
    )
    if found.refusal:
        out += f" No percentages are given: {found.refusal}"
    population = [share.population for share in found.shares]
    if found.total_population is not None and all(one is not None for one in population):
        told = words.listing(
            f"{share.change.name} {_shown(share.population, found)}"
            for share in found.shares
            if share.population is not None
        )
        out += f" For new data sets: {told}."
    return out


def variance_words(found: Components, metric: str) -> str:
    """The components of `metric` as a sentence: the largest first."""
    response = words.response(metric)
    grouped = found.grouped()
    total = sum(max(value, 0.0) for value in grouped.values())
    if total <= 0.0:
        return "No variance was found."
    ordered = sorted(grouped.items(), key=lambda pair: -pair[1])
    told = (
        f"{term(name)} {response.amount(value**0.5)} ({100 * value / total:.0f} % of the variance)"
        for name, value in ordered
        if value > 0.005 * total
    )
    return (
        f"Standard deviations by source, by {found.method}: {words.listing(told)}; "
        f"from {found.n_cells:,} of {found.n_possible:,} cells."
    )


def term(name: str) -> str:
    """A source of variance as shown: `context × data set`."""
    return " × ".join(words.factor(one).label for one in name.split(" × "))


def standing(found: Beyond) -> dict[str, float]:
    """The share of universes in which a decided verdict is the same, by hypothesis."""
    other = found.multiverse
    if other is None or other.universes < 2:
        return {}
    rows = other.shares[other.shares["verdict"] != NOT_CONVERGED]
    return dict(zip(rows["hypothesis"].astype(str), rows["stands"].astype(float), strict=True))


def multiverse_words(found: Multiverse) -> str:
    """In what share of universes each verdict stands, and how the control did."""
    told = (
        f"{row['hypothesis']} ({row['verdict']}) in {100 * row['stands']:.0f} % of {row['universes']}"
        for row in found.shares.to_dict("records")
    )
    varied = [AXES[axis] for axis, options in found.axes.items() if len(options) > 1]
    return (
        f"Judged again in {found.universes} universes of {words.listing(varied)}, the verdicts stand: "
        f"{words.listing(told)}. {control_words(found.control)}"
    )


def control_words(found: Control) -> str:
    """What the planted control came to, in a sentence."""
    if found.share is None:
        return f"No control by halves of an arm: {found.reason}."
    return (
        f"Two halves of the seeds of one arm, which are the same, are said to differ in {100 * found.share:.1f} % of "
        f"{found.universes} universes, {found.arms} arms and up to {found.splits} splits each, at a level of "
        f"{100 * found.alpha:g} %."
    )


def leave_out_words(found: Beyond) -> str:
    """Which verdicts change without a data set, and with failed trials as the worst."""
    out = []
    if len(found.without):
        changed = found.without[found.without["changed"]]
        several = found.without["hypothesis"].nunique()
        told = (
            f"{row['hypothesis']} is {row['verdict']} without {words.data(str(row['setting']))}"
            for row in changed.to_dict("records")
        )
        out.append(
            f"{words.count(several, 'hypothesis', 'hypotheses')} rest on several data sets; without "
            + (f"one of them {words.listing(told)}." if len(changed) else "any one none changes.")
        )
    if len(found.failed):
        changed = found.failed[found.failed["changed"]]
        told = (f"{row['hypothesis']} ({row['verdict']})" for row in changed.to_dict("records"))
        out.append(
            "With failed trials counted as the worst value of their data set "
            + (f"these change: {words.listing(told)}." if len(changed) else "no verdict changes.")
        )
    return " ".join(out)


def grids(found: Beyond) -> list[Grid]:
    """Tables in plain text: attribution, omega squared, the shares of the multiverse and its axes."""
    made = [_attribution(found.attribution), _omega(found), _shares(found), _axes(found)]
    return [grid for grid in made if grid is not None]


def _attribution(found: Attribution | None) -> Grid | None:
    if found is None:
        return None
    response = words.response(found.metric)
    rows = []
    for share in found.shares:
        percent = share.percent
        rows.append(
            (
                share.change.name,
                share.change.words,
                _shown(share.fixed, found),
                "–"
                if percent is None
                else f"{words.number(percent.value, 0)} ({words.interval(percent.low, percent.high, 0)})",
                "–" if share.population is None else _shown(share.population, found),
                response.amount(share.first.value, sign=True),
                response.amount(share.last.value, sign=True),
            )
        )
    population = found.total_population
    first = sum(share.first.value for share in found.shares)
    last = sum(share.last.value for share in found.shares)
    rows.append(
        (
            "total",
            "",
            _shown(found.total, found),
            "–" if found.refusal else "100",
            "–" if population is None else _shown(population, found),
            response.amount(first, sign=True),
            response.amount(last, sign=True),
        )
    )
    return Grid(
        "attribution",
        "What brings the gain",
        f"Shapley shares of the gain in {response.axis()}, averaged over "
        f"{words.count(len(found.data_sets), 'data set')}, with {words.percent(found.confidence)} "
        "intervals for new seeds and for new data sets; percentages with Fieller intervals. Alone: "
        "the factor changed from the start; last: into the end. The latter two don't sum to the "
        "total; in its row stand their sums."
        + (f" No percentages: {found.refusal}" if found.refusal else ""),
        ("", "change", "share", "%", "share, new data sets", "alone", "last"),
        tuple(rows),
        found.trials,
        small=True,
    )


def _omega(found: Beyond) -> Grid | None:
    if found.anova is None or found.variance is None:
        return None
    return Grid(
        "omega_squared",
        "Omega squared",
        "Share of variance by effect, omega squared with sum coding (type III sums of squares), for these levels; "
        "below zero: less than chance.",
        ("effect", "df", "sum of squares", "omega squared", "partial"),
        tuple(
            (
                term(" × ".join(one.term)),
                str(one.df),
                words.number(one.ss, 1),
                words.number(one.omega2, 3),
                words.number(one.partial, 3),
            )
            for one in sorted(found.anova.effects, key=lambda one: (-one.omega2, one.term))
        ),
        found.variance.trials,
        appended=True,
    )


def _shares(found: Beyond) -> Grid | None:
    other = found.multiverse
    if other is None or other.universes < 2:
        return None
    rows = tuple(
        (
            str(row["hypothesis"]),
            str(row["verdict"]),
            str(row["universes"]),
            *(
                f"{100 * row[name]:.0f}"
                for name in ("stands", "otherwise", "undecided", "same_sign")
            ),
        )
        for row in other.shares.to_dict("records")
    )
    control = other.control
    if control.share is not None:
        held, claimed = f"{100 - 100 * control.share:.1f}", f"{100 * control.share:.1f}"
        size = str(control.universes)
        rows += (("control: two halves of an arm", "no difference", size, held, claimed, "–", "–"),)
    return Grid(
        "multiverse",
        "The same runs, scored otherwise",
        f"Percent of the universes of each hypothesis, of {other.universes} in all, in which its verdict stands, is "
        f"decided otherwise or is undecided, and in which the estimate keeps its sign. {control_words(control)}",
        ("", "verdict", "universes", "stands", "otherwise", "undecided", "same sign"),
        rows,
        _trials(found),
        appended=True,
    )


def _axes(found: Beyond) -> Grid | None:
    """A line an axis: its options, and what isn't measured, and why."""
    other = found.multiverse
    if other is None:
        return None
    rows = []
    for axis, said in AXES.items():
        options = other.axes[axis]
        why: dict[str, list[str]] = {}
        for what, reason in other.unserved.items():
            kind, _, of = what.partition(" of ")
            if _AXIS_OF.get(kind, kind) == axis:
                name = words.response(of).said if "." in of else of
                why.setdefault(reason, []).append(f"{kind} of {name}" if kind != axis else name)
        missing = "; ".join(
            f"{words.listing(dict.fromkeys(filter(None, of)))}: {reason}".removeprefix(": ")
            for reason, of in why.items()
        )
        rows.append((said, ", ".join(options), f"not measured: {missing}" if missing else ""))
    return Grid(
        "universes",
        "What the universes vary",
        "The axes of the multiverse with their options, the declared one first, and what a hypothesis or its metric "
        "can't have. A universe is one option of each.",
        ("axis", "options", "not varied"),
        tuple(rows),
        _trials(found),
        small=True,
        appended=True,
    )


def _trials(found: Beyond) -> tuple[str, ...]:
    return found.variance.trials if found.variance is not None else ()


def macros(found: Beyond) -> dict[str, str]:
    r"""Name -> LaTeX text: `\AttributionTotal`, `\AttributionMemoryShare`, `\StandsMemory`, ..."""
    out: dict[str, str] = {}
    one = found.attribution
    if one is not None:
        response = words.response(one.metric)
        out["AttributionTotal"] = tex.math_number(response.amount(one.total.value, sign=True))
        low, high = interval(one.total, one.confidence)
        out["AttributionTotalInterval"] = tex.math_number(response.span(low, high))
        for share in one.shares:
            name = tex.macro_name("attribution", share.change.name)
            low, high = interval(share.fixed, one.confidence)
            shown = response.amount(share.fixed.value, sign=True)
            out[f"{name}Share"] = tex.math_number(shown)
            out[f"{name}Interval"] = tex.math_number(response.span(low, high))
            percent = "none" if share.percent is None else words.number(share.percent.value, 0)
            out[f"{name}Percent"] = tex.math_number(percent)
    if found.multiverse is not None:
        out["UniverseCount"] = str(found.multiverse.universes)
        for row in found.multiverse.shares.to_dict("records"):
            name = tex.macro_name("stands", str(row["hypothesis"]))
            out[name] = f"{100 * row['stands']:.0f}\\,\\%"
    return out


def _shown(estimate: Estimate | None, found: Attribution) -> str:
    """`+24.1 (23.2 to 25.0)`."""
    if estimate is None:
        return "–"
    response = words.response(found.metric)
    low, high = interval(estimate, found.confidence)
    return f"{response.amount(estimate.value, sign=True)} ({response.span(low, high)})"
