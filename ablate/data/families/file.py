"""Any file or folder of the user's: `file/<path>`, with `file//...` for an absolute path.

The format is told from the content (HDF5 of D4RL, d3rlpy or robomimic, a Minari folder, a pickle of
arrays, .npz).
Evaluated in the environment that it names (`environment` among its attributes: a gymnasium id, or
one of our data sets, whose environment and anchors are then used).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.data.catalogue import DataSpec, Family
from ablate.data.families.minari import stored
from ablate.data.formats import files
from ablate.data.formats.base import Contents
from ablate.data.formats.minari import read_metadata
from ablate.data.reading import AS_IT_IS, Reading
from ablate.registry import register


@register("data", "file")
class File(Family):
    """Files in any readable format, a tenth of the episodes held out."""

    def resolve(self, member: str, name: str) -> DataSpec:
        """See `Family.resolve`."""
        return self.read_as(member, name, AS_IT_IS)

    def read_as(self, member: str, name: str, reading: Reading) -> DataSpec:
        """See `Family.read_as`."""
        path = Path(reading.folder, Path(member).expanduser())
        format = files.detect(path)

        def read(label: str) -> Contents:
            return files.inspect(path, label, reading)

        def metadata() -> dict[str, Any]:
            return read_metadata(path) if format == "minari" else {}

        # The same episodes are held out wherever the file lies.
        label = f"file/{path.name}"
        return stored(name, {"file": member}, path, read, metadata, reading, label)

    def names(self) -> list[str]:
        return []
