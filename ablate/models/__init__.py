"""Models: layouts, the mixer interface, attention, heads, assembly, matching, stacking."""

from ablate.models import attention, heads, layouts

__all__ = ["attention", "heads", "layouts"]
