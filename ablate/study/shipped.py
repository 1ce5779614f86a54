"""The studies that come with `ablate`, which a command finds by their names from any folder."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
BESIDE = "studies"  # the folder of studies in a project


def folder() -> Path:
    """Where they lie: in an installed package, or beside the package of a clone."""
    inside = PACKAGE / BESIDE
    return inside if inside.is_dir() else PACKAGE.parent / BESIDE


def names() -> list[str]:
    """Their names, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find(path: Path) -> Path:
    """The study file that `path` names: itself where it is there; else, of NAME, NAME.yaml and studies/NAME.yaml, the
    file `studies/NAME.yaml` of the current folder, or the study of this name that comes with `ablate`.

    Where none of these is there, `path` as it is, which whoever reads it refuses.
    """
    if path.is_file() or not can_name(path):
        return path
    for place in (Path(BESIDE), folder()):
        if (found := place / f"{path.stem}.yaml").is_file():
            return found
    return path


def can_name(path: Path) -> bool:
    """Whether a path may stand for a shipped study."""
    return path.parent in (Path(), Path(BESIDE)) and path.suffix in ("", ".yaml")
