"""Shares of what a server can do at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from server.kernel.errors import TooManyStreams


class Places:
    """So many at a time, and of one owner so few that others have some. Nobody waits: who is refused may try again."""

    def __init__(self, *, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """A place for the block. Errors: TooManyStreams."""
        if self._taken[owner] >= self._each:
            raise TooManyStreams(self._each, whose="your")
        if self._taken.total() >= self._most:
            raise TooManyStreams(self._most)
        self._taken[owner] += 1
        try:
            yield
        finally:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]


class Line:
    """So many at a time, in the order in which they came, and of one owner one: the others of an owner of many wait outside of the line."""

    def __init__(self, *, most: int) -> None:
        self._places = asyncio.Semaphore(most)
        self._own: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, owner: Hashable) -> AsyncIterator[None]:
        """Wait for a place, which is the owner's for the block."""
        async with self._own.setdefault(owner, asyncio.Lock()), self._places:
            yield
