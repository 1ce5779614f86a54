"""Models: layouts, tokens, the mixer interface, attention, heads, assembly, matching, stacking."""

from ablate.models import attention, heads, layouts, tokens

__all__ = ["attention", "heads", "layouts", "tokens"]
