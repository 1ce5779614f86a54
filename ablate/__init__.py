"""ablate: controlled ablations of sequence modelling in offline reinforcement learning.

For scripts and notebooks: `load_study`, `results`, `verdicts`, `fit`, `load_model` (`ablate.api` says what each does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.api import fit, load_model, load_study, results, verdicts
    from ablate.errors import UserError

__version__ = "0.1.0"
__all__ = ["UserError", "fit", "load_model", "load_study", "results", "verdicts"]


def __getattr__(name: str) -> Any:
    """What scripts use is imported when it is first asked for, since it brings torch, pandas and all else."""
    if name not in __all__:
        raise AttributeError(f"module 'ablate' has no attribute '{name}'")
    from importlib import import_module

    found = getattr(import_module("ablate.errors" if name == "UserError" else "ablate.api"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
