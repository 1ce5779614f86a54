"""Reading a study file: the one door into this room."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ablate import registry
from ablate.config import STANDARD
from ablate.errors import quoted, unknown
from ablate.study import checks
from ablate.study.resolve import code_files, resolve
from ablate.study.schema import LONGEST, NAME, Study
from ablate.study.source import Source, read

IN_PROFILES = ("seeds", "designs", "model", "train", "settings", "measure", "tune", "streams")


def load(path: Path | str, profile: str | None = None, overrides: Sequence[str] = ()) -> Study:
    """Read and check a study file.

    profile: `standard` when None. overrides: texts like "train.updates=1000", laid over the
    profile. Every profile of the file is checked; data sets are looked up only for the one that is
    asked for.

    Raises UserError with file and line of whatever is wrong.
    """
    source = read(Path(path))
    load_code(source)
    profiles = _profiles(source)
    chosen = STANDARD if profile is None else profile
    if chosen not in profiles:
        raise unknown(f"{source.file}: the profile", chosen, profiles)
    studies = {name: _checked(source.merged(name), name, profiles) for name in profiles}
    checks.testable(source, list(studies.values()))
    merged = source.merged(chosen)
    for text in overrides:
        merged = merged.overridden(text)
    study = _checked(merged, chosen, profiles) if overrides else studies[chosen]
    study = study.model_copy(update={"own_streams": studies[chosen].streams})
    checks.possible(merged, study)
    return study


def load_code(source: Source) -> None:
    """Run the study's own Python files, which register what only this study measures, estimates and draws.

    They lie beside the study file and are run with the user's rights, as a plugin is. Raises UserError when one
    isn't there or doesn't import.
    """
    for path in code_files(source):
        registry.load_plugin(str(path))


def _checked(source: Source, profile: str, profiles: tuple[str, ...]) -> Study:
    study = resolve(source, profile, profiles)
    checks.hypotheses(source, study, study.responses)
    return study


def _profiles(source: Source) -> tuple[str, ...]:
    declared = source.tree.get("profiles") or {}
    if not isinstance(declared, dict):
        raise source.refuse(("profiles",), "'profiles' maps a name to what it changes.")
    for name, changes in declared.items():
        if not re.fullmatch(NAME, name) or len(name) > LONGEST:
            raise source.refuse(
                ("profiles", name),
                f"the profile {quoted(name)} names no folder; allowed: letters, digits, - and _, {LONGEST} at most.",
            )
        if changes is not None and not isinstance(changes, dict):
            raise source.refuse(
                ("profiles", name), f"profile '{name}' maps parts of the study to changes."
            )
        for part in changes or {}:
            if part not in IN_PROFILES:
                raise source.unknown(
                    ("profiles", name, part), "a profile can't change this part:", part, IN_PROFILES
                )
    # The file as it stands is checked before what profiles make of it.
    return tuple(dict.fromkeys((STANDARD, *map(str, declared))))
