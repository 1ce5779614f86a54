"""Everything of Sacred that `ablate` uses, imported without its warnings.

Sacred 0.8.7 imports `pkg_resources`, which setuptools deprecates and no longer ships from version 82 on;
`pyproject.toml` therefore pins an earlier one.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sacred import SETTINGS, Experiment
    from sacred.dependencies import PackageDependency, Source
    from sacred.host_info import HostInfoGetter
    from sacred.observers import FileStorageObserver, MongoObserver, RunObserver, SqlObserver
    from sacred.utils import SacredInterrupt

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
