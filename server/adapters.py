"""What is installed, by the names of entry points: launchers, object stores, agents. Nothing of them is imported."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points


@cache
def installed(port: str) -> tuple[str, ...]:
    """The names in the group `treadle.<port>`, sorted."""
    return tuple(sorted(entry_points(group=f"treadle.{port}").names))
