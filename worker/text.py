"""Text of a model, before it becomes a field of an event."""

from __future__ import annotations

from typing import Any


def plain(text: object) -> str:
    """Text that an event can hold: JSON may bring half a character, which has no UTF-8."""
    return str(text).encode("utf-8", "replace").decode()


def plain_json(value: Any) -> Any:
    """The same for all texts of a JSON value."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain(name): plain_json(each) for name, each in value.items()}
    return [plain_json(each) for each in value] if isinstance(value, list) else value
