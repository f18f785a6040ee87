"""Who waits for a place, and for how long."""

from __future__ import annotations

import asyncio

from server.kernel.places import Line


async def test_an_owner_of_many_keeps_nobody_else_waiting() -> None:
    line, served, done = Line(most=1), [], asyncio.Event()

    async def one(owner: str) -> None:
        async with line.place(owner):
            served.append(owner)
            await done.wait()

    async with asyncio.TaskGroup() as group:
        for owner in ("alice", "alice", "alice", "bob", "alice", "carol"):
            group.create_task(one(owner))
            await asyncio.sleep(0)
        done.set()
    assert served == ["alice", "bob", "carol", "alice", "alice", "alice"]
