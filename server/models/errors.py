"""What stops a start."""

from __future__ import annotations


class ModelsUnfit(Exception):
    """A setting about models cannot be right; the message says which, and what to do."""


class LoginUnfit(ModelsUnfit):
    """The file with the Claude login cannot be used; the message says why."""
