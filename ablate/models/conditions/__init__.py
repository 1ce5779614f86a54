"""What a policy may be told besides what it observes, one file a condition; a user's own is registered like ours.

A level of the factor `condition` is a sum of them: `return-to-go+time`.
"""

import importlib
import pkgutil

from ablate.models.conditions.base import Condition, Moment, of, unmet, uses

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")

__all__ = ["Condition", "Moment", "of", "unmet", "uses"]
