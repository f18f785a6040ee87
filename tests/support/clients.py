"""The two Python clients behind one face, so that one test holds for both: a blocking one runs in a thread, as it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from treadle_client import AsyncTreadle, Event, Retry, Treadle

QUICK = Retry(first_seconds=0.002, longest_seconds=0.05, unanswered_seconds=60.0, away_seconds=60.0)
"""For tests: hundreds of cuts, and servers that take long to start on a busy machine."""

Each = Callable[[Event], Awaitable[None]]


class Driver:
    """Makes clients of one kind, and drives them from the test's loop."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.blocking = kind == "blocking"

    def __repr__(self) -> str:
        return self.kind

    def client(self, address: str, key: str, **options: Any) -> Any:
        return (Treadle if self.blocking else AsyncTreadle)(address, key, **({"retry": QUICK} | options))

    async def call(self, client: Any, name: str, *arguments: Any, **fields: Any) -> Any:
        """A call that is no stream; lists are gathered."""
        if not self.blocking:
            answer = getattr(client, name)(*arguments, **fields)
            return [item async for item in answer] if hasattr(answer, "__aiter__") else await answer

        def ask() -> Any:
            answer = getattr(client, name)(*arguments, **fields)
            return list(answer) if isinstance(answer, Iterator) else answer

        return await asyncio.to_thread(ask)

    async def read(self, stream: Any, each: Each | None = None) -> list[Event]:
        """All events of a stream; `each` is awaited, in the test's loop, for every one before the next is asked for."""
        seen: list[Event] = []
        await self.read_into(seen, stream, each)
        return seen

    async def read_into(self, seen: list[Event], stream: Any, each: Each | None = None) -> None:
        """The same, for streams that fail: what was seen before stays."""
        if not self.blocking:
            async for event in stream:
                seen.append(event)
                if each is not None:
                    await each(event)
            return
        loop = asyncio.get_running_loop()

        def read() -> None:
            for event in stream:
                seen.append(event)
                if each is not None:
                    asyncio.run_coroutine_threadsafe(_of(each, event), loop).result(100)

        await asyncio.to_thread(read)

    async def close(self, client: Any) -> None:
        await (asyncio.to_thread(client.close) if self.blocking else client.aclose())


async def _of(each: Each, event: Event) -> None:
    await each(event)


@contextmanager
def environment(monkeypatch: Any, **values: str) -> Iterator[None]:
    """Exactly these TREADLE_ variables."""
    with monkeypatch.context() as patch:
        for name in ("TREADLE_ADDRESS", "TREADLE_API_KEY", "TREADLE_API_KEY_FILE", "TREADLE_CA_FILE"):
            patch.delenv(name, raising=False)
        for name, value in values.items():
            patch.setenv(name, value)
        yield
