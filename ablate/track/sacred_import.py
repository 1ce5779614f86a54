"""Everything of Sacred that `ablate` uses, imported without its warnings.

Sacred 0.8.7 imports `pkg_resources`, which setuptools deprecates and no longer ships from version 82 on;
`pyproject.toml` therefore pins an earlier one.
"""

from __future__ import annotations

import random
import sys
import warnings
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sacred.experiment
    import sacred.run
    from sacred import SETTINGS, Experiment
    from sacred.dependencies import PackageDependency, Source
    from sacred.host_info import HostInfoGetter
    from sacred.observers import FileStorageObserver, MongoObserver, RunObserver, SqlObserver
    from sacred.utils import SacredInterrupt


def _seed(seed: int) -> None:
    """Seed the generators that nothing here draws from, as Sacred does at the start of a run.

    It asks PyTorch for those of every device, which keeps a trace of the call for each that isn't there, for ever.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)


def _stack() -> list[tuple[FrameType]]:
    """The frames of an experiment that is made and of who makes it; the whole stack, which Sacred would ask for, is
    read from the source files."""
    return [(sys._getframe(1),), (sys._getframe(2),)]


sacred.run.set_global_seed = _seed
sacred.experiment.__dict__["inspect"] = SimpleNamespace(stack=_stack)

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
