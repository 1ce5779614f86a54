"""`bench`: the measurements as a table of ratios."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ablate.bench.acting import acting_rows
from ablate.bench.data import data_rows
from ablate.bench.inference import inference
from ablate.bench.memory import memory_rows
from ablate.bench.planner import peer_rows, planner_rows
from ablate.bench.scale import scale_rows
from ablate.bench.update import Row, cohort_throughput, update_rows
from ablate.errors import UserError, unknown

PARTS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "update": (
        "One update of a preset at hopper's sizes: CPU seconds on one thread, beside the time its matrix products"
        " alone would take and, with --peer, a public repository's own update",
        update_rows,
    ),
    "cohort": (
        "Five seeds as one stack against one after another: CPU seconds an update and seed"
        " (ratio above 1: the stack is faster)",
        lambda: cohort_throughput(("attention", "lstm", "gru", "mlp", "conv", "bag")),
    ),
    "data": (
        "Data: CPU seconds on one thread, beside the goal and beside another way (ratio above 1: ours is faster)",
        data_rows,
    ),
    "acting": (
        "Acting: environment steps a second, 64 episodes at once against one after another (one thread; a GPU"
        " too where there is one)",
        acting_rows,
    ),
    "memory": (
        "Memory of one update in long contexts, each in a process of its own (growth 2 where the length doubles"
        " is linear)",
        memory_rows,
    ),
    "planner": (
        "A plan of the Trajectory Transformer's search at hopper's sizes: CPU seconds on one thread, beside the"
        " time its matrix products alone would take, and token positions computed (bound: every new token once,"
        " nothing cropped); with --peer, beside a public repository's own search",
        planner_rows,
    ),
    "scale": (
        "What a study costs beside its computing: its run store, its table and its report, by the number of fits",
        scale_rows,
    ),
    "inference": (
        "False alarms of the statistics at a nominal 5 %, by simulation, beside popular procedures",
        inference,
    ),
}


def show(
    console: Console, part: str = "", runs: Path | None = None, peer: Path | None = None
) -> None:
    """Measure and print one part, or all; raises UserError for an unknown one.

    runs: real runs for the part `inference`, see there. peer: a checkout of a public repository for the parts
    `update` and `planner`.
    """
    if part and part not in PARTS:
        raise unknown("bench", part, PARTS)
    if runs is not None and part != "inference":
        raise UserError("bench --table: it is read by the part inference only.")
    if peer is not None and part not in ("update", "planner"):
        raise UserError("bench --peer: it is measured by the parts update and planner only.")
    of_user: dict[str, Callable[[], list[Row]]] = {
        "inference": lambda: inference(runs),
        "update": lambda: update_rows(peer),
        "planner": lambda: planner_rows() if peer is None else peer_rows(peer),
    }
    for name, (title, measure) in PARTS.items():
        if part in ("", name):
            rows = of_user.get(name, measure)()
            table = Table(title=title, title_justify="left")
            for column in rows[0]:
                table.add_column(column, justify="right", overflow="fold")
            for row in rows:
                table.add_row(*(_text(value) for value in row.values()))
            if not console.is_terminal:  # a file is as wide as it needs to be
                free = console.options.update(max_width=1000)
                console.width = max(console.width, console.measure(table, options=free).maximum)
            console.print(table)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
