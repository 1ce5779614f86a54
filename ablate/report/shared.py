"""What all studies share in a paper's folder: macros.tex, supplement.tex, manifest.json, and the overview of claims.

A study's part of the paper is its entry in the manifest and its chapter of the supplement; from the
parts of all studies the shared files follow, so one study can be reported without the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import UserError
from ablate.report import claims, macros, paper, provenance, style, universes

FORMAT = 4
MACROS, SUPPLEMENT, MANIFEST = "macros.tex", "supplement.tex", "manifest.json"
OVERVIEW = (  # files below the paper's folder that tell of all studies
    *(f"{claims.FIGURE}.{kind}" for kind in ("pdf", "png")),
    *(f"{name}.{kind}" for name in universes.NAMES for kind in ("pdf", "png")),
    claims.STANDING,
)
WRITTEN = "% Written by `python -m ablate report`; edits are lost.\n"
_CHAPTER = "%% chapter of "  # opens a chapter's first line, before the study's name
ANEW = "make it anew: python -m ablate report"


@dataclass(frozen=True)
class Part:
    """A study's part of the paper: see `provenance.entry`; chapter: LaTeX."""

    entry: Mapping[str, Any]
    chapter: str

    @property
    def files(self) -> dict[str, str]:
        """Path below the paper's folder -> hash, of the study's own figures and tables."""
        return dict(self.entry["files"])

    @property
    def macros(self) -> dict[str, str]:
        """Name -> LaTeX text."""
        return {name: str(one["value"]) for name, one in sorted(self.entry["numbers"].items())}


@dataclass(frozen=True)
class Paper:
    """The parts of a paper, by study, whose figures have the sizes of a venue of `style.VENUES`; claims: those that
    people wrote."""

    venue: str = style.DEFAULT
    parts: Mapping[str, Part] = ()  # type: ignore[assignment]
    claims: tuple[claims.Claim, ...] = ()

    def files(self) -> dict[str, bytes]:
        """The shared files. Raises UserError when two studies give a number the same name, or a claim rests on what
        isn't there."""
        parts = {name: self.parts[name] for name in sorted(self.parts)}
        owner: dict[str, str] = {}
        for study, part in parts.items():
            for name in part.macros:
                if owner.setdefault(name, study) != study:
                    raise UserError(
                        f"{MACROS}: the studies '{owner[name]}' and '{study}' both give \\{name}; "
                        "rename one of them, or the hypothesis that the number is about."
                    )
        width = f"\\newcommand{{\\PaperWidth}}{{{style.sizes(self.venue)[0]:g}in}}\n"
        lines = [f"\n% {study}\n{macros.render(part.macros)}" for study, part in parts.items()]
        chapters = [f"{_CHAPTER}{study}\n{part.chapter}" for study, part in parts.items()]
        return self._overview() | {
            MACROS: (WRITTEN + width + "".join(lines)).encode(),
            SUPPLEMENT: (WRITTEN + paper.opening(self._universes) + "".join(chapters)).encode(),
            MANIFEST: provenance.dump(
                {
                    "format": FORMAT,
                    "venue": self.venue,
                    "studies": {study: part.entry for study, part in parts.items()},
                }
            ),
        }

    @property
    def _universes(self) -> list[str]:
        """The files of the figure of all universes."""
        return universes.names({study: part.entry for study, part in self.parts.items()})

    def _overview(self) -> dict[str, bytes]:
        """What the claims rest on, and how firmly all studies stand."""
        # As the manifest holds them: a figure of the numbers before they were rounded would be another one.
        entries = json.loads(
            provenance.dump({study: self.parts[study].entry for study in sorted(self.parts)})
        )
        out = {claims.STANDING: claims.standing(entries).encode()}
        out |= universes.draw(entries, self.venue)
        if self.claims:
            made = claims.draw(self.claims, entries, self.venue)
            out |= {f"{claims.FIGURE}.{kind}": content for kind, content in made.items()}
        return out


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the last report into `folder`; empty when there is none of this format."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}


def read(folder: Path) -> Paper:
    """The paper that lies in `folder`; an empty one where there is none.

    A part whose chapter is not the one that was written is left out of it.
    """
    found = manifest(folder)
    path = folder / SUPPLEMENT
    whole = path.read_text(encoding="utf-8") if path.is_file() else ""
    pieces = re.split(rf"^{re.escape(_CHAPTER)}(.+)\n", whole, flags=re.MULTILINE)
    chapters = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    venue = str(found.get("venue", ""))
    return Paper(
        venue if venue in style.VENUES else style.DEFAULT,
        {
            study: Part(entry, chapters[study])
            for study, entry in found.get("studies", {}).items()
            if provenance.sha(chapters.get(study, "").encode()) == entry["chapter"]
        },
        claims.read(folder),
    )
