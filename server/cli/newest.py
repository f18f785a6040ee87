"""Lists that are cut off, and say so."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TypeVar

from server.cli.aside import aside

T = TypeVar("T")


async def newest(items: AsyncIterable[T], limit: int) -> tuple[list[T], bool]:
    """The first `limit`, and whether there are more."""
    found: list[T] = []
    async for each in items:
        if len(found) == limit:
            return found, True
        found.append(each)
    return found, False


def say_if_more(limit: int, *, more: bool) -> None:
    """For below the list."""
    if more:
        aside(f"this is not all, only the newest {limit}: --limit N shows more")
