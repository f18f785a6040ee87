"""What stops a start."""

from __future__ import annotations

from server.refusal import StartRefused


class ModelsUnfit(StartRefused):
    """A setting about models cannot be right; the message says which, and what to do."""


class LoginUnfit(ModelsUnfit):
    """The file with the Claude login cannot be used; the message says why."""
