"""`run --until-decided`: seeds are added in declared looks until the primary hypotheses are decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ablate.analyse import decisions, sequential
from ablate.analyse.decisions import Look, Record
from ablate.analyse.tidy import apart_from_presets
from ablate.analyse.verdict import Verdict, family_of, judge
from ablate.errors import UserError
from ablate.launch.run import Options, Summary, run
from ablate.study import expand, identity
from ablate.study.hypotheses import claims, coverage
from ablate.study.registration import declared, standing
from ablate.study.schema import Study
from ablate.track.files import write_atomic
from ablate.track.folder import StudyFolder, folder_of
from ablate.track.table import read_table


def until_decided(
    study: Study, options: Options, console: Console, asked: Mapping[str, Any] | None = None
) -> Summary:
    """Run the study's looks, one after another, until all primary hypotheses are decided.

    Prints a line a look, and keeps what was decided in looks.json, from which the same command goes
    on. Returns the summary of the last look's trials. Raises UserError when the study declares no
    looks or no primary hypothesis that its profile can test, when `--only` would leave cells out,
    or when what was declared was changed after the first look.
    """
    folder = folder_of(options.results, study)
    fresh = start(study, options)
    record = decisions.read(folder.root) or fresh
    if record.declared != fresh.declared:
        raise UserError(
            f"{folder.root / decisions.NAME}: the looks, the error rate or the hypotheses were changed "
            f"after look {len(record.taken)} of {len(record.plan.seeds)}; allowed: what was declared "
            "before the first. Put it back, or give the study another name."
        )
    summary = None
    for index, seeds in enumerate(record.plan.seeds):
        if index < len(record.taken) and not (record.ended and index == len(record.taken) - 1):
            continue
        at = study.model_copy(update={"seeds": seeds})
        named = None if asked is None else {**asked, "seeds": seeds}
        summary = run(at, options, console, named)
        if index < len(record.taken):
            break  # ended before; this only made sure that the runs are there
        if summary.missing:
            console.print(
                f"look {index + 1}: {summary.missing} trials have no result yet, so nothing is "
                "judged; the same command goes on.",
                highlight=False,
            )
            return summary
        verdicts = judged(at, folder, record.plan.levels[index])
        look = Look(seeds, record.plan.levels[index], summary.total, summary.failed)
        record = decisions.after(record, look, verdicts)
        write_atomic(folder.root / decisions.NAME, record.text())
        console.print(_told(record, verdicts), highlight=False)
        if record.ended:
            break
    console.print(record.line, highlight=False)
    assert summary is not None  # there is a first look, and it is run or the last one is
    return summary


def start(study: Study, options: Options) -> Record:
    """The record before any look; raises UserError for a study that can't be run in looks."""
    declared = study.sequential
    if declared is None:
        raise UserError(
            f"--until-decided: the study '{study.study}' declares no looks; add a section such as "
            "`sequential: {looks: [4, 6, 8, 10]}` before the first run."
        )
    if options.only:
        raise UserError(
            "--until-decided: found --only, which leaves cells out that hypotheses need; allowed: "
            "one of them."
        )
    frame = expand.frame(expand.cells(study), study)
    primary = [h for h in study.hypotheses if h.primary]
    tested = [h for h in primary if coverage(h, study.levels, frame).tested]
    if not tested:
        what = (
            "declares no primary hypothesis"
            if not primary
            else (f"has no cells for its primary hypotheses at profile '{study.profile}'")
        )
        raise UserError(
            f"--until-decided: the study '{study.study}' {what}, so nothing could be decided; "
            "allowed: at least one with `primary: true`."
        )
    families = [family_of(h) for h in study.hypotheses]
    most = max(
        families.count(family_of(h)) * len(claims(h, study.levels)) for h in study.hypotheses
    )
    # Two-sided tests halve a level; a claim may fail in two ways, each of which counts.
    plan = sequential.plan(declared, study.alpha, 2 * most)
    return Record(
        declared=identity.hypotheses_hash(study),
        plan=plan,
        taken=(),
        decided={},
        open=tuple(h.id for h in tested),
    )


def judged(study: Study, folder: StudyFolder, level: float) -> list[Verdict]:
    """The verdicts on the trials of the study's seeds, and no others, at a look's level."""
    paper = folder.read()
    wanted = {trial.id for trial in expand.trials(study, paper["data"])}
    table = read_table(folder.table)
    rows = table[table["trial"].isin(wanted)].reset_index(drop=True)
    rows = apart_from_presets(rows, study.factors)
    found = standing(paper, declared(study))
    return judge(
        rows,
        study.hypotheses,
        study.levels,
        alpha=level,
        margin=study.margin,
        registered={h.id: found.before(h.id) for h in study.hypotheses},
    )


def _told(record: Record, verdicts: list[Verdict]) -> str:
    """One line on the look just taken."""
    look, n = record.taken[-1], len(record.taken)
    found = {v.hypothesis: v.verdict for v in verdicts}
    now = [f"{name} {d.verdict}" for name, d in record.decided.items() if d.look == n]
    still = [f"{name} {found[name]}" for name in record.open]
    return (
        f"look {n} of {len(record.plan.seeds)}: {look.seeds} seeds, level {look.level:.2g}; "
        f"decided now: {', '.join(now) or 'nothing'}; open: {', '.join(still) or 'nothing'}."
    )
