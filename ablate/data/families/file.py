"""Any file or folder of the user's: `file/<path>`, with `file//...` for an absolute path.

The format is told from the content (D4RL's HDF5, a Minari folder, a Decision Transformer pickle).
Evaluated in the environment that it names (`environment` among its attributes: a gymnasium id, or
one of our data sets, whose environment and anchors are then used).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate import registry
from ablate.data import catalogue
from ablate.data.catalogue import Anchors, DataSpec, Family
from ablate.data.families.minari import made, stored
from ablate.data.formats import files
from ablate.data.formats.minari import Environment, environment, read_metadata
from ablate.envs.base import VectorEnv
from ablate.errors import UserError
from ablate.registry import register


@register("data", "file")
class File(Family):
    """Files in any readable format, a tenth of the episodes held out."""

    def resolve(self, member: str, name: str) -> DataSpec:
        path = Path(member).expanduser()
        files.detect(path)

        def build(about: dict[str, Any], num_envs: int) -> VectorEnv:
            base = _ours(about)
            return (
                made(_environment(path, about), num_envs)
                if base is None
                else base.make_env(num_envs)
            )

        def known(about: dict[str, Any]) -> Anchors | None:
            base = _ours(about)
            return None if base is None else base.anchors()

        return stored(
            name,
            {"file": member},
            lambda label: files.inspect(path, label),
            build,
            label=f"file/{path.name}",  # the same episodes are held out wherever the file lies
            known=known,
        )

    def names(self) -> list[str]:
        return []


def _ours(about: dict[str, Any]) -> DataSpec | None:
    """The data set of ours that a file names as its environment; None where it names none."""
    name = str(about.get("environment", ""))
    family = name.partition("/")[0]
    if family == "file" or family not in registry.names("data"):
        return None
    return catalogue.spec(name)


def _environment(path: Path, about: dict[str, Any]) -> Environment:
    if files.detect(path) == "minari":
        return environment(path, read_metadata(path))
    name = about.get("environment")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{path}: it names no environment, so that nothing can be evaluated; write it again with"
            " an environment: a gymnasium id, or the name of a data set."
        )
    return environment(path, {"env_spec": {"id": name}})
