"""The entries of a study's `data`: the name of a data set, or a mapping that also says how a file is read.

    data:
      - lq-mix/single
      - {name: file/robot.hdf5, environment: Robot-v0, horizon: 200}

`file/PATH` is looked for beside the study file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.data.reading import checked
from ablate.errors import UserError
from ablate.study.source import Source

FILE = "file/"  # how the name of a file of the user's begins


def entries(source: Source) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The names, with all else that stands in their place, and how each file is read, by name.

    Raises UserError with file and line of what an entry can't say.
    """
    found = source.tree.get("data")
    if not isinstance(found, list):
        return found, {}
    names: list[Any] = []
    readings: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(found):
        key = ("data", index)
        said = dict(entry) if isinstance(entry, dict) else {"name": entry}
        name = said.pop("name", None)
        if name is None:
            raise source.refuse(
                key, "an entry of 'data' is the name of a data set, or a mapping with its 'name'."
            )
        if isinstance(entry, dict) and not isinstance(name, str):
            raise source.refuse((*key, "name"), "'name' is the name of a data set.")
        names.append(name)
        if not isinstance(name, str):
            continue
        try:
            made = checked(said).said
        except UserError as error:
            raise source.refuse(key, str(error)) from None
        if name.startswith(FILE) and not Path(name.removeprefix(FILE)).expanduser().is_absolute():
            made["folder"] = str(Path(source.file).parent)
        if made:
            readings[name] = made
    return names, readings
