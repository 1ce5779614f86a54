"""Models: layouts of rows, tokens, the mixer interface, attention, heads, assembly, matching, stacking."""

from ablate.models import attention, conditions, heads, histories, layouts, tokens

__all__ = ["attention", "conditions", "heads", "histories", "layouts", "tokens"]
