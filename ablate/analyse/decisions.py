"""What a study that is run look by look has decided so far: results/<study>/looks.json.

A hypothesis that was decided at a look stays decided, whatever later seeds say: that is what its
error rate was spent on. Everything else is judged at the level of the last look taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablate.analyse.sequential import Plan
from ablate.analyse.verdict import EQUIVALENT, REFUTED, SUPPORTED, Verdict
from ablate.errors import UserError
from ablate.track import seal
from ablate.words import significant

NAME = "looks.json"
FORMAT = 1
DECIDED = (SUPPORTED, EQUIVALENT, REFUTED)
_COST = "the looks are then taken anew, which is no longer what was declared"


@dataclass(frozen=True)
class Decision:
    """A primary hypothesis' verdict, and the look (from 1) and level at which it was reached."""

    verdict: str
    look: int
    level: float


@dataclass(frozen=True)
class Look:
    """One look that was taken: seeds a cell, its level, trials and how many of them failed."""

    seeds: int
    level: float
    trials: int
    failed: int


@dataclass(frozen=True)
class Record:
    """Declared looks, those taken, and what they decided.

    declared: hash of looks, spending, bound, alpha and hypotheses. open: primary hypotheses that
    aren't decided.
    """

    declared: str
    plan: Plan
    taken: tuple[Look, ...]
    decided: Mapping[str, Decision]
    open: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Whether everything is decided, or the last look was taken."""
        return bool(self.taken) and (not self.open or len(self.taken) == len(self.plan.seeds))

    @property
    def level(self) -> float:
        """The level of the last look taken, at which what isn't decided is judged."""
        return self.taken[-1].level if self.taken else self.plan.levels[0]

    @property
    def line(self) -> str:
        """How the study was run, in one sentence for a report."""
        looks, n = len(self.plan.seeds), len(self.taken)
        declared = ", ".join(map(str, self.plan.seeds))
        how = (
            f"Run sequentially, with looks declared at {declared} seeds a cell "
            f"({self.plan.spending} spending of alpha = {self.plan.alpha:g}, "
            f"{'by the union bound' if self.plan.bound == 'union' else 'by the normal law'})"
        )
        if not self.taken:
            return f"{how}; no look was taken yet."
        where = (
            f"look {n} of {looks} ({self.taken[-1].seeds} seeds, level {significant(self.level)})"
        )
        if not self.open:
            return f"{how}; stopped at {where}, when all primary hypotheses were decided."
        left = f"not decided: {', '.join(self.open)}"
        if self.ended:
            return f"{how}; ended at the last, {where}; {left}."
        return f"{how}; {where} was the last one taken; {left}."

    def text(self) -> str:
        """As JSON."""
        content = {
            "format": FORMAT,
            "declared": self.declared,
            "seeds": list(self.plan.seeds),
            "alpha": self.plan.alpha,
            "spending": self.plan.spending,
            "bound": self.plan.bound,
            "spent": list(self.plan.spent),
            "levels": list(self.plan.levels),
            "taken": [vars(look) for look in self.taken],
            "decided": {name: vars(found) for name, found in self.decided.items()},
            "open": list(self.open),
        }
        return json.dumps(seal.sign(content), indent=1) + "\n"


def read(folder: Path) -> Record | None:
    """The record in a study's folder, None before any look. Raises UserError for a damaged one."""
    path = Path(folder) / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, " ".join(str(error).split())) from error
    try:
        if found["format"] != FORMAT:
            raise _damaged(path, f"format {found['format']!r}, not {FORMAT}")
        return _record(seal.opened(path, found))
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"an entry is missing: {error}") from error


def of(record: Record | None, declared: str) -> Record | None:
    """The record, if a look was taken and hypotheses and looks are still as `declared` (their
    hash)."""
    return record if record is not None and record.taken and record.declared == declared else None


def _record(found: Mapping[str, Any]) -> Record:
    plan = Plan(
        seeds=tuple(map(int, found["seeds"])),
        alpha=float(found["alpha"]),
        spending=str(found["spending"]),
        bound=str(found["bound"]),
        spent=tuple(map(float, found["spent"])),
        levels=tuple(map(float, found["levels"])),
    )
    return Record(
        declared=str(found["declared"]),
        plan=plan,
        taken=tuple(Look(**look) for look in found["taken"]),
        decided={str(name): Decision(**one) for name, one in found["decided"].items()},
        open=tuple(map(str, found["open"])),
    )


def after(record: Record, look: Look, verdicts: Sequence[Verdict]) -> Record:
    """The record with one more look taken and what its verdicts decide among the open hypotheses."""
    decided = dict(record.decided)
    n = len(record.taken) + 1
    for verdict in verdicts:
        if verdict.hypothesis in record.open and verdict.verdict in DECIDED:
            decided[verdict.hypothesis] = Decision(verdict.verdict, n, look.level)
    left = tuple(name for name in record.open if name not in decided)
    return replace(record, taken=(*record.taken, look), decided=decided, open=left)


def held(verdicts: Sequence[Verdict], record: Record) -> tuple[Verdict, ...]:
    """Verdicts with those that an earlier look decided put back, each saying so in its notes."""
    out = []
    for verdict in verdicts:
        found = record.decided.get(verdict.hypothesis)
        if found is not None:
            looks = len(record.plan.seeds)
            note = f"decided at look {found.look} of {looks}, at level {significant(found.level)}"
            verdict = replace(verdict, verdict=found.verdict, notes=(*verdict.notes, note))
        out.append(verdict)
    return tuple(out)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: it is damaged ({what}); nothing was changed. Put it back, for example from git, or "
        f"delete it: {_COST}."
    )
