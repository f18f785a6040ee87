"""What stops a start."""

from __future__ import annotations


class StartRefused(Exception):
    """The server cannot start like this; the message says what is wrong and what to change. Each place that knows has its own type."""


class SettingsUnfit(StartRefused):
    """The settings do not work here; the message says which, and what to do."""
