"""The commands; each is a few lines, what they call lies in the rooms."""

from ablate.cli.commands import app, main

__all__ = ["app", "main"]
