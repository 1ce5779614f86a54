"""Sacred, imported where its own import fails.

Sacred 0.8.7 imports `pkg_resources`, which setuptools removed in version 82. It needs three things
of it, and only for what we gather ourselves; a stand-in serves the import and is taken away again.
Everything of Sacred that `ablate` uses comes through this file.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from pathlib import Path


class _WorkingSet(list):
    """An empty list of distributions: versions come from `provenance.packages`."""

    by_key: dict[str, object] = {}  # noqa: RUF012 (an attribute of pkg_resources, never written)


def _stand_in() -> types.ModuleType:
    def resource_filename(package: str, name: str) -> str:
        found = importlib.util.find_spec(package)
        return str(Path(str(found and found.origin)).parent / name)

    module = types.ModuleType("pkg_resources")
    module.__dict__.update(working_set=_WorkingSet(), resource_filename=resource_filename)
    return module


_missing = "pkg_resources" not in sys.modules and importlib.util.find_spec("pkg_resources") is None
if _missing:
    sys.modules["pkg_resources"] = _stand_in()
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it exists, pkg_resources says it is deprecated
        from sacred import SETTINGS, Experiment
        from sacred.dependencies import PackageDependency, Source
        from sacred.host_info import HostInfoGetter
        from sacred.observers import FileStorageObserver, MongoObserver, RunObserver, SqlObserver
        from sacred.utils import SacredInterrupt
finally:
    if _missing:
        del sys.modules["pkg_resources"]

__all__ = [
    "SETTINGS",
    "Experiment",
    "FileStorageObserver",
    "HostInfoGetter",
    "MongoObserver",
    "PackageDependency",
    "RunObserver",
    "SacredInterrupt",
    "Source",
    "SqlObserver",
]
