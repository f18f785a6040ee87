"""What an agent remembers goes into a worker before its turn, and out of it after: with the real worker, sandbox and agent."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_anthropic import FakeAnthropic, fake_anthropic
from support.postgres import open_directory
from support.sandbox import require_sandbox
from support.workers import Heard, assignment, launcher_in, listen, new_worker, spec

from server.kernel.errors import WorkerLost
from server.kernel.ports.launcher import MAX_TRANSCRIPT_BYTES
from server.kernel.turn import TurnState
from server.workers.client import WorkerLink
from server.workers.local import LocalLauncher
from worker.engine import MAX_TRANSCRIPT_BYTES as WORKERS_LIMIT

pytest.importorskip("anthropic")


@pytest.fixture
async def launcher() -> AsyncIterator[LocalLauncher]:
    """In a short directory: the fake listens at the door by its path."""
    require_sandbox()
    with open_directory() as directory:
        async with launcher_in(directory) as opened:
            yield opened


@asynccontextmanager
async def worker_with_model(launcher: LocalLauncher) -> AsyncIterator[tuple[WorkerLink, FakeAnthropic]]:
    worker = new_worker()
    await launcher.workspace(spec(worker))
    await launcher.furnished(worker)
    door = await launcher.models(worker)
    async with fake_anthropic(door.socket) as fake:
        if door.owner:
            os.chown(door.socket, *door.owner)
        link = await launcher.launch(worker)
        try:
            yield link, fake
        finally:
            await link.close()
            await launcher.remove(worker)


async def turn(link: WorkerLink, prompt: str) -> Heard:
    return await listen(link.execute(replace(assignment(new_worker(), model="", provider="anthropic"), prompt=prompt)), link)


def said(heard: Heard) -> list[str]:
    return [event.message.parts[0].text for event in heard.events if event.WhichOneof("body") == "message"]


def test_both_sides_have_the_same_limit() -> None:
    assert MAX_TRANSCRIPT_BYTES == WORKERS_LIMIT


async def test_an_agent_remembers_in_another_worker_what_it_did_in_the_first(launcher: LocalLauncher) -> None:
    async with worker_with_model(launcher) as (link, _):
        heard = await turn(link, "[[script:bash tool=bash cmd=true]]")
        assert heard.result is not None
        assert heard.result.outcome.status is TurnState.COMPLETED, heard.result
        kept = await link.read_transcript()
        # Also by a server that finds the worker later.
        assert kept == await link.read_transcript()
    async with worker_with_model(launcher) as (link, fake):
        await link.load_transcript(b"replaced by the next call")
        await link.load_transcript(kept)
        assert said(await turn(link, "[[script:echo]]")) == ["history: bash,echo"]
        assert len(fake.asked) == 1
        with pytest.raises(WorkerLost, match="FAILED_PRECONDITION"):
            await link.load_transcript(kept)


async def test_there_is_nothing_to_read_before_the_result(launcher: LocalLauncher) -> None:
    async with worker_with_model(launcher) as (link, _):
        with pytest.raises(WorkerLost, match="FAILED_PRECONDITION"):
            await link.read_transcript()


async def test_one_of_the_largest_size_is_taken_and_a_larger_one_is_not(launcher: LocalLauncher) -> None:
    async with worker_with_model(launcher) as (link, _):
        await link.load_transcript(b"x" * MAX_TRANSCRIPT_BYTES)
        with pytest.raises(WorkerLost, match="RESOURCE_EXHAUSTED"):
            await link.load_transcript(b"x" * (MAX_TRANSCRIPT_BYTES + 1))
        # An agent that cannot read it goes on without.
        heard = await turn(link, "hello")
        assert heard.result is not None
        assert heard.result.outcome.status is TurnState.COMPLETED
        assert [event.error.code for event in heard.events if event.WhichOneof("body") == "error"] == ["TRANSCRIPT_UNREADABLE"]


async def test_calls_without_the_proof_are_refused(launcher: LocalLauncher) -> None:
    async with worker_with_model(launcher) as (link, _):
        link._connection.metadata = (("x-treadle-proof", "00" * 32),)
        with pytest.raises(WorkerLost, match="UNAUTHENTICATED"):
            await link.load_transcript(b"forged")
        with pytest.raises(WorkerLost, match="UNAUTHENTICATED"):
            await link.read_transcript()


async def test_an_agent_without_memory_leaves_nothing(launcher: LocalLauncher, tmp_path: Path) -> None:
    worker = new_worker()
    await launcher.workspace(spec(worker))
    await launcher.furnished(worker)
    link = await launcher.launch(worker)
    await listen(link.execute(assignment(worker, model="")), link)
    assert await link.read_transcript() == b""
    await link.close()
    await launcher.remove(worker)
