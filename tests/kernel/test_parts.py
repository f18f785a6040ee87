"""What a server does beside its callers: what may end it, and what may not."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from server.parts import running


async def _nothing() -> None:
    return


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_chore_that_fails_is_begun_again_and_ends_no_server() -> None:
    begun = 0
    third = asyncio.Event()

    async def broken() -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            third.set()
            await _for_ever()
        raise KeyError("epoch")

    with capture_logs() as logs:
        async with (
            asyncio.timeout(10),
            running({"journal": _for_ever}, chores={"retention": broken}, at_the_end=_nothing, again_seconds=0.0) as failed,
        ):
            await third.wait()
            assert not failed.done()
    assert [(line["event"], line["chore"]) for line in logs] == [("server.chore_failed", "retention")] * 2


async def test_a_part_that_fails_ends_it() -> None:
    async def broken() -> None:
        raise KeyError("epoch")

    with capture_logs():
        async with asyncio.timeout(10), running({"journal": broken}, chores={"retention": _for_ever}, at_the_end=_nothing) as failed:
            with pytest.raises(RuntimeError, match="journal"):
                await failed
