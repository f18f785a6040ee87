"""Directories for a moment leave nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.kernel.scratch import scratch_directory


async def test_it_goes_with_its_content_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with scratch_directory(tmp_path) as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "file").write_text("x")
            raise ValueError("mine")
    assert not [*tmp_path.iterdir()]


async def test_who_is_cancelled_while_it_is_made_leaves_none(tmp_path: Path) -> None:
    async def use() -> None:
        async with scratch_directory(tmp_path):
            await asyncio.Event().wait()

    for turns in range(20):
        task = asyncio.create_task(use())
        for _ in range(turns % 4 + 1):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [*tmp_path.iterdir()]


async def test_no_room_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with scratch_directory(tmp_path / "missing"):
            pass
