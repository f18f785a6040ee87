"""Text of a model, before it becomes a field of an event."""

from __future__ import annotations


def plain(text: object) -> str:
    """Text that an event can hold: JSON may bring half a character, which has no UTF-8."""
    return str(text).encode("utf-8", "replace").decode()
