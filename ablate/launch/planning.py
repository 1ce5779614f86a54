"""`plan`: what a study would run, what its fraction can tell, how sizes match and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ablate import trial
from ablate.errors import UserError
from ablate.launch.run import cache_folder
from ablate.study import expand
from ablate.study.aliasing import aliasing
from ablate.study.cost import spell, trial_seconds, wall_seconds
from ablate.study.expand import Cell
from ablate.study.hypotheses import coverage
from ablate.study.schema import Study


def describe(study: Study, results: Path, workers: int) -> str:
    """The plan as text. Data sets that can't be had yet are said, not an error."""
    cells = expand.cells(study)
    frame = expand.frame(cells, study)
    jobs = [study.seeds * trial_seconds(cell.config) for cell in cells]
    lines = [
        f"{study.study}, profile {study.profile}",
        f"Question: {study.question}",
        "",
        f"{len(cells)} cells x {study.seeds} seeds = {len(cells) * study.seeds} trials; roughly "
        f"{spell(wall_seconds(jobs, workers))} on {workers} cores of the speed this was written on "
        "(`run` measures yours).",
        "",
        "Designs:",
    ]
    for name, design in study.designs.items():
        count = sum(name in cell.designs for cell in cells)
        lines.append(f"  {name}: {count} cells. {design.why}".rstrip())
    lines += ["", "What the fraction can tell:"]
    lines += [f"  {words}" for words in aliasing(frame, study.levels).words]
    lines += ["", *_sizes(cells, cache_folder(results))]
    lines += ["", "Hypotheses:"]
    for hypothesis in study.hypotheses:
        mark = "*" if hypothesis.primary else " "
        words = coverage(hypothesis, study.levels, frame).words
        lines.append(f"{mark} {hypothesis.id}: {hypothesis.says} [{hypothesis.test}; {words}]")
    return "\n".join(lines)


def _sizes(cells: Sequence[Cell], cache: Path) -> list[str]:
    """Matched widths and parameter counts by mixer and context, over whatever else varies."""
    found: dict[tuple[str, int], list[trial.Cell]] = {}
    missing: dict[str, str] = {}
    for cell in cells:
        if cell.data in missing:
            continue
        try:
            bench = trial.prepare(cell.config, cache)
        except UserError as error:
            missing[cell.data] = str(error)
            continue
        found.setdefault((cell.config["mixer"], cell.config["context"]), []).append(bench)
    lines = ["Matched sizes (mixer, context: widths, parameters, largest mismatch):"]
    for (mixer, context), benches in sorted(found.items()):
        widths = sorted({bench.matched.width for bench in benches})
        counts = sorted({bench.matched.parameters for bench in benches})
        worst = max((bench.matched.mismatch for bench in benches), key=abs)
        lines.append(
            f"  {mixer:<10} K={context:<4} {_span(widths):>9}  {_span(counts):>15}  {worst:+.1%}"
        )
    lines += [f"Not there yet: {reason}" for reason in missing.values()]
    return lines


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"
