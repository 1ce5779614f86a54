"""`plan`: what a study would run, what its fraction can tell, how sizes match and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate import registry
from ablate.config import timesteps
from ablate.data import catalogue
from ablate.errors import UserError
from ablate.launch import base
from ablate.launch.pace import shape_key
from ablate.launch.run import cache_folder
from ablate.models.match import Matched, match
from ablate.study import expand
from ablate.study.aliasing import aliasing
from ablate.study.contrast import Cells
from ablate.study.cost import fit_seconds, measure_seconds, spell
from ablate.study.expand import Cell
from ablate.study.hypotheses import coverage
from ablate.study.schema import Study
from ablate.track import kept
from ablate.track.folder import folder_of

TOKENS = (512, 4096, 16_384)
ALONE = "One seed shows no spread, so nothing can be decided from it; most hypotheses need two."


def describe(study: Study, results: Path, workers: int) -> str:
    """The plan as text; nothing is generated for it. Files that can't be had yet are said, not an error.

    Raises UserError for a model that can't be made.
    """
    cells = expand.cells(study)
    frame = expand.frame(cells, study)
    # One seed stands for all: they differ in nothing that is counted or timed here.
    one_seed = study.model_copy(update={"seeds": 1})
    trials = expand.trials(one_seed, {cell.data: "" for cell in cells})
    fits = {one.fit.id: one.fit for one in trials}
    measured = {
        row: measure_seconds(one.config, name, one.config["measure"][name])
        for one in trials
        for name, row in one.rows.items()
    }
    training = study.seeds * sum(fit_seconds(fit.config) for fit in fits.values())
    total = (training + study.seeds * sum(measured.values())) / max(workers, 1)
    lines = [
        f"{study.study}, profile {study.profile}",
        f"Question: {study.question}",
        "",
        f"{len(cells)} cells x {study.seeds} seeds: {study.seeds * len(fits)} fits to train, "
        f"{study.seeds * len(measured)} measurements, {study.seeds * len(trials)} trials; roughly "
        f"{spell(total)} ({spell(training)} of training on one core) on {workers} cores "
        f"of the speed this was written on (`run` measures yours).",
        *([ALONE] if study.seeds == 1 else []),
        "",
        "Designs:",
    ]
    for name, design in study.designs.items():
        count = sum(name in cell.designs for cell in cells)
        lines.append(f"  {name}: {count} cells. {design.why}".rstrip())
    lines += ["", *study.remarks] if study.remarks else []
    lines += ["", "What the fraction can tell:"]
    lines += [f"  {words}" for words in aliasing(frame, study.levels).words]
    lines += ["", *_sizes(cells, cache_folder(results)), "", *tokens(cells), *sights(cells)]
    lines += ["", "Hypotheses:"]
    known = Cells.of(frame)
    for hypothesis in study.hypotheses:
        mark = "*" if hypothesis.primary else " "
        words = coverage(hypothesis, study.levels, known).words
        lines.append(f"{mark} {hypothesis.id}: {hypothesis.says} [{hypothesis.test}; {words}]")
    return "\n".join(lines)


def foretold(
    study: Study, results: Path, launcher: str, options: Mapping[str, Any], device: str = "cpu"
) -> list[str]:
    """What the study costs on another machine than this: jobs, hours, and a fit; nothing for a launcher of this one.

    By the speeds measured where it was run before, else by those that this was written on. Raises UserError as
    `base.made`.
    """
    folder = folder_of(results, study)
    cluster = base.elsewhere(base.made(launcher, options, base.Place(study.study, folder.runs)))
    if cluster is None:
        return []
    known, costs, fits = kept.paces(folder), [], 0
    for cohort in expand.cohorts(expand.trials(study, dict.fromkeys(study.data, ""))):
        pace = known.get(shape_key(cohort, device))
        cost = 1.0 + len(cohort.seeds) * fit_seconds(cohort.config, pace)
        rows = {
            row: measure_seconds(one.config, name, one.config["measure"][name])
            for one in cohort.trials
            for name, row in one.rows.items()
        }
        costs.append(cost + sum(rows.values()))
        fits += len(cohort.seeds)
    return ["", cluster.foretell(costs, fits)]


def _sizes(cells: Sequence[Cell], cache: Path) -> list[str]:
    """Matched widths and parameter counts by mixer and context, over whatever else varies."""
    found: dict[tuple[str, int], set[Matched]] = {}
    there: set[str] = set()
    missing: dict[str, str] = {}
    for cell in cells:
        if cell.data in missing:
            continue
        reading = cell.config["reading"]
        try:
            sizes = expand.dimensions(cell.data, reading)
            if cell.data not in there and not catalogue.spec(cell.data, reading).cached:
                catalogue.load(cell.data, cache, reading)
            there.add(cell.data)
        except UserError as error:
            missing[cell.data] = str(error)
            continue
        system = registry.get("system", registry.get("algorithm", cell.config["algorithm"]).system)
        spec = system.shape(cell.config, catalogue.spec(cell.data, reading), *sizes)
        found.setdefault((cell.config["mixer"], timesteps(cell.config)), set()).add(
            match(spec, cell.config["model"])
        )
    lines = ["Matched sizes (mixer, context: widths, parameters, largest mismatch):"]
    for (mixer, context), matched in sorted(found.items()):
        widths = sorted({each.width for each in matched})
        counts = sorted({each.parameters for each in matched})
        worst = max((each.mismatch for each in matched), key=abs)
        lines.append(
            f"  {mixer:<10} K={context:<4} {_span(widths):>9}  {_span(counts):>15}  {worst:+.1%}"
        )
    lines += [f"Not there yet: {reason}" for reason in missing.values()]
    return lines


def tokens(cells: Sequence[Cell]) -> list[str]:
    """How many tokens a timestep takes in each environment, and how many timesteps given numbers of tokens hold.

    N numbers of an observation, M of an action, a reward and a value make a timestep of the joint model: one
    token each, a token for every four, one for each of state, action, reward and value, or one in all.
    """
    sizes: dict[tuple[int, int], list[str]] = {}
    for name, reading in {cell.data: cell.config["reading"] for cell in cells}.items():
        sizes.setdefault(expand.dimensions(name, reading), []).append(name)
    head = " ".join(f"{f'in {count:,}':>10}" for count in TOKENS)
    lines = [
        "Tokens a timestep, and the timesteps that a context in tokens holds:",
        f"  {'layout':<14} {'tokens':>6} {head}",
    ]
    for (observation, action), names in sizes.items():
        lines.append(f"  N={observation}, M={action}: {', '.join(names)}")
        every = observation + action + 2
        layouts = {"dimension": every, "chunk-4": math.ceil(every / 4), "modality": 4, "step": 1}
        for layout, each in layouts.items():
            held = " ".join(f"{count // each:>10,}" for count in TOKENS)
            lines.append(f"  {layout:<14} {each:>6} {held}")
    return lines


def sights(cells: Sequence[Cell]) -> list[str]:
    """Where a search is declared: how many executed timesteps each imagined one sees, by data set and options."""
    found: dict[str, str] = {}
    for cell in cells:
        if "plan" not in cell.config["measure"]:
            continue
        system = registry.get("system", registry.get("algorithm", cell.config["algorithm"]).system)
        named = cell.data, cell.config["reading"]
        spec = system.shape(cell.config, catalogue.spec(*named), *expand.dimensions(*named))
        options, seen = registry.get("measurement", "plan").sees(cell.config, spec)
        what = f"{cell.data}, {options.mode}, context {options.executed}, horizon {options.horizon}"
        found[what] = " ".join(str(int(count)) for count in seen)
    if not found:
        return []
    lines = ["", "Executed timesteps that each imagined one sees, the present observation apart:"]
    return lines + [f"  {what}: {seen}" for what, seen in found.items()]


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"
